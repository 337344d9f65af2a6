"""Verdicts that need not be sought again: those of this bisection, its log, and other bisections.

A verdict belongs to the trainer's files, whatever commit they are found in, and holds for one
suite, one subject and one environment only. The log keeps everything that was seen, so
that a stopped bisection goes on from it; the cache keeps what follows from the files alone.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from aprverify.assets import cache_dir
from aprverify.bisect.frozen import identity
from aprverify.bisect.outcomes import Seen, seen_from


class LogRefused(Exception):
    """A log that cannot be gone on from; with the reason."""


class Memory:
    """What is known of trainers, by label and entry. `judge` tells suites and machines apart."""

    def __init__(self, judge: str) -> None:
        self._judge = judge
        self._known: dict[str, dict[str, Seen]] = {}

    def of(self, label: str) -> dict[str, Seen]:
        """What is known of the trainer with this label, by entry key."""
        if label not in self._known:
            self._known[label] = self._cached(label)
        return self._known[label]

    def add(self, label: str, seen: Mapping[str, Seen]) -> None:
        """Take new verdicts in, and leave the settled ones in the cache."""
        known = self.of(label)
        known.update(seen)
        settled = {key: one.to_json() for key, one in known.items() if one.settled}
        with suppress(OSError):  # a cache that cannot be written costs time only
            path = self._path(label)
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
                json.dump(settled, file)
            os.replace(file.name, path)

    def restore(self, label: str, seen: Mapping[str, Seen]) -> None:
        """Take in what a log says."""
        self.of(label).update(seen)

    def _path(self, label: str) -> Path:
        return cache_dir() / "bisect" / f"{identity(self._judge, label)}.json"

    def _cached(self, label: str) -> dict[str, Seen]:
        try:
            body = json.loads(self._path(label).read_text("utf-8"))
            return {key: seen_from(one) for key, one in body.items()}
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return {}  # nothing there, or not ours


class Log:
    """What was asked and what was seen, a JSON object a line, written as soon as it is known."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def begin(self, question: Mapping[str, Any]) -> None:
        """Start anew."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps({"bisect": question}) + "\n")

    def append(self, commit: str, label: str, seen: Mapping[str, Seen]) -> None:
        """Note what was seen of a commit."""
        body = {key: one.to_json() for key, one in seen.items()}
        with self.path.open("a") as file:
            file.write(json.dumps({"commit": commit, "label": label, "seen": body}) + "\n")

    def read(self) -> tuple[dict[str, Any], list[tuple[str, dict[str, Seen]]]]:
        """The question, and (label, seen) in order. A last line that was cut off is left out.

        Raises:
            LogRefused: there is no log, or it is none.
        """
        try:
            text = self.path.read_text()
            first, *lines = text.split("\n")[:-1]
            question = json.loads(first)["bisect"]
            bodies = [json.loads(line) for line in lines]
            found = [
                (body["label"], {key: seen_from(one) for key, one in body["seen"].items()})
                for body in bodies
            ]
        except OSError as error:
            raise LogRefused(f"{self.path}: {error.strerror}; nothing to resume") from None
        except (ValueError, KeyError, TypeError, AttributeError):
            raise LogRefused(f"{self.path}: no log of a bisection; begin anew") from None
        if not text.endswith("\n"):  # the rest of a line must not be continued by the next
            self.path.write_text(text[: text.rfind("\n") + 1])
        return dict(question), found
