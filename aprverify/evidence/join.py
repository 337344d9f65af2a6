"""Lanes and shards of one checkout become one file: their rows under one header.

What comes out is a pure function of what went in and of the folder's name, whatever the order in
which the runs are given. Which row speaks for an entry that several runs have is `merge`'s to say.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from aprverify.evidence.accounts import missing_entries
from aprverify.evidence.merge import (
    Merged,
    Origin,
    candidates_by_key,
    disagreements,
    merge_runs,
    worse,
)
from aprverify.evidence.reader import RUN_FILE
from aprverify.evidence.records import ContractRecord, Run, TooDear, instant
from aprverify.evidence.writer import RunWriter

_Body = dict[str, Any]


class NotOneRun(Exception):
    """Runs that are not of one checkout and subject: the message says what differs."""


@dataclass(frozen=True)
class Joined:
    """What is to be known of a joined run.

    Attributes:
        repeated: runs that were given twice, by run id.
        conflicts: entries with different verdicts about the same files; the worse one was kept.
        gaps: planned entries that no run has a row of, or in words what is missing.
    """

    repeated: tuple[str, ...]
    conflicts: dict[str, tuple[str, ...]]
    gaps: tuple[str, ...]


def join_lanes(
    lanes: Sequence[Run],
    folder: Path,
    command: list[str],
    localizations: Mapping[str, _Body] | None = None,
    *,
    whole: bool = True,
    too_dear: Sequence[TooDear] = (),
) -> None:
    """Write ``folder/run.jsonl`` from the lanes' runs, and remove their folders.

    `localizations`: by key, what rows are to hold besides.

    The lanes have read the same contracts and none shares an entry with another; whatever does
    not fit is refused by `RunWriter`. If joining fails, the lanes' folders stay and nothing else.
    Not `whole`: some lane was never begun. `too_dear`: what was left out for its cost of lanes that
    had nothing else, and so have no run.
    """
    lines = [_Lines(lane) for lane in lanes]
    headers = [one.header for one in lines]
    lane = headers[0]["selection"]["lane"] if len(headers) == 1 else "all"
    dear = [h["selection"]["too_dear"] for h in headers if "too_dear" in h["selection"]]
    dear += map(asdict, too_dear)
    all_complete = all(header["selection"]["complete"] for header in headers)
    header = {
        **headers[0],
        "run_id": folder.name,
        "command": command,
        "selection": {
            **headers[0]["selection"],
            "lane": lane,
            "complete": whole and all_complete and not dear,
            **_too_dear(dear),
        },
    }
    rows = [pair for one in lines for pair in one.rows.values()]
    for row, _ in rows:
        if found := (localizations or {}).get(row["key"]):
            row["localization"] = found
    interrupted = any(run.footer.interrupted for run in lanes)
    _write(folder / RUN_FILE, header, lines[0].contracts.values(), rows, interrupted)
    for run in lanes:
        shutil.rmtree(run.path.parent)


def _too_dear(lanes: Sequence[_Body]) -> _Body:
    """What all lanes together left out for its cost; nothing where none did."""
    entries = sum(dear["entries"] for dear in lanes)
    return {"too_dear": {**lanes[0], "entries": entries}} if lanes else {}


def join_runs(runs: Sequence[Run], folder: Path, planned: AbstractSet[str] | None) -> Joined:
    """Write ``folder/run.jsonl`` from lanes and shards of one checkout, which stay as they are.

    `planned`: the keys of all entries of the runs' contracts; None: not known, then gaps are
    counted from what the contracts declare.

    Raises:
        NotOneRun: they are not of one suite, subject, checkout and version of aprverify.
        FileExistsError: there is a run in `folder`.
    """
    once = {run.sha256: run for run in runs}
    ordered = sorted(
        once.values(), key=lambda r: (instant(r.header.started), r.header.run_id, r.sha256)
    )
    for reason in _differences(ordered):
        raise NotOneRun(reason)
    merged = merge_runs(ordered, None)
    origins = _in_order(merged, _chosen(ordered, merged))
    gaps = _gaps(ordered, merged, planned)
    lines = {run.sha256: _Lines(run) for run in ordered}
    contracts = {id_: body for one in lines.values() for id_, body in one.contracts.items()}
    _write(
        folder / RUN_FILE,
        _header(ordered, [lines[r.sha256].header for r in ordered], folder.name, gaps, planned),
        [contracts[contract.id] for contract in merged.contracts],
        [lines[origin.run.sha256].rows[origin.row.key] for origin in origins],
        any(run.footer.interrupted for run in ordered),
        max((run.footer.finished for run in ordered), key=instant),
    )
    names = [run.header.run_id for run in runs]
    for run in ordered:
        names.remove(run.header.run_id)
    return Joined(tuple(names), dict(sorted(merged.conflicts.items())), gaps)


def write_matrix_run(
    declared: Run,
    folder: Path,
    command: list[str],
    environment: _Body,
    matrix: _Body,
    crosses: Iterable[_Body],
) -> None:
    """Write ``folder/run.jsonl``: all that `declared` holds, and what was tried beyond it."""
    lines = _Lines(declared)
    with RunWriter(folder / RUN_FILE) as writer:
        writer.header({**lines.header, "run_id": folder.name, "command": command})
        for contract in lines.contracts.values():
            writer.contract(contract)
        for row, place in lines.rows.values():
            writer.environment(place)
            writer.row(row)
        name = writer.environment(environment)
        writer.matrix({**matrix, "environment": name}, crosses)
        writer.footer(declared.footer.interrupted)


class _Lines:
    """The lines of a run as they were written, by what they are about."""

    def __init__(self, run: Run) -> None:
        self.header: _Body = {}
        self.contracts: dict[str, _Body] = {}
        self.rows: dict[str, tuple[_Body, _Body]] = {}
        environments: dict[str, _Body] = {}
        for text in run.path.read_text(encoding="utf-8").split("\n")[:-1]:
            line = json.loads(text)
            body = {k: v for k, v in line.items() if k not in ("type", "seq", "prev")}
            match line["type"]:
                case "header":
                    self.header = body
                case "contract":
                    self.contracts[body["id"]] = body
                case "environment":
                    environments[body.pop("id")] = body
                case "row":
                    self.rows[body["key"]] = (body, environments[body["environment"]])


def _write(
    file: Path,
    header: _Body,
    contracts: Iterable[_Body],
    rows: Sequence[tuple[_Body, _Body]],
    interrupted: bool,
    finished: str | None = None,
) -> None:
    """Write a run, whole or not at all. `rows`: each with its environment."""
    writer = RunWriter(file)
    try:
        with writer:
            writer.header({**header, "planned": len(rows)})
            for contract in contracts:
                writer.contract(contract)
            for row, environment in rows:
                writer.environment(environment)
                writer.row(row)
            writer.footer(interrupted, finished)
    except BaseException:
        file.unlink()
        raise


def _differences(runs: Sequence[Run]) -> Iterator[str]:
    """Why the runs cannot be one."""
    first = runs[0]
    contracts: dict[str, tuple[ContractRecord, Run]] = {}
    sources: dict[str, tuple[str, Run]] = {}
    for run in runs:
        pair = f"{first.path} and {run.path}"
        for what, one, other in (
            ("suite", first.header.suite, run.header.suite),
            ("subject", first.header.subject, run.header.subject),
            ("version of aprverify", _version(first), _version(run)),
        ):
            if one != other:
                yield f"{pair}: another {what}, {one} and {other}"
        for contract in run.contracts:
            known, where = contracts.setdefault(contract.id, (contract, run))
            if known != contract:
                yield f"{where.path} and {run.path}: {contract.id} reads differently"
        for row in run.rows:
            source, where = sources.setdefault(row.key, (row.source_id, run))
            if source != row.source_id:
                yield f"{where.path} and {run.path}: {row.key} is about different files"


def _version(run: Run) -> str:
    source = run.header.source
    return f"{source.aprverify_version} ({source.aprverify_sha256[:12]})"


def _chosen(runs: Sequence[Run], merged: Merged) -> dict[str, Origin]:
    origins = dict(merged.origins)
    if merged.conflicts:
        candidates = candidates_by_key(runs, merged.contracts)
        for key in merged.conflicts:
            for disagreeing in disagreements(candidates[key]).values():
                # Otherwise a run that failed could be merged away by one that did not.
                origins[key] = worse(disagreeing)
    return origins


def _in_order(merged: Merged, origins: dict[str, Origin]) -> list[Origin]:
    """As a plan has them: each test's clean cases, then its defects."""
    tests = [test for contract in merged.contracts for test in contract.tests]
    keys = [
        f"{test.id}[{case}]" + (f"!{defect}" if defect else "")
        for test in tests
        for defect in ("", *test.counter_examples)
        for case in test.cases
    ]
    return [origins[key] for key in keys if key in origins]


