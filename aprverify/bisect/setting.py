"""What `bisect` and `probe` have in common: options, entries by id, and what is held still."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from aprverify.bisect.frozen import Frozen, freeze, identity, moved_packages
from aprverify.bisect.history import Place, Repository, place_of
from aprverify.bisect.trial import Trials
from aprverify.contract.lint import load_suite
from aprverify.environment import describe_environment
from aprverify.plan import Entry, make_plan
from aprverify.suite import Suite, SuiteError


@dataclass(frozen=True)
class Setting:
    """Everything but the commits.

    Attributes:
        repository: the one that holds the trainer's history.
        place: where in it the trainer stands.
        entries: what was asked for, by id.
        machine: a digest of the environment.
    """

    repository: Repository
    place: Place
    trials: Trials
    entries: Mapping[str, tuple[Entry, ...]]
    machine: str

    @property
    def judge(self) -> str:
        """One digest of all that a verdict rests on besides the trainer's files."""
        trials = self.trials
        return identity(trials.frozen.digest, self.machine, trials.subject, sorted(trials.assets))


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options that both commands have."""
    parser.add_argument("--device", choices=["cpu", "cuda"], help="only the cases of this device")
    parser.add_argument(
        "--subject", default="", help="trainer under test: a short name or MODULE:ATTRIBUTE"
    )
    parser.add_argument(
        "--moves",
        action="append",
        default=[],
        metavar="PACKAGE",
        help="the package to take from each commit (default: the suite's own trainer)",
    )
    parser.add_argument(
        "--asset", action="append", default=[], metavar="NAME=FILE", help="use this file"
    )


def prepare(
    suite: Suite, ids: Sequence[str], options: Mapping[str, object], scratch: Path
) -> Setting:
    """Read the contracts, find the ids, and take the copy that judges.

    Raises:
        SuiteError: problems in the contracts, an unknown id, or an option that does not fit.
        HistoryError: the working folder is in no repository.
    """
    repository = Repository(Path.cwd())
    entries = _entries(suite, ids, options["device"])
    subject = str(options["subject"] or suite.default_subject)
    moved = tuple(map(str, options["moves"])) or moved_packages(suite)  # type: ignore[call-overload]
    target = suite.subject(subject)
    if not moved:
        raise SuiteError(f"the suite {suite.name} has no trainer of its own: name one with --moves")
    bundled = moved == moved_packages(suite)
    if bundled and target != suite.subjects[suite.default_subject]:
        raise SuiteError(f"--subject {subject}: name the package of that trainer with --moves")
    assets = tuple(_absolute(str(text)) for text in options["asset"])  # type: ignore[attr-defined]
    every = [entry for group in entries.values() for entry in group]
    frozen: Frozen = freeze(suite, moved, every, scratch / "suite")
    return Setting(
        repository,
        place_of(moved, suite.root, repository),
        Trials(frozen, subject, assets),
        entries,
        identity(describe_environment()),
    )


def _absolute(asset: str) -> str:
    name, separator, path = asset.partition("=")
    if not separator or not Path(path).is_file():
        raise SuiteError(f"--asset {asset}: give NAME=FILE, and the file must exist")
    return f"{name}={Path(path).resolve()}"


def _entries(suite: Suite, ids: Sequence[str], device: object) -> dict[str, tuple[Entry, ...]]:
    loaded = load_suite(suite)
    if loaded.problems:
        raise SuiteError(f"{loaded.problems[0]} ({len(loaded.problems)} problems; aprverify lint)")
    plan = make_plan(loaded.contracts, teeth="none")
    found = {}
    for name in dict.fromkeys(ids):
        named = tuple(entry for entry in plan if name in (*entry.ids, entry.key))
        if not named:
            known = {i for entry in plan for i in (*entry.ids, entry.key)}
            close = get_close_matches(name, sorted(known), 3)
            hint = f"; did you mean {' or '.join(close)}?" if close else ""
            raise SuiteError(f"no contract declares {name}{hint}")
        found[name] = tuple(e for e in named if device in (None, e.device))
        if not found[name]:
            raise SuiteError(f"{name} has no case on {device}")
    return found
