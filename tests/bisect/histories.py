"""Constructed histories: commits of a toy trainer, told apart by what they hold."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

_PERSON = {
    "GIT_AUTHOR_NAME": "Ada", "GIT_AUTHOR_EMAIL": "ada@example.org",
    "GIT_COMMITTER_NAME": "Ada", "GIT_COMMITTER_EMAIL": "ada@example.org",
    "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null",
}  # fmt: skip


class History:
    """A repository in a folder, written commit by commit."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)
        self.git("init", "--quiet", "--initial-branch=main")
        self._clock = 1_700_000_000

    def git(self, *arguments: str) -> str:
        """The output of a git command."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
        done = subprocess.run(
            ["git", *arguments], cwd=self.root, env={**environment, **_PERSON, **self._dates()},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    def _dates(self) -> Mapping[str, str]:
        now = f"{getattr(self, '_clock', 1_700_000_000)} +0000"
        return {"GIT_AUTHOR_DATE": now, "GIT_COMMITTER_DATE": now}

    def write(self, files: Mapping[str, str]) -> None:
        """Write files by path; the trainer's are never the same twice."""
        for name, text in files.items():
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def commit(self, subject: str, files: Mapping[str, str] | None = None) -> str:
        """Commit everything in the working tree; the commit's id."""
        self.write(files or {})
        self._clock += 60
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "-m", subject)
        return self.git("rev-parse", "HEAD")

    def state(self, subject: str, **verdicts: str) -> str:
        """A commit of a trainer that says itself how each entry ends, and differs from others."""
        lines = "".join(f"{entry} {verdict}\n" for entry, verdict in sorted(verdicts.items()))
        return self.commit(subject, {"toytrainer/verdicts": lines + f"# {subject}\n"})

    def branch(self, name: str, at: str) -> None:
        """Go on at a commit, on a new branch."""
        self.git("checkout", "--quiet", "-b", name, at)

    def merge(self, subject: str, *others: str, **verdicts: str) -> str:
        """Merge into the current branch, with these contents; the commit's id."""
        self._clock += 60
        self.git("merge", "--quiet", "--no-commit", "--no-ff", "-s", "ours", *others)
        lines = "".join(f"{entry} {verdict}\n" for entry, verdict in sorted(verdicts.items()))
        return self.commit(subject, {"toytrainer/verdicts": lines + f"# {subject}\n"})
