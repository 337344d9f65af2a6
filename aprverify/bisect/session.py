"""From GOOD and BAD to a name: checks both ends, tests commits between them, confirms the find.

Several ids are sought at once: a commit is tested for all of them for which it still tells
something, and each has suspects of its own.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from aprverify.bisect.frozen import identity
from aprverify.bisect.history import Place, Repository
from aprverify.bisect.memory import Log, Memory
from aprverify.bisect.outcomes import BAD, GOOD, SKIP, Seen, judge_commit, reasons
from aprverify.bisect.search import Search
from aprverify.bisect.trial import Trials, placing
from aprverify.plan import Entry

Say = Callable[[str], None]
Entries = tuple[Entry, ...]


@dataclass
class Finding:
    """What came out for one id.

    Attributes:
        id: as it was asked for.
        culprits: the first bad commit, or those of which one is; none where nothing can be found.
        problem: why nothing can be found, or why the culprit must not be trusted.
        entries: the keys by which commits were told apart.
        fell: what was seen at the culprit that was tested bad, by key.
        bad: the commit that `fell` is about.
        skipped: commits among the culprits that could not be tested, with the reason.
        passed_over: the same of all commits that were tried for this id.
        notes: what else a reader should know.
    """

    id: str
    culprits: list[str] = field(default_factory=list)
    problem: str = ""
    entries: tuple[str, ...] = ()
    fell: Mapping[str, Seen] = field(default_factory=dict)
    held: Mapping[str, Seen] = field(default_factory=dict)
    bad: str = ""
    skipped: Mapping[str, str] = field(default_factory=dict)
    passed_over: Mapping[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def named(self) -> bool:
        """Whether one commit is named, and nothing speaks against it."""
        return len(self.culprits) == 1 and not self.problem


class Bisection:
    """One bisection. `say` prints a line of progress."""

    def __init__(
        self,
        repository: Repository,
        place: Place,
        trials: Trials,
        memory: Memory,
        log: Log,
        say: Say,
    ) -> None:
        self._repository, self._place, self._trials = repository, place, trials
        self._memory, self._log, self._say = memory, log, say
        self._trees: dict[str, Mapping[str, tuple[str, str]]] = {}
        self._tried: dict[str, dict[str, Seen]] = {}
        self.processes = 0

    # -- the question ---------------------------------------------------------------------

    def find(
        self, good: str, bad: str, asked: Mapping[str, Entries], first_parent: bool
    ) -> list[Finding]:
        """What fell over where, for each id. `good` and `bad` are full commit ids."""
        self._know([good, bad])
        if self._label(good) == self._label(bad):
            what = ", ".join(self._place.packages)
            same = f"{what} has the same files in GOOD and BAD; what changed is not the trainer"
            return [Finding(name, problem=same) for name in asked]
        findings = {name: Finding(name) for name in asked}
        told = self._tell_ends_apart(good, bad, asked, findings)
        if told:
            told = self._check_bases(good, bad, told, findings)
        if told:
            self._narrow(good, bad, told, findings, first_parent)
        return list(findings.values())

    def _tell_ends_apart(
        self, good: str, bad: str, asked: Mapping[str, Entries], findings: Mapping[str, Finding]
    ) -> dict[str, Entries]:
        """The entries of each id that BAD falsifies and GOOD holds: they tell commits apart."""
        every = _distinct(asked.values())
        at_bad = self._look(bad, every, "BAD")
        fallen = tuple(e for e in every if at_bad[e.key].verdict == BAD)
        at_good = self._look(good, fallen, "GOOD") if fallen else {}
        told = {}
        for name, entries in asked.items():
            finding = findings[name]
            down = [e for e in entries if e in fallen]
            usable = tuple(e for e in down if at_good[e.key].verdict == GOOD)
            if usable:
                told[name] = usable
                finding.entries = tuple(e.key for e in usable)
                finding.notes += _left_out(down, at_good)
            elif not down:
                finding.problem = "BAD is not bad: " + _not_bad([at_bad[e.key] for e in entries])
            else:
                finding.problem = _not_good({e.key: at_good[e.key] for e in down})
        return told

    def _check_bases(
        self, good: str, bad: str, told: dict[str, Entries], findings: Mapping[str, Finding]
    ) -> dict[str, Entries]:
        """Where GOOD is no ancestor of BAD, the claim must hold where their ways parted."""
        bases = self._repository.merge_bases(good, bad)
        if bases == [good]:
            return told
        self._know(bases)
        for base in bases:
            seen = self._look(base, _distinct(told.values()), "merge base")
            for name, entries in list(told.items()):
                verdict = judge_commit(seen[e.key] for e in entries)
                short = self._short(base)
                if verdict == BAD:
                    del told[name]
                    findings[name].problem = (
                        f"GOOD is no ancestor of BAD, and where their ways parted, at {short}, "
                        "the claim is falsified already: it was mended on the way to GOOD, and no "
                        "commit on the way to BAD broke it"
                    )
                elif verdict == SKIP:
                    why = reasons(seen[e.key] for e in entries)
                    findings[name].notes.append(
                        f"GOOD is no ancestor of BAD, and their merge base {short} cannot be "
                        f"tested ({why}): it is taken to be good"
                    )
        return told

    # -- the search -----------------------------------------------------------------------

    def _narrow(
        self, good: str, bad: str, told: Mapping[str, Entries],
        findings: Mapping[str, Finding], first_parent: bool,
    ) -> None:  # fmt: skip
        flags = ["--first-parent"] if first_parent else []
        searches = self._search(good, bad, told, flags)
        self._conclude(searches, told, findings)
        suspicious = {
            i: told[i] for i in searches if self._bad_before(findings[i], told[i], first_parent)
        }
        if not suspicious:
            return
        # A branch that began before the claim held never held it: nothing on it broke anything.
        again = self._search(good, bad, suspicious, [*flags, "--ancestry-path"])
        for name in suspicious:
            findings[name].notes.append(
                "a branch that was merged began before the claim held, so only commits that have "
                "GOOD behind them are suspects"
            )
            if name not in again:
                findings[name].culprits = []
                findings[name].problem = (
                    "the claim did not hold where the branch of BAD began, so that no commit of it "
                    "broke it"
                )
        self._conclude(again, suspicious, findings)

    def _search(
        self, good: str, bad: str, told: Mapping[str, Entries], flags: Sequence[str]
    ) -> dict[str, Search]:
        parents = self._repository.between(good, bad, *flags)
        if "--first-parent" in flags:
            parents = {commit: above[:1] for commit, above in parents.items()}
        if bad not in parents:
            return {}
        self._know({c for commit, above in parents.items() for c in (commit, *above)})
        same = {commit: self._label(commit) for commit in self._trees}
        searches = {name: Search(parents, bad, same) for name in told}
        while (chosen := _most_telling(searches)) is not None:
            open_to = {i: s for i, s in searches.items() if s.is_suspect(chosen)}
            seen = self._look(chosen, _distinct(told[i] for i in open_to), self._progress(searches))
            for name, search in open_to.items():
                search.tell(chosen, judge_commit(seen[e.key] for e in told[name]))
        return searches

    def _conclude(
        self, searches: Mapping[str, Search], told: Mapping[str, Entries],
        findings: Mapping[str, Finding],
    ) -> None:  # fmt: skip
        for name, search in searches.items():
            finding, keys = findings[name], [e.key for e in told[name]]
            finding.bad, finding.culprits = search.bad, search.culprits()
            finding.fell = _only(self._known(search.bad), keys)
            finding.passed_over = self._untestable(self._tried, keys)
            finding.skipped = self._untestable(finding.culprits, keys)
            if len(finding.culprits) == 1:
                finding.notes += self._other_times(search, finding.culprits[0], keys)

    def _other_times(self, search: Search, culprit: str, keys: Sequence[str]) -> list[str]:
        """Commits known to be bad although the culprit is not behind them."""
        others = [
            commit
            for commit in search.without(culprit)
            if judge_commit(_only(self._known(commit), keys).values()) == BAD
        ]
        if not others:
            return []
        told = ", ".join(self._short(commit) for commit in others[:4])
        return [
            f"the claim is falsified without this commit too, at {told}, and holds after that: to "
            "find what broke it there, bisect again with that as BAD"
        ]

    def _untestable(self, commits: Iterable[str], keys: Sequence[str]) -> dict[str, str]:
        seen = {commit: _only(self._known(commit), keys).values() for commit in commits}
        return {c: reasons(s) for c, s in seen.items() if s and judge_commit(s) == SKIP}

    def _bad_before(self, finding: Finding, entries: Entries, first_parent: bool) -> bool:
        """Whether a parent of the culprit is bad too, though a good commit has it behind."""
        if len(finding.culprits) != 1:
            return False
        parents = self._parents(finding.culprits[0], first_parent)
        seen = [self._look(parent, entries, "parent of the culprit") for parent in parents]
        return BAD in [judge_commit(one.values()) for one in seen]

    def _parents(self, commit: str, first_parent: bool) -> tuple[str, ...]:
        parents = self._repository.parents(commit)[: 1 if first_parent else None]
        self._know(parents)
        return parents

    # -- after the search -----------------------------------------------------------------

    def confirm(
        self, findings: Sequence[Finding], asked: Mapping[str, Entries], first_parent: bool
    ) -> None:
        """Judge each culprit and its parents once more, in fresh processes.

        A verdict that changes from run to run blames nobody.
        """
        for finding in findings:
            self._note_cut(finding)
            if len(finding.culprits) != 1 or finding.problem:
                continue
            entries = tuple(e for e in asked[finding.id] if e.key in finding.entries)
            (culprit,) = finding.culprits
            for commit in (culprit, *self._parents(culprit, first_parent)):
                self._confirm(finding, commit, entries)

    def _confirm(self, finding: Finding, commit: str, entries: Entries) -> None:
        before = judge_commit(self._look(commit, entries, "once more").values())
        after = self._judge(commit, entries)
        now = judge_commit(after.values())
        short = self._short(commit)
        self._say(f"once more: {short} {now}")
        if before != now:
            finding.problem = (
                f"{short}: {before}, and when judged again {now}: the claim flickers, so that no "
                "commit can be blamed for it"
            )
        elif commit == finding.culprits[0]:
            finding.fell = after
        elif now == GOOD:
            finding.held = finding.held or after
        elif now == BAD:
            finding.notes.append(f"its parent {short} is bad too: there the claim never held")

    def _note_cut(self, finding: Finding) -> None:
        for culprit in self._repository.cut_off().intersection(finding.culprits):
            finding.problem = (
                f"this clone is shallow, and nothing before {self._short(culprit)} is here: the "
                "culprit may be older; git fetch --unshallow, then --resume"
            )

    # -- one commit -----------------------------------------------------------------------

    def _look(self, commit: str, entries: Entries, what: str) -> dict[str, Seen]:
        """What is seen of entries at a commit; only what is not known yet is run."""
        label = self._label(commit)
        known = self._memory.of(label)
        missing = tuple(e for e in entries if e.key not in known)
        started = time.monotonic()
        if missing:
            seen = self._judge(commit, missing)
            self._memory.add(label, seen)
        found = {e.key: self._memory.of(label)[e.key] for e in entries}
        took = f"{time.monotonic() - started:.1f} s" if missing else "known"
        first = commit not in self._tried
        self._tried.setdefault(commit, {}).update(found)
        if missing or first:
            self._log.append(commit, label, found)
            verdict = judge_commit(found.values())
            told = f"is {verdict}" if verdict != SKIP else f"{SKIP} ({reasons(found.values())})"
            self._say(f"{what}: {self._short(commit)} {told} [{took}]")
        return found

    def _judge(self, commit: str, entries: Entries) -> dict[str, Seen]:
        self.processes += 1
        place = placing(self._repository, self._trees[commit], self._place.packages)
        return self._trials.judge(place, entries)

    def _know(self, commits: Iterable[str]) -> None:
        new = [commit for commit in commits if commit not in self._trees]
        # Parents beyond the edge of a shallow clone are named and not there.
        self._trees.update(self._repository.trees(new, self._place) if new else {})

    def _label(self, commit: str) -> str:
        return identity({package: oid for package, (_, oid) in self._trees[commit].items()})

    def _known(self, commit: str) -> dict[str, Seen]:
        return self._memory.of(self._label(commit)) if commit in self._trees else {}

    def _short(self, commit: str) -> str:
        return commit[:10]

    def _progress(self, searches: Mapping[str, Search]) -> str:
        steps = max(search.steps_left for search in searches.values())
        suspects = {c for search in searches.values() for c in search.culprits()}
        return f"{len(suspects)} suspects, about {steps} steps left"


def _most_telling(searches: Mapping[str, Search]) -> str | None:
    total: dict[str, float] = defaultdict(float)
    for search in searches.values():
        for commit, worth in search.worth().items():
            total[commit] += worth
    # The first of the best, so that the same question takes the same way again.
    return max(total, key=lambda commit: total[commit]) if total else None


def _distinct(groups: Iterable[Entries]) -> Entries:
    return tuple({e.key: e for group in groups for e in group}.values())


def _only(seen: Mapping[str, Seen], keys: Sequence[str]) -> dict[str, Seen]:
    return {key: seen[key] for key in keys if key in seen}


def _left_out(down: Sequence[Entry], at_good: Mapping[str, Seen]) -> list[str]:
    other = [e.key for e in down if at_good[e.key].verdict != GOOD]
    return [f"left out, since GOOD does not hold them: {', '.join(other)}"] if other else []


def _not_bad(seen: Sequence[Seen]) -> str:
    held = sum(one.verdict == GOOD for one in seen)
    untested = [one for one in seen if one.verdict == SKIP]
    told = [f"{held} of {len(seen)} cases hold"] if held else []
    if untested:
        told.append(f"{len(untested)} cannot be tested ({reasons(untested)})")
    return ", ".join(told)


def _not_good(seen: Mapping[str, Seen]) -> str:
    fallen = [f"{key}: {'; '.join(s.comparisons)}" for key, s in seen.items() if s.verdict == BAD]
    if fallen:
        return f"GOOD is not good: it is falsified there too, {fallen[0]}"
    return f"GOOD cannot be tested: {reasons(seen.values())}"
