"""Attacks on a committed run and on a small one: what needs no key to be refused, is refused."""

from __future__ import annotations

import os
import re
import shutil
from functools import cache
from pathlib import Path

import pytest

from aprverify.evidence.promote import promoted_runs
from aprverify.evidence.reader import RUN_FILE, read_run
from aprverify.evidence.refusals import EvidenceRefused, MissingRun
from aprverify.views.beside import differing, files_of_index, files_of_run, write_files

from .refused import CASES, Case
from .tampering import Evidence, toy_run

COMMITTED = Path(__file__).parents[2] / "evidence" / "runs"
SOURCES = ("toy", "committed")


@cache
def committed_run() -> Path:
    """The first committed run of the whole suite that has rows of a GPU and was not cut off."""
    for file in sorted(COMMITTED.glob(f"*/{RUN_FILE}")):
        run = read_run(file)
        whole = run.header.selection.complete and not run.footer.interrupted
        if whole and any(environment.gpus for environment in run.environments):
            return file
    raise AssertionError("no whole run of a GPU is committed")


def make(source: str, folder: Path) -> Path:
    """A run to attack, in a folder of its own name."""
    if source == "toy":
        return toy_run(folder / "toy" / RUN_FILE)
    original = committed_run()
    (folder / original.parent.name).mkdir()
    return Path(shutil.copyfile(original, folder / original.parent.name / RUN_FILE))


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Both runs, unharmed."""
    return {source: make(source, tmp_path_factory.mktemp(source)) for source in SOURCES}


@pytest.fixture
def victim(tmp_path: Path, originals: dict[str, Path], request: pytest.FixtureRequest) -> Path:
    """A copy to attack."""
    return Path(shutil.copyfile(originals[request.param], tmp_path / RUN_FILE))


@pytest.mark.parametrize("victim", SOURCES, indirect=True)
def test_what_is_attacked_is_good_evidence(victim: Path) -> None:
    """As it is, written again line by line, and with a row that was honestly falsified."""
    before = read_run(victim).footer.outcomes
    assert before["held"]
    evidence = Evidence(victim)
    evidence.save()
    assert read_run(victim).footer.outcomes["held"]
    evidence.falsify()
    evidence.save()
    after = read_run(victim).footer.outcomes
    assert after["falsified"] == before.get("falsified", 0) + 1
    assert after["held"] == before["held"] - 1


@pytest.mark.parametrize("victim", SOURCES, indirect=True)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_attack_is_refused_by_name(victim: Path, case: Case) -> None:
    """With the reason that fits, and no other; the first words are for a person."""
    case.attack(Evidence(victim))
    with pytest.raises(EvidenceRefused) as caught:
        read_run(victim)
    assert type(caught.value) is case.refusal, caught.value
    assert re.search(case.says, str(caught.value)), caught.value


def test_there_are_many_attacks_and_each_is_named_once() -> None:
    """An attack that another one of the same name replaced would be lost."""
    assert len({case.name for case in CASES}) == len(CASES) >= 100


@pytest.fixture(params=SOURCES)
def kept(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A folder of evidence with one promoted run and its report."""
    (tmp_path / "runs").mkdir()
    file = make(request.param, tmp_path / "runs")
    write_files(file.parent, files_of_run(read_run(file)))
    write_files(tmp_path, files_of_index(promoted_runs(tmp_path)))
    return file


def _edited(kept: Path) -> list[Path]:
    """What beside the runs is not what they say."""
    evidence_dir = kept.parents[2]
    runs = promoted_runs(evidence_dir)
    wrong = list(differing(evidence_dir, files_of_index(runs)))
    return wrong + [file for run in runs for file in differing(kept.parent, files_of_run(run))]


@pytest.mark.parametrize("where", ["runs/*/report.md", "README.md"])
def test_a_view_edited_by_hand_is_noticed(kept: Path, where: str) -> None:
    """The report and the index: one character is enough, and so is a file that is gone."""
    assert not _edited(kept)
    (view,) = kept.parents[2].glob(where)
    text = view.read_bytes()
    view.write_bytes(text.replace(b"not", b"Not", 1))
    assert view in _edited(kept)
    view.write_bytes(text)
    assert not _edited(kept)
    view.unlink()
    assert view in _edited(kept)


@pytest.mark.parametrize("how", ["renamed", "copied", "linked", "file linked"])
def test_a_promoted_run_lies_under_its_own_name(kept: Path, how: str, tmp_path: Path) -> None:
    """Renamed, copied to count twice, or a link to something that is not committed."""
    folder = kept.parent
    if how == "renamed":
        folder.rename(folder.with_name("another"))
    elif how == "copied":
        shutil.copytree(folder, folder.with_name("another"))
    elif how == "linked":
        elsewhere = tmp_path / "elsewhere" / folder.name
        shutil.copytree(folder, elsewhere)
        shutil.rmtree(folder)
        folder.symlink_to(elsewhere)
    else:
        shutil.move(kept, tmp_path / "elsewhere.jsonl")
        kept.symlink_to(tmp_path / "elsewhere.jsonl")
    with pytest.raises(MissingRun, match=r"a link" if "linked" in how else "calls itself"):
        promoted_runs(kept.parents[2])


@pytest.mark.parametrize("what", ["pipe", "folder"])
def test_what_is_no_file_is_no_run(tmp_path: Path, what: str) -> None:
    """A pipe would keep the reader waiting for ever."""
    if what == "pipe":
        os.mkfifo(tmp_path / RUN_FILE)
    else:
        (tmp_path / RUN_FILE).mkdir()
    with pytest.raises(MissingRun, match="is no file"):
        read_run(tmp_path)
