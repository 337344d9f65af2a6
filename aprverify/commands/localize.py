"""``aprverify localize ID``: the first operator, or the first quantity of a step, at fault."""

from __future__ import annotations

import argparse
import importlib
import json
import math
import sys
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from aprverify.assets import AssetStore
from aprverify.contract.lint import Loaded, load_suite
from aprverify.evidence import verdict
from aprverify.evidence.terminal import printable
from aprverify.gpus import visible_gpus
from aprverify.localizing.watch import Localized, choose, localize, session_of
from aprverify.plan import Entry, make_plan
from aprverify.planting import PROTOCOL, Defect, load_defects
from aprverify.suite import Suite
from aprverify.views.pictures.localized import render_localized

_USAGE = 2
_EXIT_CODES = """\
exit codes: 0 nothing left its bound; 1 something did, and it is named; 2 usage; 4 the falsifier
broke, or did not run, and nothing was seen"""
_SHOWN = 8


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "localize",
        help="name the first operator, or the first quantity of a step, at fault",
        description="Run a claim's falsifier once, watched operator by operator, and name what "
        "leaves its rounding bound first and what kind of fault it looks like.",
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("id", metavar="ID", nargs="?", help="contract, gate, invariant or test")
    parser.add_argument(
        "--case", default="", metavar="CASE", help="a case's id, or NAME=VALUE,… (default: first)"
    )
    parser.add_argument("--defect", default="", metavar="NAME", help="plant this defect first")
    parser.add_argument(
        "--subject", default="", help="trainer under test: a short name or MODULE:ATTRIBUTE"
    )
    parser.add_argument(
        "--device", choices=["cpu", "cuda"], help="of the case (default: cuda where there is one)"
    )
    parser.add_argument(
        "--asset", action="append", default=[], metavar="NAME=FILE", help="use this file"
    )
    parser.add_argument(
        "--runs", nargs=2, type=Path, metavar="DIR", help="instead: where two runs part"
    )
    parser.add_argument("--svg", type=Path, metavar="FILE", help="write error ÷ bound by depth")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--accuracy",
        type=Path,
        metavar="FILE",
        help="instead: plant every defect of known place and write how often it is named",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Localize, and say what was found."""
    if args.runs:
        return _compare(args)
    suite: Suite = args.suite
    loaded = load_suite(suite)
    if loaded.problems:
        print(*loaded.problems, sep="\n", file=sys.stderr)
        return _USAGE
    if args.accuracy:
        from aprverify.localizing.accuracy import write_accuracy

        return write_accuracy(suite, loaded, _assets(suite, args), args.accuracy)
    if not args.id:
        return _usage("name an ID, or --runs DIR DIR, or --accuracy FILE")
    plan = make_plan(loaded.contracts, teeth="none")
    known = sorted({identity for entry in plan for identity in entry.ids})
    if args.id not in known:
        close = get_close_matches(args.id, known, 3)
        hint = f"; did you mean {' or '.join(close)}?" if close else ""
        return _usage(f"no contract declares {args.id}{hint}")
    device = args.device or ("cuda" if visible_gpus() else "cpu")
    under_id = [entry for entry in plan if args.id in entry.ids]
    entries = choose(under_id, args.case, device)
    if not entries:
        have = "\n  ".join(entry.case.id for entry in under_id)
        which = f"matches {args.case}" if args.case else f"is on {device}"
        return _usage(f"no case of {args.id} {which}; there are:\n  {have}")
    defect = _defect(suite, args)
    if isinstance(defect, str):
        return _usage(defect)
    return _report([_localized(args, loaded, entry, defect) for entry in entries], args)


def _usage(message: str) -> int:
    print(f"aprverify: {message}", file=sys.stderr)
    return _USAGE


def _defect(suite: Suite, args: argparse.Namespace) -> Defect | str | None:
    """The defect to plant, None for none, or what is wrong with the name."""
    if not args.defect:
        return None
    defects = load_defects(suite)
    if args.defect not in defects:
        close = get_close_matches(args.defect, defects, 3)
        return f"no defect is called {args.defect}" + (f"; {' or '.join(close)}?" if close else "")
    bundled = suite.subjects[suite.default_subject]
    if defects[args.defect].kind != PROTOCOL and _target(suite, args) != bundled:
        return f"{args.defect} patches the bundled trainer's source, not --subject {args.subject}"
    return defects[args.defect]


def _target(suite: Suite, args: argparse.Namespace) -> str:
    return suite.subject(args.subject or suite.default_subject)


def _assets(suite: Suite, args: argparse.Namespace) -> AssetStore:
    overrides = (text.partition("=") for text in args.asset)
    return AssetStore(
        suite.assets_file, {name: Path(path).resolve() for name, _, path in overrides}
    )


def _localized(
    args: argparse.Namespace, loaded: Loaded, entry: Entry, defect: Defect | None
) -> Localized:
    suite: Suite = args.suite
    module, _, attribute = _target(suite, args).partition(":")
    subject = getattr(importlib.import_module(module), attribute)()
    planted = replace(entry, defect=defect.id) if defect else entry
    return localize(suite, loaded, planted, subject, defect, _assets(suite, args))


def _report(found: list[Localized], args: argparse.Namespace) -> int:
    if args.json:
        print(json.dumps([plain(one) for one in found], indent=2, ensure_ascii=False))
    else:
        print(printable("\n".join(_text(one) for one in found)))
    if args.svg:
        args.svg.write_text(render_localized(found), encoding="utf-8")
        print(f"picture: {args.svg}", file=sys.stderr)
    if any(one.findings for one in found):
        return verdict.FALSIFIED
    settled = ("held", "falsified", "caught", "survived")
    return verdict.OK if all(one.outcome in settled for one in found) else verdict.BROKEN


def plain(one: Localized) -> dict[str, Any]:
    """As JSON has it; an infinite error is null."""
    return {
        "key": one.entry.key,
        "outcome": one.outcome,
        "detail": one.detail,
        "in_force": one.in_force,
        "findings": [
            {**f, "times_bound": f["times_bound"] if math.isfinite(f["times_bound"]) else None}
            for f in one.findings
        ],
        "by_depth": {
            phase: [[depth, error if math.isfinite(error) else None] for depth, error in points]
            for phase, points in one.by_depth.items()
        },
        "notes": one.notes,
    }


def _text(one: Localized) -> str:
    lines = [f"{one.entry.key}: {one.outcome}"]
    lines += [f"  {line}" for line in one.detail.splitlines()]
    if not one.in_force:
        lines.append("  the planted defect changed nothing here")
    if one.findings:
        first, *others = one.findings
        lines.append(f"  first, {first['phase']} in {first['seen_in']}:")
        lines.append(f"    {first['sentence']}")
        lines += [f"  then: {f['sentence']}" for f in others[:_SHOWN]]
        if len(others) > _SHOWN:
            lines.append(f"  and {len(others) - _SHOWN} more")
    elif one.by_depth:
        lines.append("  no operator left its bound on the inputs it was given")
    else:
        lines.append(
            "  nothing was traced: the falsifier asked the subject for nothing that can be"
        )
    lines += [f"  note: {note}" for note in one.notes]
    return "\n".join(lines)


def _compare(args: argparse.Namespace) -> int:
    for folder in args.runs:
        if not (folder / "train.jsonl").is_file():
            return _usage(f"{folder} is no run directory: it has no train.jsonl")
    found = session_of(args.suite).compare(*map(str, args.runs))["findings"]
    if args.json:
        print(json.dumps([{**f, "times_bound": None} for f in found], indent=2))
    elif found:
        first, *others = (f"{f['where']}: {f['fault']} ({f['tensor']})" for f in found)
        print(printable("\n".join([f"first: {first}", *(f"then: {other}" for other in others)])))
    else:
        print("the runs agree: settings, every logged step, every tensor of every checkpoint")
    return verdict.FALSIFIED if found else verdict.OK
