"""Says what a bisection found: who, when, what fell over, and how to see it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace

from aprverify.bisect.history import Repository
from aprverify.bisect.outcomes import BAD, GOOD, Seen
from aprverify.bisect.session import Finding
from aprverify.evidence.terminal import one_line

_SHOWN = 8


def render(finding: Finding, repository: Repository, probe: Sequence[str]) -> str:
    """The last words on one id; `probe` is the command that sees the same."""
    if not finding.culprits:
        return _lines(finding.id, [f"nothing found: {finding.problem}", *_notes(finding)])
    if len(finding.culprits) > 1:
        return _lines(finding.id, _range(finding, repository, probe))
    (culprit,) = finding.culprits
    head = "the first bad commit would be" if finding.problem else "first bad commit"
    lines = [f"{head} {culprit}", *_who(repository, culprit)]
    lines += _told("fell over", finding.fell, BAD)
    lines += _told("before it", _alike(finding.held, finding.fell), GOOD)
    lines += [f"NOT TRUSTED   {finding.problem}"] if finding.problem else []
    lines += _passed_over(finding.passed_over)
    return _lines(finding.id, [*lines, *_notes(finding), _see(culprit, finding, probe)])


def _range(finding: Finding, repository: Repository, probe: Sequence[str]) -> list[str]:
    lines = [f"one of {len(finding.culprits)} commits is the first bad one:"]
    for commit in finding.culprits:
        why = finding.skipped.get(commit)
        state = f"cannot be tested: {why}" if why else "bad"
        said = repository.describe(commit)
        who = f"{said.author}, {said.date}, {said.subject}"
        lines.append(f"  {commit[:10]}  {one_line(who)}  [{state}]")
    lines += _told(f"fell over at {finding.bad[:10]}", finding.fell, BAD)
    lines += [f"NOT TRUSTED   {finding.problem}"] if finding.problem else []
    return [*lines, *_notes(finding), _see(finding.bad, finding, probe)]


def _who(repository: Repository, commit: str) -> list[str]:
    said = repository.describe(commit)
    parents = repository.parents(commit)
    lines = [
        f"author        {one_line(said.author)}",
        f"date          {said.date}",
        f"subject       {one_line(said.subject)}",
    ]
    if len(parents) > 1:
        short = ", ".join(parent[:10] for parent in parents)
        lines.append(f"merge         of {short}")
    return lines


def _told(label: str, seen: Mapping[str, Seen], verdict: str) -> list[str]:
    lines = []
    for key, one in seen.items():
        if one.verdict == verdict:
            lines.append(f"{label:<13} {key}")
            lines += [f"              {text}" for text in one.comparisons]
    return lines[:_SHOWN] + (
        [f"              and {len(lines) - _SHOWN} lines more"] if len(lines) > _SHOWN else []
    )


def _alike(held: Mapping[str, Seen], fell: Mapping[str, Seen]) -> dict[str, Seen]:
    """Of what held, the comparisons that fell over later."""
    found = {}
    for key, one in held.items():
        fallen = {text.partition(": observed ")[0] for text in fell[key].comparisons}
        same = (t for t in one.comparisons if t.partition(": observed ")[0] in fallen)
        found[key] = replace(one, comparisons=tuple(same))
    return {key: one for key, one in found.items() if fell[key].verdict == BAD}


def _passed_over(skipped: Mapping[str, str]) -> list[str]:
    lines = [f"passed over   {commit[:10]}  {why}" for commit, why in skipped.items()]
    more = len(lines) - _SHOWN
    return lines[:_SHOWN] + ([f"              and {more} more, in the log"] if more > 0 else [])


def _notes(finding: Finding) -> list[str]:
    return [f"note          {note}" for note in finding.notes]


def _see(commit: str, finding: Finding, probe: Sequence[str]) -> str:
    fallen = [key for key, one in finding.fell.items() if one.verdict == BAD]
    names = fallen if 0 < len(fallen) <= 3 else [finding.id]
    at = ["--at", commit[:12], *names]
    return f"see it        {shlex.join([*probe, *at])}"


def _lines(name: str, lines: Sequence[str]) -> str:
    return "\n".join([f"{name}:", *(f"  {line}" for line in lines)]) + "\n"
