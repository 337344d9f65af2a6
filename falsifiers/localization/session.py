"""What `aprverify localize` calls by name. Everything goes in and out as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from falsifiers.by_depth import by_depth
from falsifiers.localization import expected
from falsifiers.localization.findings import Bounds, Look
from falsifiers.localization.observer import Observer
from falsifiers.localization.run_pair import compare_runs
from falsifiers.localization.steps import Hyper


def observe(subject: Any, constants: Mapping[str, float]) -> tuple[Any, Observer]:
    """The subject to hand to a falsifier, and what will have seen it.

    Args:
        subject: planted or not.
        constants: ``eager_factor``, ``attention_factor``, ``gain_factor`` and AdamW's ``beta1``,
            ``beta2``, ``eps``, ``decay`` and ``clip``.
    """
    hyper = Hyper(*(constants[name] for name in ("beta1", "beta2", "eps", "decay", "clip")))
    observer = Observer(Bounds.of(constants), hyper)
    return observer.subject(subject), observer


def account(observer: Observer) -> dict[str, Any]:
    """What was seen: findings, errors by depth in units of their bound, notes, if anything was."""
    observer.finish()
    seen = _plain(observer.look, observer.layers)
    return {**seen, "notes": list(observer.notes), "looked": observer.looks > 0}


def compare(one: str, other: str) -> dict[str, Any]:
    """What two run directories differ in first."""
    return {**_plain(compare_runs(Path(one), Path(other)), 0), "notes": []}


def expectations() -> dict[str, Any]:
    """Which planted defects must be named how, and under which tests: for the accuracy table."""
    return {
        "model_tests": expected.MODEL_TESTS,
        "model": expected.MODEL,
        "declared": expected.DECLARED,
    }


def _plain(look: Look, layers: int) -> dict[str, Any]:
    phases = dict.fromkeys(point.phase for point in look.points)
    return {
        "findings": [
            {
                "phase": f.phase,
                "where": f.where,
                "tensor": f.tensor,
                "times_bound": f.times_bound,
                "fault": f.fault,
                "seen_in": f.seen_in,
                "sentence": f.sentence,
            }
            for f in look.findings
        ],
        "by_depth": {
            phase: by_depth(
                ((p.where, p.times_bound) for p in look.points if p.phase == phase), layers
            )
            for phase in phases
        },
    }
