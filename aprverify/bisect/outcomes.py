"""What was seen of an entry at a commit, and what that says of the commit.

Only a claim whose own comparison failed makes a commit bad. Whatever kept a claim from being judged
is a reason to pass the commit over, never to blame it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from aprverify.evidence.records import Row
from aprverify.evidence.terminal import one_line

GOOD, BAD, SKIP = "good", "bad", "cannot be tested"
MACHINE = frozenset({"device", "asset", "package"})
"""Reasons that lie with this machine and are the same at every commit."""
IMPORT = "import"
_INCOMPATIBLE = ("AttributeError", "TypeError", "ImportError", "ModuleNotFoundError", "NameError")
_MEMORY = ("OutOfMemoryError", "MemoryError", "out of memory")
_CLIP = 300


@dataclass(frozen=True)
class Seen:
    """How one entry ended.

    Attributes:
        outcome: as in a row.
        kind: of the reason, as in a row, or ``import``.
        detail: the reason in words.
        comparisons: those that failed, or of an entry that held all, in words.
    """

    outcome: str
    kind: str = ""
    detail: str = ""
    comparisons: tuple[str, ...] = ()

    @property
    def verdict(self) -> str:
        """GOOD, BAD or SKIP."""
        return {"held": GOOD, "falsified": BAD}.get(self.outcome, SKIP)

    @property
    def why(self) -> str:
        """Why there is no verdict, in words that tell the causes apart."""
        named = self.detail.partition(":")[0]
        if any(word in self.detail for word in _MEMORY) and self.kind != "crash":
            label = "out of memory"
        elif self.kind == IMPORT:
            label = "import broken"
        elif self.kind == "subject":
            label = "not supported by this trainer"
        elif named in _INCOMPATIBLE:
            label = "today's adapter or falsifier does not fit this trainer"
        elif self.kind in MACHINE:
            label = f"{self.kind} absent"
        else:
            label = "inconclusive" if self.outcome == "inconclusive" else f"broken ({self.kind})"
        return f"{label}: {self.detail}"

    @property
    def may_pass(self) -> bool:
        """Whether another try may end otherwise: a set-up that flickers, a noisy measurement."""
        fits = self.detail.removeprefix("in setup: ").partition(":")[0] not in _INCOMPATIBLE
        return self.outcome in ("broken", "inconclusive") and self.kind != IMPORT and fits

    @property
    def settled(self) -> bool:
        """Whether it follows from the files alone, so that it need not be tried again."""
        return self.verdict != SKIP or self.kind in (IMPORT, "subject")

    def to_json(self) -> dict[str, Any]:
        """Fields as JSON values."""
        return asdict(self)


def seen_from(body: Mapping[str, Any]) -> Seen:
    """What `to_json` wrote."""
    return Seen(**{**body, "comparisons": tuple(body["comparisons"])})


def seen_in(row: Row) -> Seen:
    """What a row says."""
    failing = [c for c in row.comparisons if not c.holds] or row.comparisons
    told = (
        f"claim {c.claim}: {c.text}: observed {_short(c.observed)}"
        f"{'' if c.unit in ('', '1') else f' {c.unit}'}, bound {c.op} {_short(c.bound)}"
        for c in failing
    )
    reason = row.reason
    detail = one_line(reason.detail)[:_CLIP] if reason else ""
    return Seen(
        row.outcome, reason.kind if reason else "", detail, tuple(one_line(line) for line in told)
    )


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else repr(value)[:_CLIP]


def judge_commit(seen: Iterable[Seen]) -> str:
    """BAD if any entry is falsified, GOOD if every one held, else SKIP."""
    verdicts = {one.verdict for one in seen}
    if BAD in verdicts:
        return BAD
    return GOOD if verdicts == {GOOD} else SKIP


def judge_alone(seen: Iterable[Seen]) -> str:
    """The same where nothing is known of other commits: what this machine lacks is left out."""
    return judge_commit(one for one in seen if one.kind not in MACHINE)


def reasons(seen: Iterable[Seen]) -> str:
    """Why entries have no verdict, each reason once."""
    return "; ".join(dict.fromkeys(one.why for one in seen if one.verdict == SKIP)) or "no entry"
