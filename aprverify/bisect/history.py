"""What git knows: commits, their parents, the trainer's tree in each. Nothing of the user's moves.

The working tree, the index and the checked-out branch are only read. A commit's files are written
out through an index of their own, so that no work tree need be registered or cleaned up.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_OWN = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_OBJECT_DIRECTORY")


class HistoryError(Exception):
    """Git cannot answer: no repository, no such commit, or objects that are not here."""


@dataclass(frozen=True)
class Commit:
    """What a person wants to know of a commit. `date` is ISO 8601."""

    sha: str
    author: str
    date: str
    subject: str


@dataclass(frozen=True)
class Place:
    """Where the packages that move stand: `folders` are tried in this order."""

    packages: tuple[str, ...]
    folders: tuple[str, ...]


class Repository:
    """The repository that holds a folder.

    Raises:
        HistoryError: git knows none there.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.root = Path(self.git("rev-parse", "--show-toplevel")).resolve()
        self._folder = self.root

    def git(self, *arguments: str, given: str = "", index: Path | None = None) -> str:
        """The output of a git command.

        Raises:
            HistoryError: it failed; with what it said.
        """
        environment = {k: v for k, v in os.environ.items() if k not in _OWN}
        environment |= {"LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0"}
        environment |= {"GIT_INDEX_FILE": str(index)} if index else {}
        try:
            done = subprocess.run(
                ["git", "-C", str(self._folder), *arguments], env=environment, input=given,
                capture_output=True, text=True, check=False, errors="replace",
            )  # fmt: skip
        except OSError as error:
            raise HistoryError(f"git cannot be run: {error}") from None
        if done.returncode != 0:
            said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
            raise HistoryError(f"git {arguments[0]}: {said[-1]}")
        return done.stdout.rstrip("\n")

    def resolve(self, name: str) -> str:
        """The full id of a commit.

        Raises:
            HistoryError: there is none of that name here.
        """
        try:
            return self.git(
                "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}"
            )
        except HistoryError:
            hint = "; this clone is shallow: git fetch --unshallow" if self.shallow else ""
            raise HistoryError(f"no commit {name} in {self.root}{hint}") from None

    @property
    def shallow(self) -> bool:
        """Whether a part of the history was not cloned."""
        return self.git("rev-parse", "--is-shallow-repository") == "true"

    def cut_off(self) -> frozenset[str]:
        """The commits of a shallow clone whose parents are not here."""
        path = self.root / self.git("rev-parse", "--git-path", "shallow")
        return frozenset(path.read_text().split()) if path.is_file() else frozenset()

    def merge_bases(self, one: str, other: str) -> list[str]:
        """The best common ancestors; none where the histories have nothing in common."""
        try:
            return self.git("merge-base", "--all", one, other).split()
        except HistoryError:
            return []

    def between(self, good: str, bad: str, *flags: str) -> dict[str, tuple[str, ...]]:
        """Parents of every commit that `bad` has and `good` has not, parents first."""
        lines = self.git(
            "rev-list", "--topo-order", "--reverse", "--parents", *flags, bad, f"^{good}"
        )
        found = [line.split() for line in lines.splitlines()]
        return {commit: tuple(parents) for commit, *parents in found}

    def describe(self, commit: str) -> Commit:
        """Author, date and subject line."""
        text = self.git(
            "show", "--no-patch", "--no-show-signature", "--format=%H%n%an <%ae>%n%aI%n%s", commit
        )
        sha, author, date, *subject = text.split("\n")
        return Commit(sha, author, date, " ".join(subject))

    def parents(self, commit: str) -> tuple[str, ...]:
        """All parents, in order."""
        return tuple(self.git("rev-list", "--parents", "-n", "1", commit).split()[1:])

    def trees(
        self, commits: Iterable[str], place: Place
    ) -> dict[str, Mapping[str, tuple[str, str]]]:
        """For each commit, package → (path, tree id) of the packages that it has."""
        asked = [
            (commit, package, f"{folder}{package}")
            for commit in commits
            for package in place.packages
            for folder in place.folders
        ]
        lines = "".join(f"{commit}:{path}\n" for commit, _, path in asked)
        answers = self.git("cat-file", "--batch-check", given=lines).splitlines()
        found: dict[str, dict[str, tuple[str, str]]] = {commit: {} for commit, _, _ in asked}
        for (commit, package, path), answer in zip(asked, answers, strict=True):
            oid, _, rest = answer.partition(" ")
            if rest.startswith("tree ") and package not in found[commit]:
                found[commit][package] = (path, oid)
        return dict(found)

    def export(self, tree: str, folder: Path) -> None:
        """Write the files of a tree into a folder, as a checkout would.

        Raises:
            HistoryError: some of its objects are not here.
        """
        folder.mkdir(parents=True)
        with tempfile.TemporaryDirectory() as scratch:
            index = Path(scratch) / "index"
            self.git("read-tree", tree, index=index)
            self.git("checkout-index", "--all", f"--prefix={folder}/", index=index)


def place_of(packages: Sequence[str], suite_root: Path, repository: Repository) -> Place:
    """Where a repository keeps the packages: beside its suite, at its root, or below ``src/``."""
    folders = ["", "src/"]
    if suite_root.resolve().is_relative_to(repository.root):
        beside = suite_root.resolve().relative_to(repository.root).as_posix()
        folders.insert(0, "" if beside == "." else f"{beside}/")
    return Place(tuple(packages), tuple(dict.fromkeys(folders)))
