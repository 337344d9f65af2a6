"""Promotes a local run to committed evidence, and keeps the index of all promoted runs."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from aprverify.evidence.index import render_index
from aprverify.evidence.markdown import count
from aprverify.evidence.reader import RUN_FILE, read_run
from aprverify.evidence.records import Run
from aprverify.evidence.report import render_report
from aprverify.evidence.saving import write_text

REPORT_FILE = "report.md"
INDEX_FILE = "README.md"


class NotPromoted(Exception):
    """The run is sound, and yet nothing to keep: the message says why and what to do."""


def promote(run: Run, evidence_dir: Path, current: Mapping[str, str]) -> Path:
    """Copy a run into ``runs/<run_id>``, whole or not at all. Returns the new folder.

    `current` is the present source_id by row key.

    Raises:
        NotPromoted: the run was interrupted, reached no verdict, is about other files than the
            present ones, or is there already.
    """
    if run.footer.interrupted:
        raise NotPromoted(f"{run.path}: the run was interrupted. Run it again to its end.")
    if all(row.outcome == "not_run" for row in run.rows):
        raise NotPromoted(f"{run.path}: nothing ran. Run it where its entries can run.")
    stale = [row.key for row in run.rows if current.get(row.key) != row.source_id]
    if stale:
        rows = count(len(run.rows), "row is", "rows are")
        raise NotPromoted(
            f"{run.path}: {len(stale)} of {rows} not about the present files, as {stale[0]}. "
            "Run it again."
        )
    for other in promoted_runs(evidence_dir):
        if run.sha256 == other.sha256 or run.header.run_id == other.header.run_id:
            raise NotPromoted(f"{run.path}: promoted before, as {other.path.parent}.")
    name = run.header.run_id
    if name != Path(name).name or name.startswith("."):
        raise NotPromoted(f"{run.path}: run_id {name!r} is no folder name. Run it again.")
    runs = evidence_dir / "runs"
    runs.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=runs, prefix=".adding-") as scratch:
        folder = Path(scratch) / name
        folder.mkdir()
        shutil.copyfile(run.path, folder / RUN_FILE)
        write_text(folder / REPORT_FILE, render_report(run))
        return folder.rename(runs / name)


def promoted_runs(evidence_dir: Path) -> list[Run]:
    """Every promoted run.

    Raises:
        EvidenceRefused: one of them is damaged.
    """
    folders = sorted((evidence_dir / "runs").glob("[!.]*/"))
    return [read_run(folder) for folder in folders if folder.is_dir()]


def index_text(evidence_dir: Path) -> str:
    """The index as it should read. It holds no judgement of age, which any edit would change."""
    return render_index(promoted_runs(evidence_dir), None)


def report_is_true(run: Run) -> bool:
    """Whether the report beside the run is, byte for byte, the one that the run makes.

    Raises:
        FileNotFoundError: there is no report beside it.
    """
    return run.path.with_name(REPORT_FILE).read_bytes() == render_report(run).encode()
