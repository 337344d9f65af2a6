"""The lanes of one run become one file: the same rows under one header."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aprverify.evidence.reader import RUN_FILE
from aprverify.evidence.records import Run
from aprverify.evidence.writer import RunWriter


def join_lanes(lanes: Sequence[Run], folder: Path, command: list[str]) -> None:
    """Write ``folder/run.jsonl`` from the lanes' runs, and remove their folders.

    The lanes have read the same contracts and none shares an entry with another; whatever does
    not fit is refused by `RunWriter`. If joining fails, the lanes' folders stay and nothing else.
    """
    lines = [_lines(lane.path) for lane in lanes]
    file = folder / RUN_FILE
    writer = RunWriter(file)
    try:
        with writer:
            _write(writer, lines, folder.name, command)
    except BaseException:
        file.unlink()
        raise
    for run in lanes:
        shutil.rmtree(run.path.parent)


def _write(
    writer: RunWriter, lines: Sequence[list[dict[str, Any]]], run_id: str, command: list[str]
) -> None:
    headers = [_body(lane[0]) for lane in lines]
    lane = headers[0]["selection"]["lane"] if len(headers) == 1 else "all"
    complete = all(header["selection"]["complete"] for header in headers)
    writer.header(
        {
            **headers[0],
            "run_id": run_id,
            "command": command,
            "selection": {**headers[0]["selection"], "lane": lane, "complete": complete},
            "planned": sum(header["planned"] for header in headers),
        }
    )
    for contract in (line for line in lines[0] if line["type"] == "contract"):
        writer.contract(_body(contract))
    for line in (line for lane_lines in lines for line in lane_lines):
        if line["type"] == "environment":
            writer.environment({k: v for k, v in _body(line).items() if k != "id"})
        elif line["type"] == "row":
            writer.row(_body(line))
    writer.footer(any(line["interrupted"] for lane_lines in lines for line in lane_lines[-1:]))


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _body(line: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in line.items() if k not in ("type", "seq", "prev")}
