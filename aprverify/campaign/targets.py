"""What a campaign evaluates: the cases of seeded tests, each without its seed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any

from aprverify.contract.model import Case, FalsificationTest, case_id, spell
from aprverify.plan import Entry


class NothingSelected(Exception):
    """A word that fits nothing; the message says which, and what is like it."""


@dataclass(frozen=True)
class Target:
    """A case of a seeded test, whatever its seed. `case_id` leaves the seed out."""

    entry: Entry
    case_id: str

    @property
    def test(self) -> FalsificationTest:
        """The test."""
        return self.entry.test

    @property
    def key(self) -> str:
        """``TEST[CASE without its seed]``."""
        return f"{self.test.id}[{self.case_id}]"

    def with_seed(self, seed: int) -> Entry:
        """The entry under another seed."""
        parameters = {**self.entry.case.parameters, "seed": seed}
        case = SeedWatchingCase(
            case_id(parameters), self.entry.case.scale, parameters, self.entry.case.requires
        )
        return Entry(self.entry.contract, self.test, case)


class SeedWatchingCase(Case):
    """A case that notes whether its seed was asked for: one that nobody reads varies nothing."""

    def __getattr__(self, name: str) -> Any:
        if name == "seed":
            self.__dict__["seed_was_read"] = True
        return super().__getattr__(name)

    @property
    def was_read(self) -> bool:
        """Whether the seed was asked for."""
        return "seed_was_read" in self.__dict__


def targets_of(entries: Iterable[Entry], device: str, words: Sequence[str]) -> list[Target]:
    """The targets on a device, one for all seeds of a case, in the order of the contracts.

    Each of `words` is an id or a glob of one, of which an entry must fit one, or ``key:value`` of a
    case, of which it must fit all.

    Raises:
        NothingSelected: a word that fits no seeded entry of the device.
    """
    seeded = [e for e in entries if "seed" in e.case.parameters and e.device == device]
    for word in words:
        if not any(_fits(entry, word) for entry in seeded):
            raise NothingSelected(_nothing(word, seeded, device))
    found: dict[str, Target] = {}
    for entry in seeded:
        if _selected(entry, words):
            target = Target(entry, without_seed(entry.case.parameters))
            found.setdefault(target.key, target)
    return list(found.values())


def without_seed(parameters: Mapping[str, Any]) -> str:
    """The id of a case that has every parameter but the seed."""
    return case_id({name: value for name, value in parameters.items() if name != "seed"})


def _selected(entry: Entry, words: Sequence[str]) -> bool:
    names = [word for word in words if ":" not in word]
    pairs = [word for word in words if ":" in word]
    named = not names or any(_fits(entry, word) for word in names)
    return named and all(_fits(entry, word) for word in pairs)


def _fits(entry: Entry, word: str) -> bool:
    if ":" in word:
        parameters = {**entry.case.parameters, "scale": entry.case.scale}
        return word in {f"{name}:{spell(value)}" for name, value in parameters.items()}
    return any(fnmatchcase(name, word) for name in entry.ids)


def _nothing(word: str, seeded: Sequence[Entry], device: str) -> str:
    close = get_close_matches(word, sorted({name for e in seeded for name in e.ids}), 3)
    hint = f"; did you mean {' or '.join(close)}?" if close else "; see `aprverify list`"
    return f"{word} fits no test with a seed on {device}{hint}"
