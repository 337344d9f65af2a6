"""Narrows down which commit was the first bad one. Knows no git: commits are names with parents.

Every suspect is a bit of one integer, so that "ancestors of this one" is an `&` of two numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import ceil, log2

from aprverify.bisect.outcomes import BAD, GOOD


class Search:
    """The suspects of one claim: commits that are bad or may be, and not yet shown to be good.

    Args:
        parents: parents of each commit in question, parents before children; others in it are good.
        bad: the last of them, known to be bad.
        same: a label for each commit; those with the same label have the same files.
    """

    def __init__(
        self, parents: Mapping[str, Sequence[str]], bad: str, same: Mapping[str, str]
    ) -> None:
        self._names = list(parents)
        self._index = {name: index for index, name in enumerate(self._names)}
        self._parents, self._same = parents, same
        self._ancestors: list[int] = []
        for index, name in enumerate(self._names):
            bits = 1 << index
            for parent in parents[name]:
                bits |= self._ancestors[self._index[parent]] if parent in self._index else 0
            self._ancestors.append(bits)
        self.bad = bad
        self._suspects = self._ancestors[self._index[bad]]
        self._skipped = 0

    def tell(self, commit: str, verdict: str) -> None:
        """Take a verdict in. One on a commit that is no suspect any more changes nothing."""
        index = self._index[commit]
        if not self._suspects >> index & 1:
            return
        if verdict == BAD:
            self.bad, self._suspects = commit, self._suspects & self._ancestors[index]
        elif verdict == GOOD:
            self._suspects &= ~self._ancestors[index]
        else:
            self._skipped |= 1 << index

    def is_suspect(self, commit: str) -> bool:
        """Whether a verdict on it would still tell something."""
        index = self._index.get(commit)
        return index is not None and bool(self._suspects >> index & 1)

    def worth(self) -> dict[str, float]:
        """How much a verdict on each untested suspect would tell, from 0 to 1.

        Half of the suspects on either side is best; next to a commit that could not be tested
        another such is likely, so its neighbours count for less.
        """
        total = self._suspects.bit_count()
        skipped = [self._older(index) for index in _bits(self._suspects & self._skipped)]
        untested = self._suspects & ~self._skipped & ~(1 << self._index[self.bad])
        found = {}
        for index in _bits(untested):
            older = self._older(index)
            apart = min((abs(older - other) for other in skipped), default=total)
            found[self._names[index]] = (
                min(older, total - older) / total * (apart + 1) / (total + 1)
            )
        return found

    def _older(self, index: int) -> int:
        return (self._ancestors[index] & self._suspects).bit_count()

    def without(self, commit: str) -> list[str]:
        """The commits that do not have this one behind them."""
        index = self._index[commit]
        return [
            n for n, bits in zip(self._names, self._ancestors, strict=True) if not bits >> index & 1
        ]

    @property
    def suspects(self) -> list[str]:
        """All of them, parents first."""
        return [self._names[index] for index in _bits(self._suspects)]

    def culprits(self) -> list[str]:
        """The suspects that changed something: one with the files of a parent brought nothing."""
        return [
            name
            for name in self.suspects
            if not any(self._same.get(p) == self._same[name] for p in self._parents[name])
        ]

    @property
    def steps_left(self) -> int:
        """About how many more commits must be tested, as long as each can be."""
        return ceil(log2(max(1, len(self.culprits()))))


def _bits(number: int) -> Iterator[int]:
    while number:
        lowest = number & -number
        yield lowest.bit_length() - 1
        number ^= lowest
