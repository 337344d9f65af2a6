"""Which version of the sources is the present one, told from recorded runs alone.

Rows of an old version must not complete what a new one left open. Where no checkout says which
version that is, the newest run that has rows of a test says so: by the source ids of its rows,
those that did not run among them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from aprverify.evidence.records import Run, instant

Group = tuple[str, str | None]
"""A test, and the defect that is planted under it: the cases of a group rest on the same files,
but for what some of them require besides."""
_Ids = Mapping[Group, Mapping[str, str]]

OTHER_VERSION = ""
"""No source id: no row is about the newest version."""


def newest_source_ids(runs: Sequence[Run]) -> dict[str, str]:
    """By row key, the source id of the newest version of its test that any run knows.

    An entry that the newest run of its test has no row of takes the id of an older run's row only
    where that run is seen to be of the same version, and `OTHER_VERSION` where it is not.
    """
    newest_first = sorted(
        runs, key=lambda run: (instant(run.header.started), run.header.run_id), reverse=True
    )
    ids = [_ids(run) for run in newest_first]
    newest: dict[str, _Ids] = {}
    for of_run in ids:
        for test, _ in of_run:
            newest.setdefault(test, of_run)
    current: dict[str, str] = {}
    for of_run in ids:
        for group, by_key in of_run.items():
            latest = newest[group[0]]
            same = of_run is latest or _is_same_version(of_run, latest, group)
            for key, source_id in by_key.items():
                if same and current.get(key, OTHER_VERSION) == OTHER_VERSION:
                    current[key] = source_id
                current.setdefault(key, OTHER_VERSION)
    return current


def _ids(run: Run) -> _Ids:
    found: dict[Group, dict[str, str]] = defaultdict(dict)
    for row in run.rows:
        found[row.test, row.defect][row.key] = row.source_id
    return found


def _is_same_version(older: _Ids, newest: _Ids, group: Group) -> bool:
    """Whether the rows of a group say so; where one run has none, those of the test's claims."""
    for shown in (group, (group[0], None)):
        one, other = older.get(shown), newest.get(shown)
        if one and other:
            shared = one.keys() & other.keys()
            if shared:
                return all(one[key] == other[key] for key in shared)
            return not {*one.values()}.isdisjoint(other.values())
    return False
