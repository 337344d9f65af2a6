"""Plants every defect under the checks that others rely on, and says side by side who sees it.

    python -m benchmarks.compared run --out benchmarks/results/compared-DATE [--only ID …]
    python -m benchmarks.compared report DIR [--page docs/compared.md]

DIR receives ``compared.json`` and ``compared.md``. Expect half an hour on two cores. A defect under
one check may take ten minutes and 6 GiB with all that it starts; it is then ended, counted as
*exceeded*, and the next check is tried.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aprverify.environment import describe_commit, describe_environment
from aprverify.planting import load_defects
from benchmarks.compared.bands import LEVEL, Bands
from benchmarks.compared.committed import newest_cpu_evidence
from benchmarks.compared.limits import Limits
from benchmarks.compared.report import page, table
from benchmarks.compared.workers import Line, Work, work_through
from falsifiers.suite import SUITE

CALIBRATION = range(1000, 1016)
"""Seeds of the clean runs that the bands come from."""
FURTHER = range(2000, 2024)
"""Seeds of clean runs on which observers' false alarms are counted."""
CLEAN = range(1, 9)
"""Beginnings of random numbers from which every test is run without a defect."""
PLANTED = range(1, 5)
"""Seeds of runs under a defect: the first whose clean run raises no alarm."""
_RUNS = Path(SUITE.evidence_dir) / "runs"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, or report on what was run."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.compared", description=__doc__.splitlines()[0]
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    run_parser = commands.add_parser("run", help="plant, check, and write the results")
    run_parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    run_parser.add_argument("--only", nargs="+", metavar="ID", help="these defects only")
    run_parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, metavar="N")
    run_parser.add_argument(
        "--budget",
        type=float,
        default=math.inf,
        metavar="S",
        help="begin no defect after S seconds",
    )
    report_parser = commands.add_parser("report", help="write Markdown from results")
    report_parser.add_argument("results", type=Path, metavar="DIR")
    report_parser.add_argument("--page", type=Path, metavar="FILE", help="the summary too")
    options = parser.parse_args(arguments)
    if options.command == "run":
        defects = options.only or list(load_defects(SUITE))
        unknown = sorted(set(defects) - set(load_defects(SUITE)))
        if unknown:
            parser.error(f"no such defect: {', '.join(unknown)}")
        options.out.mkdir(parents=True, exist_ok=True)
        results = compare(defects, options.workers, options.budget)
        (options.out / "compared.json").write_text(json.dumps(results, indent=1) + "\n")
        write_reports(options.out, None)
    else:
        write_reports(options.results, options.page)
    return 0


def write_reports(folder: Path, summary: Path | None) -> None:
    """The Markdown that follows from ``compared.json`` in `folder`."""
    results = json.loads((folder / "compared.json").read_text())
    (folder / "compared.md").write_text(table(results))
    if summary is not None:
        summary.write_text(page(results, folder))


def compare(defects: Sequence[str], workers: int, budget: float) -> dict[str, Any]:
    """Everything that ``compared.json`` holds.

    Defects are tried in an order drawn at random: those tried in time are a sample of them all.
    """
    known = load_defects(SUITE)
    begun, wall = datetime.now(UTC), time.perf_counter()
    commit, dirty = describe_commit(SUITE.root)
    evidence = newest_cpu_evidence(_RUNS)
    observer = _observer(workers)
    drawn = random.Random(0).sample(sorted(defects), len(defects))
    until = time.time() + budget
    planted = work_through(Work("defect", observer, until), drawn, workers, _say)
    planted.sort(key=lambda line: (known[line["item"]].path.stem, line["item"]))
    clean = work_through(Work("clean", observer), [str(s) for s in CLEAN], workers, _say)
    further = work_through(Work("watch", {}), [str(s) for s in FURTHER], workers, _say)
    return {
        "schema": "compared/1",
        "provenance": {
            "started": begun.isoformat(timespec="seconds"),
            "wall_seconds": round(time.perf_counter() - wall),
            "workers": workers,
            "commit": commit,
            "dirty": dirty,
            "environment": describe_environment(),
            "seeds": {
                "calibration": [CALIBRATION.start, CALIBRATION.stop - 1],
                "further": [FURTHER.start, FURTHER.stop - 1],
                "clean": [CLEAN.start, CLEAN.stop - 1],
                "planted": observer["seed"],
            },
            "level": LEVEL,
            "limits": asdict(Limits()),
            "evidence": {
                name: value for name, value in asdict(evidence).items() if name != "verdicts"
            },
        },
        "observer": observer,
        "untried": sorted(set(defects) - {line["item"] for line in planted}),
        "defects": [
            {
                "id": line["item"],
                "family": known[line["item"]].path.stem,
                "kind": known[line["item"]].kind,
                "symptom": known[line["item"]].symptom,
                "ours": asdict(evidence.of(line["item"])),
                **{name: value for name, value in line.items() if name != "item"},
            }
            for line in planted
        ],
        "clean": clean,
        "further": _alarms(observer, further),
    }


def _observer(workers: int) -> dict[str, Any]:
    seeds = [str(seed) for seed in (*CALIBRATION, *PLANTED)]
    runs = work_through(Work("watch", {}), seeds, workers, _say)
    calibration, candidates = runs[: len(CALIBRATION)], runs[len(CALIBRATION) :]
    endings = runs[0]["endings"]
    limits = {}
    for kind in ("losses", "norms"):
        bands = Bands.of([run[kind] for run in calibration], endings)
        limits[kind] = {name: list(pair) for name, pair in bands.limits.items()}
    quiet = [
        int(run["item"])
        for run in candidates
        if not any(_outside(limits[kind], run[kind]) for kind in limits)
    ]
    return {"seed": quiet[0], "endings": endings, **limits}


def _alarms(observer: dict[str, Any], runs: Sequence[Line]) -> dict[str, list[str]]:
    """What further clean runs were found out of, by observer: false alarms, "" for none."""
    return {
        name: [_outside(observer[kind], run[kind]) for run in runs]
        for name, kind in (("loss", "losses"), ("norm", "norms"))
    }


def _outside(limits: dict[str, list[float]], numbers: dict[str, float]) -> str:
    out = [n for n, (low, high) in limits.items() if not low <= numbers[n] <= high]
    return ", ".join(out)


def _say(line: Line) -> None:
    found = line.get("findings", {})
    words = " ".join(f"{name}={f['outcome']}" for name, f in found.items())
    print(f"{line['item']:45} {words} {line.get('broken', '')}".rstrip(), file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
