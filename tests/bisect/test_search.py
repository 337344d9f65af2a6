"""The search alone, over commits that are names with parents."""

from __future__ import annotations

from random import Random

import pytest

from aprverify.bisect.outcomes import BAD, GOOD, SKIP
from aprverify.bisect.search import Search


def _line(length: int) -> dict[str, tuple[str, ...]]:
    return {str(n): (str(n - 1),) if n else ("before",) for n in range(length)}


def _best(search: Search) -> str | None:
    worth = search.worth()
    return max(worth, key=lambda name: worth[name]) if worth else None


def _drive(search: Search, verdict: dict[str, str]) -> int:
    steps = 0
    while (chosen := _best(search)) is not None:
        search.tell(chosen, verdict[chosen])
        steps += 1
    return steps


@pytest.mark.parametrize("culprit", range(100))
def test_a_line_of_a_hundred_takes_seven_steps(culprit: int) -> None:
    """Every first bad commit of a line is found, by halving."""
    parents = _line(100)
    search = Search(parents, "99", {name: name for name in parents})
    verdict = {str(n): BAD if n >= culprit else GOOD for n in range(100)}
    assert search.steps_left == 7
    assert _drive(search, verdict) <= 7
    assert search.culprits() == [str(culprit)]


def test_any_graph_gives_a_bad_commit_with_good_parents() -> None:
    """Where the fault spreads to all descendants, its first commit is found, merges or not."""
    random = Random(5)
    for _ in range(150):
        size = random.randint(2, 40)
        parents: dict[str, tuple[str, ...]] = {"0": ("before",)}
        for n in range(1, size):
            above = random.sample(range(n), min(n, random.choice([1, 1, 2, 3])))
            parents[str(n)] = tuple(map(str, above))
        culprit = str(random.randrange(size))
        bad = {culprit}
        for name, above_ in parents.items():
            bad |= {name} if bad & set(above_) else set()
        tip = random.choice(sorted(bad))
        search = Search(parents, tip, {name: name for name in parents})
        _drive(search, {name: BAD if name in bad else GOOD for name in parents})
        assert search.culprits() == [culprit]


def test_what_cannot_be_tested_is_left_as_a_range() -> None:
    """Skipped commits between the last good and the first bad one are suspects, no others are."""
    parents = _line(32)
    search = Search(parents, "31", {name: name for name in parents})
    verdict = {str(n): GOOD if n < 13 else SKIP if n < 17 else BAD for n in range(32)}
    _drive(search, verdict)
    assert search.culprits() == ["13", "14", "15", "16", "17"]


def test_a_long_broken_stretch_is_left_quickly() -> None:
    """Commits beside one that could not be tested are not tried one after the other."""
    parents = _line(512)
    search = Search(parents, "511", {name: name for name in parents})
    verdict = {str(n): GOOD if n < 100 else BAD for n in range(512)}
    verdict |= {str(n): SKIP for n in range(200, 400)}
    assert _drive(search, verdict) <= 14
    assert search.culprits() == ["100"]


def test_a_commit_with_the_files_of_a_parent_is_no_suspect() -> None:
    """It brought nothing, whether it could be tested or not."""
    parents = _line(6)
    same = {"before": "a", "0": "a", "1": "a", "2": "b", "3": "b", "4": "b", "5": "b"}
    search = Search(parents, "5", same)
    assert search.culprits() == ["2"]
