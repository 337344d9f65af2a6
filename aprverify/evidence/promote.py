"""Promotes a local run to committed evidence, and keeps the index of all promoted runs."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from aprverify.evidence.markdown import count
from aprverify.evidence.reader import RUN_FILE, read_run
from aprverify.evidence.records import Run
from aprverify.evidence.refusals import MissingRun
from aprverify.trust.verify import SIGNATURE_FILE
from aprverify.views.beside import files_of_run, write_files


class NotPromoted(Exception):
    """The run is sound, and yet nothing to keep: the message says why and what to do."""


def promote(
    run: Run, evidence_dir: Path, current: Mapping[str, str], *, cut_off: bool = False
) -> Path:
    """Copy a run into ``runs/<run_id>``, whole or not at all. Returns the new folder.

    `current` is the present source_id by row key. `cut_off`: take an interrupted run too; what the
    interruption cut off stays not run, and its report says so first.

    Raises:
        NotPromoted: the run was interrupted, reached no verdict, is about other files than the
            present ones, or is there already.
    """
    if run.footer.interrupted and not cut_off:
        raise NotPromoted(
            f"{run.path}: the run was interrupted. Run it again to its end, or keep what it has "
            "with --interrupted."
        )
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
        if (signature := run.path.with_name(SIGNATURE_FILE)).is_file():
            shutil.copyfile(signature, folder / SIGNATURE_FILE)
        write_files(folder, files_of_run(run))
        return folder.rename(runs / name)


def promoted_runs(evidence_dir: Path) -> list[Run]:
    """Every promoted run.

    Raises:
        EvidenceRefused: one of them is damaged, is called otherwise than its folder, or lies
            elsewhere.
    """
    folders = sorted((evidence_dir / "runs").glob("[!.]*/"))
    return [_promoted_run(folder) for folder in folders if folder.is_dir()]


def _promoted_run(folder: Path) -> Run:
    if folder.is_symlink() or (folder / RUN_FILE).is_symlink():
        raise MissingRun(folder, None, "a link: what is committed is not the run")
    run = read_run(folder)
    if run.header.run_id != folder.name:
        # So that no run is kept twice, under two names.
        what = f"the run calls itself {run.header.run_id}: it was renamed or copied"
        raise MissingRun(folder, None, what)
    return run
