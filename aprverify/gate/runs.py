"""Which runs a gate is given: named ones or whole evidence folders, each read with distrust."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from aprverify.evidence.promote import promoted_runs
from aprverify.evidence.reader import RUN_FILE, read_run
from aprverify.evidence.records import Run
from aprverify.evidence.refusals import MissingRun
from aprverify.trust.trusted import read_trusted
from aprverify.trust.verify import Signature, verify_run


def read_runs(paths: Sequence[Path], evidence_dir: Path) -> tuple[list[Run], list[str]]:
    """The runs at `paths`, or all promoted ones where none is named, and what was odd about it.

    A path is a run's folder, its run.jsonl, or a folder of evidence with ``runs/`` in it; what lies
    beside a run.jsonl cannot hide it. A run that is named twice counts once.

    Raises:
        EvidenceRefused: one of them is no evidence.
    """
    runs: dict[str, Run] = {}
    warnings = []
    for path in paths or [evidence_dir]:
        for run in _at(path, is_default=not paths):
            if run.sha256 in runs:
                warnings.append(f"{path}: run {run.header.run_id} was given twice; it counts once")
            runs.setdefault(run.sha256, run)
    return list(runs.values()), warnings


def signers(runs: Sequence[Run], trusted_keys: Path, identity: str | None) -> dict[str, Signature]:
    """Who signed each run, by the run's SHA-256. `identity`: the only one whose word is taken.

    Raises:
        EvidenceRefused: a signature is missing, false, or of nobody that `trusted_keys` names.
    """
    trusted = read_trusted(trusted_keys)
    return {run.sha256: verify_run(run, trusted, identity) for run in runs}


def _at(path: Path, *, is_default: bool) -> Iterator[Run]:
    if not is_default and ((path / RUN_FILE).exists() or not (path / "runs").is_dir()):
        yield read_run(path)
        return
    found = promoted_runs(path)
    if not found and not is_default:
        raise MissingRun(path, None, "was given as evidence, and holds no run")
    yield from found
