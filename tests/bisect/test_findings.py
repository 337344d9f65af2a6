"""What a bisection says of histories of every shape: real repositories, and a judge that reads."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from aprverify.bisect.history import Place, Repository
from aprverify.bisect.memory import Log, Memory
from aprverify.bisect.outcomes import Seen
from aprverify.bisect.session import Bisection, Finding
from aprverify.bisect.trial import CannotPlace, Placing, Trials

from .histories import History


class _Entry:
    def __init__(self, key: str) -> None:
        self.key = key


class _Reader:
    """Judges a trainer by its own word, and counts how often it was asked."""

    def __init__(self) -> None:
        self.trials: list[tuple[str, tuple[str, ...]]] = []
        self.later: dict[str, str] = {}

    def judge(self, place: Placing, entries: Sequence[_Entry]) -> dict[str, Seen]:
        with tempfile.TemporaryDirectory() as folder:
            try:
                place(Path(folder))
            except CannotPlace as reason:
                return {e.key: Seen("not_run", "import", str(reason)) for e in entries}
            text = (Path(folder) / "toytrainer/verdicts").read_text()
        lines = dict(line.split() for line in text.splitlines() if not line.startswith("#"))
        self.trials.append((text.rpartition("# ")[2].strip(), tuple(e.key for e in entries)))
        return {e.key: self._seen(lines.get(e.key, "broken")) for e in entries}

    def _seen(self, word: str) -> Seen:
        if word == "flickers":
            word = "falsified" if not self.later else "held"
            self.later["seen"] = word
        return Seen(word, "" if word in ("held", "falsified") else "setup", word, (word,))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of the test's own."""
    monkeypatch.setenv("APRVERIFY_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def history(tmp_path: Path) -> History:
    """An empty repository."""
    return History(tmp_path / "repository")


def _bisect(
    history: History, good: str, bad: str, *ids: str, first_parent: bool = False,
    reader: _Reader | None = None, root: Path | None = None,
) -> tuple[list[Finding], _Reader]:  # fmt: skip
    reader = reader or _Reader()
    root = root or history.root
    place = Place(("toytrainer",), ("",))
    log = Log(root / ".git" / "log.jsonl")
    log.begin({})
    bisection = Bisection(
        Repository(root), place, cast(Trials, reader), Memory("judge"), log, lambda line: None
    )
    asked = cast(Any, {name: (_Entry(name),) for name in ids or ("x",)})
    findings = bisection.find(good, bad, asked, first_parent)
    bisection.confirm(findings, asked, first_parent)
    return findings, reader


def _named(findings: Sequence[Finding]) -> list[str]:
    assert all(f.named for f in findings), [f.problem or f.culprits for f in findings]
    return [f.culprits[0] for f in findings]


def _line(history: History, words: str) -> list[str]:
    """A line of commits, a letter each: held, falsified, broken."""
    outcome = {"h": "held", "f": "falsified", "b": "broken"}
    return [history.state(f"c{n}", x=outcome[word]) for n, word in enumerate(words)]


def test_the_first_bad_commit_of_a_line_is_named(history: History) -> None:
    """With what was seen of it, and what was seen of its parent."""
    commits = _line(history, "hhhhhffff")
    (finding,), reader = _bisect(history, commits[0], commits[-1])
    assert _named([finding]) == [commits[5]]
    assert finding.fell["x"].outcome == "falsified" and finding.held["x"].outcome == "held"
    assert len(reader.trials) <= 2 + 3 + 2  # the ends, the halving, the confirmation


def test_untestable_commits_are_a_range_and_never_blamed(history: History) -> None:
    """Each is listed with its reason; commits outside of the range are not."""
    commits = _line(history, "hhhbbfff")
    (finding,), _ = _bisect(history, commits[0], commits[-1])
    assert finding.culprits == commits[3:6] and not finding.named
    assert set(finding.skipped) == set(commits[3:5])
    assert "broken" in finding.skipped[commits[3]]


def test_untestable_commits_away_from_the_fault_do_not_matter(history: History) -> None:
    """A broken stretch elsewhere leaves one culprit."""
    commits = _line(history, "hhbbbbhhffbbff")
    findings, _ = _bisect(history, commits[0], commits[-1])
    assert _named(findings) == [commits[8]]


def test_a_good_that_is_bad_is_said_so(history: History) -> None:
    """Nothing is searched between two bad commits."""
    commits = _line(history, "fhff")
    (finding,), reader = _bisect(history, commits[0], commits[-1])
    assert finding.problem.startswith("GOOD is not good") and not finding.culprits
    assert len(reader.trials) == 2


def test_a_bad_that_is_good_is_said_so(history: History) -> None:
    """Neither is anything between two good ones."""
    commits = _line(history, "hhfh")
    (finding,), _ = _bisect(history, commits[0], commits[-1])
    assert finding.problem.startswith("BAD is not bad: 1 of 1 cases hold")


@pytest.mark.parametrize(
    ("words", "said"),
    [("bff", "GOOD cannot be tested"), ("hfb", "BAD is not bad: 1 cannot be tested")],
)
def test_ends_that_cannot_be_tested_are_said_so(history: History, words: str, said: str) -> None:
    """With the reason."""
    commits = _line(history, words)
    (finding,), _ = _bisect(history, commits[0], commits[-1])
    assert finding.problem.startswith(said) and "broken" in finding.problem


def test_a_fault_that_is_masked_and_returns_is_found_where_it_falls_over(history: History) -> None:
    """Whichever of its two beginnings is named, its parent was seen to hold."""
    commits = _line(history, "hhffhhhffff")
    (finding,), _ = _bisect(history, commits[0], commits[-1])
    assert _named([finding])[0] in (commits[2], commits[7])
    assert finding.held["x"].outcome == "held"


def test_what_is_known_of_an_earlier_fault_is_noted(history: History) -> None:
    """A commit that is bad without the culprit behind it is named."""
    commits = _line(history, "hhffhhhhhff")
    (first,), _ = _bisect(history, commits[0], commits[3])
    (second,), _ = _bisect(history, commits[0], commits[-1])
    assert first.culprits == [commits[2]] and not first.notes
    assert second.culprits == [commits[9]]
    assert any(commits[2][:10] in note for note in second.notes)


def test_a_fault_behind_a_mask_that_cannot_be_tested_is_a_range(history: History) -> None:
    """The commit that takes the mask off is not blamed for what was below it."""
    commits = _line(history, "hhbbbbff")
    (finding,), _ = _bisect(history, commits[0], commits[-1])
    assert finding.culprits == commits[2:7]


def test_the_same_files_are_judged_once(history: History) -> None:
    """A revert and its revert have known files; a commit beside the trainer brings nothing."""
    commits = _line(history, "hh")
    other = [history.commit(f"docs {n}", {"README": str(n)}) for n in range(12)]
    fault = history.state("fault", x="falsified")
    history.state("mended", x="held")
    again = history.state("fault", x="falsified")
    more = [history.commit(f"more {n}", {"README": f"more {n}"}) for n in range(12)]
    (finding,), reader = _bisect(history, commits[0], more[-1])
    assert _named([finding])[0] in (fault, again) and finding.culprits[0] not in other
    assert len(reader.trials) - 2 <= len({name for name, _ in reader.trials})


def test_nothing_is_run_where_the_trainer_is_the_same(history: History) -> None:
    """What made the claim fall over is elsewhere, and is said to be."""
    (first,) = _line(history, "h")
    last = history.commit("docs", {"README": "words"})
    (finding,), reader = _bisect(history, first, last)
    assert "same files in GOOD and BAD" in finding.problem and not reader.trials


def test_a_fault_on_a_merged_branch_is_named_there(history: History) -> None:
    """And with --first-parent the merge that brought it is."""
    base = history.state("base", x="held")
    history.branch("side", base)
    history.state("side 1", x="held")
    fault = history.state("side 2", x="falsified")
    tip = history.state("side 3", x="falsified")
    history.git("checkout", "--quiet", "main")
    history.state("main 1", x="held")
    merge = history.merge("merge", "side", x="falsified")
    last = history.state("after", x="falsified")
    assert _named(_bisect(history, base, last)[0]) == [fault] and tip
    (finding,), _ = _bisect(history, base, last, first_parent=True)
    assert _named([finding]) == [merge]


def test_a_merge_whose_sides_both_hold_is_blamed_itself(history: History) -> None:
    """Two halves can be right and wrong together; of an octopus as well."""
    base = history.state("base", x="held")
    sides = []
    for n in range(3):
        history.branch(f"side{n}", base)
        sides.append(history.state(f"side {n}", x="held"))
    history.git("checkout", "--quiet", "main")
    history.state("main 1", x="held")
    merge = history.merge("octopus", *sides, x="falsified")
    last = history.state("after", x="falsified")
    (finding,), _ = _bisect(history, base, last)
    assert _named([finding]) == [merge]


def test_a_branch_older_than_the_feature_is_not_blamed(history: History) -> None:
    """Its commits never held the claim: the culprit is sought where GOOD lies behind."""
    root = history.state("root", x="falsified")
    good = history.state("the claim comes true", x="held")
    history.branch("old", root)
    history.state("old 1", x="falsified")
    old = history.state("old 2", x="falsified")
    history.git("checkout", "--quiet", "main")
    history.state("main 1", x="held")
    merge = history.merge("merge", "old", x="held")
    fault = history.state("fault", x="falsified")
    assert _named(_bisect(history, good, fault)[0]) == [fault]
    # Even where the merge itself is what takes the wrong side.
    history.git("checkout", "--quiet", "-B", "other", merge + "^1")
    wrong = history.merge("wrong side", old, x="falsified")
    last = history.state("after", x="falsified")
    (finding,), _ = _bisect(history, good, last)
    assert _named([finding]) == [wrong]
    assert any("began before the claim held" in note for note in finding.notes)


def test_a_good_commit_beside_the_line_is_judged_by_where_the_ways_part(history: History) -> None:
    """If the claim held there, the way to BAD is searched; if not, it was mended, not broken."""
    root = history.state("root", x="falsified")
    base = history.state("base", x="held")
    history.branch("release", base)
    good = history.state("release", x="held")
    history.git("checkout", "--quiet", "main")
    history.state("main 1", x="held")
    fault = history.state("fault", x="falsified")
    last = history.state("after", x="falsified")
    assert _named(_bisect(history, good, last)[0]) == [fault]
    history.git("checkout", "--quiet", "-b", "never", root)
    never = history.state("never", x="falsified")
    (finding,), _ = _bisect(history, good, never)
    assert "mended on the way to GOOD" in finding.problem and not finding.culprits


def test_several_ids_share_trials_and_have_culprits_of_their_own(history: History) -> None:
    """A commit is judged once for all ids that it still tells something about."""
    names = {"x": 3, "y": 9, "z": 9}
    commits = [
        history.state(f"c{n}", **{k: "falsified" if n >= at else "held" for k, at in names.items()})
        for n in range(16)
    ]
    findings, together = _bisect(history, commits[0], commits[-1], *names)
    assert _named(findings) == [commits[3], commits[9], commits[9]]
    assert any(keys == ("x", "y", "z") for _, keys in together.trials)
    searched = len(together.trials) - 3 * 2  # each id's culprit and its parent, once more
    assert searched <= 2 + 2 * 4


def test_one_id_that_cannot_be_found_leaves_the_others(history: History) -> None:
    """Each has its own last word."""
    commits = [history.state(f"c{n}", x="falsified" if n else "held", y="held") for n in range(4)]
    (x, y), _ = _bisect(history, commits[0], commits[-1], "x", "y")
    assert x.culprits == [commits[1]] and y.problem.startswith("BAD is not bad")


def test_a_verdict_that_flickers_blames_nobody(history: History) -> None:
    """The culprit is judged again, and another verdict takes the blame away."""
    good = history.state("c0", x="held")
    flickers = history.state("c1", x="flickers")
    (finding,), _ = _bisect(history, good, flickers)
    assert "flickers" in finding.problem and not finding.named


def test_files_may_be_renamed_and_the_package_may_be_gone(history: History) -> None:
    """Renames inside the trainer are its own affair; a commit without it cannot be tested."""
    good = history.state("c0", x="held")
    history.git("mv", "toytrainer/verdicts", "toytrainer/old")
    history.git("mv", "toytrainer", "elsewhere")
    moved = history.commit("moved away")
    history.git("rm", "-r", "--quiet", "elsewhere")
    fault = history.state("back, and wrong", x="falsified")
    (finding,), _ = _bisect(history, good, fault)
    assert finding.culprits == [moved, fault]
    assert "has no toytrainer/" in finding.skipped[moved]


def test_a_shallow_clone_says_that_the_culprit_may_be_older(
    history: History, tmp_path: Path
) -> None:
    """The oldest commit there has parents that were not cloned."""
    base = history.state("base", x="held")
    history.branch("side", base)
    for n in range(6):
        side = history.state(f"side {n}", x="falsified")
    history.git("checkout", "--quiet", "main")
    good = history.state("main 1", x="held")
    last = history.merge("merge", side, x="falsified")
    clone = tmp_path / "shallow"
    history.git("clone", "--quiet", "--depth", "3", f"file://{history.root}", str(clone))
    (finding,), _ = _bisect(history, good, last, root=clone)
    assert "shallow" in finding.problem and not finding.named
