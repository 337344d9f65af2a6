"""One falsifier run in this process, and what its end says of the mutant that is being served."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import traceback
from pathlib import Path
from typing import Any

from aprverify.matrix.trial import TooLong, time_limit
from aprverify.outcomes import NotRun
from aprverify.plan import Entry
from aprverify.plugin.attempt import Attempt, describe
from aprverify.plugin.in_process import call_falsifier
from aprverify.plugin.requirements import check_requirements
from aprverify.plugin.state import State

HELD, FALSIFIED, CRASHED, BROKEN = "held", "falsified", "crashed", "broken"
TIMED_OUT, OTHER = "timed_out", "no_verdict"
_LONGEST = 300
_ENVIRONMENT = re.compile(r"environ\(\{.*", re.DOTALL)


def try_entry(state: State, entry: Entry, limit: float, package: Path) -> dict[str, Any]:
    """Run it; says how it ended: one of the words above, with what explains it.

    ``crashed``: the falsifier ended with an exception that came through the trainer. ``broken``:
    with one that did not, as when a result has a shape that nobody can compare.
    """
    attempt = Attempt(entry, state.loaded.configurations)
    folder = Path(tempfile.mkdtemp(prefix="aprverify-mutant-"))
    error: BaseException | None = None
    begun = _spent()
    try:
        with time_limit(limit):
            attempt.assets = check_requirements(entry, state.assets)
            call_falsifier(state.suite, attempt, state.subject, state.assets, folder)
    except KeyboardInterrupt:
        raise
    except BaseException as raised:
        error = raised
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if any(kind.__name__ == "NotSupported" for kind in type(error).__mro__):
        error = NotRun("subject", str(error), "")
    attempt.conclude(error)
    told = _told(attempt, error, package)
    if "detail" in told:
        told["detail"] = anywhere(told["detail"], package)[:_LONGEST]
    return {"entry": entry.key, **told, "seconds": round(_spent() - begun, 4)}


def anywhere(text: str, package: Path) -> str:
    """Without the folders of this machine, so that a record can be read on another."""
    # A fault may print all variables of the environment, which are nobody else's business.
    text = _ENVIRONMENT.sub("environ({…})", text)
    return text.replace(f"{package.parent}/", "").replace(tempfile.gettempdir(), "TMP")


def _spent() -> float:
    """Seconds of processor time, of ended processes too: the same on a busy machine."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _told(attempt: Attempt, error: BaseException | None, package: Path) -> dict[str, str]:
    if attempt.outcome == "held":
        return {"ended": HELD}
    if attempt.outcome == "falsified":
        claim, failed = next((c, o) for c, o in attempt.comparisons if not o.holds)
        detail = (
            f"{claim}: {failed.text}; observed {failed.observed!r}, {failed.op} {failed.bound!r}"
        )
        return {"ended": FALSIFIED, "claim": claim, "detail": detail[:_LONGEST]}
    detail = (attempt.reason or {}).get("detail", "")
    if attempt.outcome != "broken":
        return {"ended": OTHER, "detail": f"{attempt.outcome}: {detail}"}
    if error is None:
        return {"ended": BROKEN, "detail": detail}
    if isinstance(error, TooLong):
        return {"ended": TIMED_OUT, "detail": detail}
    ended = CRASHED if _came_through(error, package) else BROKEN
    return {"ended": ended, "detail": describe(error)}


def _came_through(error: BaseException, package: Path) -> bool:
    """Whether the error came to the falsifier through the trainer's code, here or in a process."""
    seen: BaseException | None = error
    prefix = f"{package}/"
    while seen is not None:
        frames = traceback.extract_tb(seen.__traceback__)
        if any(frame.filename.startswith(prefix) for frame in frames) or prefix in str(seen):
            return True
        seen = seen.__cause__ or seen.__context__
    return False
