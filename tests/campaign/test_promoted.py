"""Committed campaigns: their pages are what they say, under the names that they call themselves."""

from __future__ import annotations

import subprocess
from pathlib import Path

from aprverify.evidence import verdict
from tests.campaign.test_command import _run, _toy
from tests.conftest import Toy


def _index(toy: Toy, *arguments: str) -> subprocess.CompletedProcess[str]:
    return toy.process("-m", "aprverify", "--suite", "toy", "evidence", "index", *arguments)


def test_the_index_writes_and_guards_the_pages_of_campaigns(tmp_path: Path) -> None:
    """Each report, the joined one, and nothing under another name."""
    toy = _toy(tmp_path / "p")
    folder = toy.root / "evidence" / "campaigns" / "here"
    _run(toy, "FALSIFY-TOY-001", "--evaluations", "4", name="evidence/campaigns/here")
    (folder / "report.md").unlink()
    done = _index(toy)
    assert done.returncode == verdict.OK, done.stderr
    joined = folder.parent / "README.md"
    assert joined.read_text() == (folder / "report.md").read_text()
    assert _index(toy, "--check").returncode == verdict.OK
    for page in (joined, folder / "report.md"):
        good = page.read_text()
        page.write_text(good.replace("**Not shown:**", "Shown:"))
        refused = _index(toy, "--check")
        assert refused.returncode == verdict.REFUSED and str(page) in refused.stderr
        page.write_text(good)
    folder.rename(folder.with_name("there"))
    renamed = _index(toy, "--check")
    assert renamed.returncode == verdict.REFUSED and "calls itself here" in renamed.stderr
