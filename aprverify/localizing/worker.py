"""A process that runs failed entries once more, watched, as it is told on its standard input.

    python -m aprverify.localizing.worker SUITE SUBJECT [NAME=FILE …]

One JSON object a line in, ``{"key": KEY}``, one a line out: what was seen, or ``{"fault": …}``. It
is a process of its own because what it runs has failed already, and may do worse.
"""

from __future__ import annotations

import sys
from typing import Any

from aprverify.evidence.values import encode
from aprverify.localizing.watch import Localized, localize
from aprverify.plugin.state import State, state_of_worker
from aprverify.talk import Answers, orders


def _answer(state: State, key: str) -> dict[str, Any]:
    entry = next((one for one in state.entries if one.key == key), None)
    if entry is None:
        return {"fault": f"the contracts have no {key} any more"}
    try:
        seen = localize(state.suite, state.loaded, entry, state.subject, None, state.assets)
    except Exception as error:
        return {"fault": f"{type(error).__name__}: {error}"}
    return _plain(seen)


def _plain(seen: Localized) -> dict[str, Any]:
    return {
        "outcome": seen.outcome,
        "detail": seen.detail,
        "watched": seen.looked,
        "first": encode(seen.findings[0]) if seen.findings else None,
        "more": max(0, len(seen.findings) - 1),
        "notes": seen.notes,
    }


def main() -> None:
    """Answer until the input ends."""
    _, suite, subject, *assets = sys.argv
    answers = Answers()
    state = state_of_worker(suite, subject, assets)
    for order in orders():
        answers.give(_answer(state, order["key"]))


if __name__ == "__main__":
    main()
