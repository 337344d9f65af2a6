"""Closes a run whose writer was killed: its rows as they are, and a row for each entry it lacks.

Each row was on the disk, chained to the one before, as soon as its entry had ended. What is missing
is the account of what did not run, and that can be made as long as the files are the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from aprverify.evidence.describe import describe_contract
from aprverify.evidence.writer import RunWriter
from aprverify.plan import make_plan
from aprverify.plugin.attempt import empty_row
from aprverify.plugin.state import State

_PLACE = ("type", "seq", "prev")
_REASON = {
    "kind": "interrupted",
    "detail": "the session was killed, and its run closed later",
    "remedy": "run it again",
}
Body = dict[str, Any]


class NotTheSameFiles(Exception):
    """The run cannot be accounted for here: the message says why and what to do."""


def close_unfinished(lines: Sequence[Body], state: State, file: Path) -> int:
    """Write the run of `lines` to `file`: what is missing as not run, and a footer that says so.

    Args:
        lines: as `read_unfinished` gives them.
        state: of the checkout that the run was made of.
        file: the new run.jsonl.

    Returns:
        How many entries had no row.

    Raises:
        NotTheSameFiles: the run is a part of the suite, or of other contracts or files.
    """
    header, rows, environments = _sorted_out(lines)
    entries = {
        entry.key: entry
        for entry in make_plan(
            state.loaded.contracts,
            teeth=header["selection"]["teeth"],
            lane=header["selection"]["lane"],
        )
    }
    _require_same(state, header, lines, rows, entries)
    finished = max((_end(row) for row in rows), default=header["started"])
    with RunWriter(file) as writer:
        writer.header(_without_place(header))
        place = _copied(writer, lines, environments)
        written = {row["key"] for row in rows}
        missing = [entry for key, entry in entries.items() if key not in written]
        for entry in missing:
            name = writer.environment(environments[place])
            row = empty_row(entry, "not_run", _REASON, state.source_id(entry), name, "")
            writer.row({**row, "started": finished})
        writer.footer(interrupted=True, finished=finished)
    return len(missing)


def _sorted_out(lines: Sequence[Body]) -> tuple[Body, list[Body], dict[str, Body]]:
    """Header, rows, and environments by their ids."""
    header = next((line for line in lines if line["type"] == "header"), None)
    rows = [line for line in lines if line["type"] == "row"]
    if header is None or not rows:
        raise NotTheSameFiles("no row was written before the session was killed: run it again")
    places = (line for line in lines if line["type"] == "environment")
    return header, rows, {p["id"]: _without_place(p, "id") for p in places}


def _copied(writer: RunWriter, lines: Sequence[Body], environments: Mapping[str, Body]) -> str:
    """Write contracts and rows as they are; the environment of the last row."""
    place = ""
    for line in lines:
        if line["type"] == "contract":
            writer.contract(_without_place(line))
        elif line["type"] == "row":
            place = line["environment"]
            writer.environment(environments[place])
            writer.row(_without_place(line))
    return place


def _require_same(
    state: State,
    header: Body,
    lines: Sequence[Body],
    rows: Sequence[Body],
    entries: Mapping[str, Any],
) -> None:
    if not header["selection"]["complete"]:
        raise NotTheSameFiles(
            "a part of the suite was selected, and which entries that were is not written: "
            "what is missing cannot be told; run it again"
        )
    here = {c.id: describe_contract(c, state.suite.root) for c in state.loaded.contracts}
    then = {c["id"]: _without_place(c) for c in lines if c["type"] == "contract"}
    changed = [id_ for id_ in here.keys() | then.keys() if here.get(id_) != then.get(id_)]
    changed += [
        row["key"]
        for row in rows
        if row["key"] not in entries or state.source_id(entries[row["key"]]) != row["source_id"]
    ]
    if changed or len(entries) != header["planned"]:
        first = f": {sorted(changed)[0]}" if changed else ""
        raise NotTheSameFiles(
            f"the run was made of other files than those here{first}; check out the commit that "
            "was tested, and recover there"
        )


def _end(row: Body) -> str:
    end = datetime.fromisoformat(row["started"]) + timedelta(seconds=row["seconds"])
    return end.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _without_place(line: Body, *also: str) -> Body:
    return {name: value for name, value in line.items() if name not in (*_PLACE, *also)}
