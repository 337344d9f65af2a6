"""What measures say beyond their claims, for pictures: by name, as falsifiers name them.

A measure `worst_gradient` names what had the largest `gradient_error`; `forward_worst` belongs to
`forward_ratio` in the same way. `first_loss` and `final_loss` are of one training run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from aprverify.evidence.records import Row

_CLAIMS = ("held", "falsified")
_LAYER = re.compile(r"(?:^|\.)layers\.(\d{1,3})\.")


def losses_of(row: Row) -> tuple[float, float] | None:
    """The first and the final loss that a claim's falsifier measured, nats/token, where it did."""
    measured = [row.measures.get(name) for name in ("first_loss", "final_loss")]
    if row.outcome not in _CLAIMS:
        return None
    first, final = (x if isinstance(x, (int, float)) else None for x in measured)
    return None if first is None or final is None else (float(first), float(final))


@dataclass(frozen=True)
class Worst:
    """The largest error of one case. `layer` is None for what lies in no layer."""

    name: str
    key: str
    place: str
    layer: int | None
    error: float


def worst_places(rows: Sequence[Row]) -> list[Worst]:
    """Those of the claims that reached a verdict."""
    return [w for row in rows if row.outcome in _CLAIMS for w in _worst_places(row)]


def _worst_places(row: Row) -> Iterator[Worst]:
    for name, place in row.measures.items():
        stem = name.removeprefix("worst_").removesuffix("_worst")
        errors = (row.measures.get(f"{stem}_{kind}") for kind in ("error", "ratio"))
        error = next((e for e in errors if isinstance(e, (int, float))), None)
        if stem != name and isinstance(place, str) and place and error is not None:
            found = _LAYER.search(place)
            layer = int(found[1]) if found else None
            yield Worst(f"{row.test} {stem}", row.key, place, layer, float(error))