def _gaps(runs: Sequence[Run], merged: Merged, planned: AbstractSet[str] | None) -> tuple[str, ...]:
    if planned is not None:
        return tuple(sorted(planned - merged.origins.keys()))
    header = runs[0].header
    whole = replace(header.selection, lane="all", teeth="declared", complete=True)
    rows = {key: origin.row for key, origin in merged.origins.items()}
    return tuple(missing_entries(replace(header, selection=whole), merged.contracts, rows))


def _header(
    runs: Sequence[Run],
    headers: Sequence[_Body],
    name: str,
    gaps: Sequence[str],
    planned: AbstractSet[str] | None,
) -> _Body:
    selections = [run.header.selection for run in runs]
    lanes = {selection.lane for selection in selections}
    all_asked_for = all(s.complete and s.teeth == "declared" for s in selections)
    covered = all_asked_for and ("all" in lanes or lanes >= {"cpu", "cuda"})
    sources = [run.header.source for run in runs]
    commits = {source.commit for source in sources} - {None}
    dirty = {source.dirty for source in sources}
    return {
        **headers[0],
        "run_id": name,
        "command": ["aprverify", "merge", *(f"{r.header.run_id}@sha256:{r.sha256}" for r in runs)],
        "selection": {
            "keyword": _either([selection.keyword for selection in selections]),
            "markers": _either([selection.markers for selection in selections]),
            "paths": sorted({path for selection in selections for path in selection.paths}),
            "lane": lanes.pop() if len(lanes) == 1 else "all",
            "teeth": "declared" if any(s.teeth == "declared" for s in selections) else "none",
            "complete": not gaps and (covered or planned is not None),
        },
        "require": sorted({device for run in runs for device in run.header.require}),
        "source": {
            **headers[0]["source"],
            "commit": commits.pop() if len(commits) == 1 else None,
            "dirty": True if True in dirty else (None if None in dirty else False),
        },
    }


def _either(expressions: Sequence[str]) -> str:
    """What selects whatever one of them selects; the empty one selects everything."""
    distinct = list(dict.fromkeys(expressions))
    if "" in distinct or len(distinct) == 1:
        return "" if "" in distinct else distinct[0]
    return " or ".join(f"({expression})" for expression in distinct)
