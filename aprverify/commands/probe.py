"""``aprverify probe ID``: judge one trainer, for people who drive ``git bisect`` themselves.

    git bisect run aprverify probe ID

Where git moves the very checkout that the suite is installed from, the suite of the commit at which
the bisection was started judges, in a copy of its own.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from aprverify.bisect.frozen import copy_package, identity
from aprverify.bisect.history import HistoryError, Place, Repository
from aprverify.bisect.memory import Memory
from aprverify.bisect.outcomes import BAD, GOOD, SKIP, Seen, judge_alone
from aprverify.bisect.setting import Setting, add_options, prepare
from aprverify.bisect.trial import CannotPlace, Placing, placing
from aprverify.evidence.terminal import one_line
from aprverify.plan import Entry
from aprverify.source_id import digest_files
from aprverify.suite import Suite

_STATUS = {GOOD: 0, BAD: 1, SKIP: 125}
_USAGE, _FAILED = 129, 128
"""`git bisect run` stops at these, and blames nobody."""
_COPIED = "APRVERIFY_PROBE_COPIED"
_EXIT_CODES = """\
exit codes, as git bisect run has them: 0 good; 1 bad, a claim is falsified; 125 cannot be tested;
128 and above stop the bisection: 128 failed, 129 usage, 130 stopped"""


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "probe",
        help="judge the trainer that is checked out, or that of a commit, for git bisect run",
        description="Judge the trainer that is checked out here, by today's suite.",
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "ids", nargs="+", metavar="ID", help="contract, gate, invariant, test, case"
    )
    parser.add_argument("--at", metavar="COMMIT", help="the trainer of this commit instead")
    add_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print what was seen of each entry; 0, 1 or 125."""
    try:
        with TemporaryDirectory(prefix="aprverify-probe-") as scratch:
            return _run(args, Path(scratch).resolve())
    except HistoryError as error:
        print(f"aprverify: {error}", file=sys.stderr)
        return _USAGE


def is_asked_for(words: Sequence[str]) -> bool:
    """Whether a command line, without the program's name, is one of this command."""
    rest = list(words)
    while rest and rest[0].startswith("--suite"):
        rest = rest[1 if "=" in rest[0] else 2 :]
    return rest[:1] == ["probe"]


def for_git(main: Callable[[], int]) -> int:
    """Run the command line with exit statuses that `git bisect run` cannot mistake for verdicts."""
    try:
        status = main()
    except SystemExit as left:
        status = 0 if left.code in (0, None) else _USAGE
    if status in (*_STATUS.values(), _USAGE) or status > 128:
        return status
    return _USAGE if status == 2 else _FAILED


def _run(args: argparse.Namespace, scratch: Path) -> int:
    suite: Suite = args.suite
    repository = Repository(Path.cwd())
    unmoved = _unchecked_out(repository)
    at = args.at or unmoved
    if unmoved is None and (start := _start_of_bisection(suite, repository)):
        return _probe_from(repository, start, scratch)
    setting = prepare(suite, args.ids, vars(args), scratch)
    label, place = _commit(setting, at) if at else _working_tree(setting)
    memory = Memory(setting.judge)
    entries = {e.key: e for group in setting.entries.values() for e in group}
    missing = [e for key, e in entries.items() if key not in memory.of(label)]
    if missing:
        memory.add(label, setting.trials.judge(place, missing))
    seen = {key: memory.of(label)[key] for key in entries}
    for key, one in seen.items():
        _show(entries[key], one)
    verdict = judge_alone(seen.values())
    print(f"aprverify: {verdict}")
    return _STATUS[verdict]


def _show(entry: Entry, seen: Seen) -> None:
    print(f"{seen.outcome:<12} {entry.key}")
    lines = seen.comparisons if seen.verdict != SKIP else (seen.why,)
    print(*(f"             {one_line(line)}" for line in lines), sep="\n")
    if seen.verdict == BAD:
        print(f"             {one_line(entry.test.if_fails)}")


def _commit(setting: Setting, name: str) -> tuple[str, Placing]:
    repository, commit = setting.repository, setting.repository.resolve(name)
    trees = repository.trees([commit], setting.place)[commit]
    label = identity({package: oid for package, (_, oid) in trees.items()})
    return label, placing(repository, trees, setting.place.packages)


def _working_tree(setting: Setting) -> tuple[str, Placing]:
    """The trainer as it stands in the working tree, whatever of it is committed."""
    found = {
        name: _folder(setting.repository.root, setting.place, name)
        for name in setting.place.packages
    }
    files = frozenset(
        (path.relative_to(folder.parent).as_posix(), path)
        for folder in found.values()
        if folder is not None
        for path in folder.rglob("*")
        if path.is_file() and path.parent.name != "__pycache__"
    )

    def place(target: Path) -> None:
        for package, folder in found.items():
            if folder is None:
                raise CannotPlace(f"there is no {package}/ here")
            copy_package(folder, target / package)

    return f"files {digest_files(files)}", place


def _folder(root: Path, place: Place, package: str) -> Path | None:
    folders = (root / folder / package for folder in place.folders)
    return next((folder for folder in folders if folder.is_dir()), None)


def _unchecked_out(repository: Repository) -> str | None:
    """The commit that ``git bisect start --no-checkout`` asks about."""
    try:
        return repository.resolve("BISECT_HEAD")
    except HistoryError:
        return None


def _start_of_bisection(suite: Suite, repository: Repository) -> str | None:
    """Where a bisection was started that moves the suite's own files about."""
    note = repository.root / repository.git("rev-parse", "--git-path", "BISECT_START")
    if _COPIED in os.environ:
        return None
    if not note.is_file() or not suite.root.resolve().is_relative_to(repository.root):
        return None
    return repository.resolve(note.read_text().strip())


def _probe_from(repository: Repository, start: str, scratch: Path) -> int:
    folder = scratch / "started-at"
    repository.export(start, folder)
    path = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path), _COPIED: "1"}
    command = [sys.executable, "-P", "-m", "aprverify", *sys.argv[1:]]
    print(f"aprverify: judged by the suite of {start[:10]}, where the bisection was started")
    sys.stdout.flush()
    return subprocess.run(command, env=environment, check=False).returncode
