"""The checks that are compared, each a few tests run as their authors run them.

A test is red if it raises anything. A check stops at its first red test, as one is enough. Dear
tests come last, and are left out where no cheaper one so much as called the altered code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.compared import hf_modeling, hf_trainer, liger_convergence, liger_operators
from falsifiers.subject import Subject

Test = Callable[[Subject, Path], None]


@dataclass(frozen=True)
class Check:
    """Tests that stand for one way of checking.

    Attributes:
        id: in results.
        title: in tables.
        tests: always run.
        dear: run only if the altered code was called by `tests`.
    """

    id: str
    title: str
    tests: Mapping[str, Test]
    dear: Mapping[str, Test] = field(default_factory=dict)


def _split(tests: Mapping[str, Test], dear: Callable[[str], bool]) -> tuple[dict[str, Test], ...]:
    return (
        {name: test for name, test in tests.items() if not dear(name)},
        {name: test for name, test in tests.items() if dear(name)},
    )


_MINI, _MINI_DEAR = _split(liger_convergence.TESTS, lambda name: "bfloat16" in name)
_MODEL, _MODEL_DEAR = _split(hf_modeling.TESTS, lambda name: name.startswith("overfit"))

CHECKS = (
    Check(
        "liger",
        "Liger-style",
        {
            "operator RMSNorm": liger_operators.rmsnorm,
            "operator RoPE": liger_operators.rope,
            "operator SwiGLU": liger_operators.swiglu,
            "operator fused linear cross-entropy": liger_operators.linear_cross_entropy,
            **_MINI,
        },
        {
            **_MINI_DEAR,
            "operator fused linear cross-entropy, large": (
                liger_operators.linear_cross_entropy_of_large_shapes
            ),
        },
    ),
    Check("modeling", "transformers modeling-style", _MODEL, _MODEL_DEAR),
    Check("trainer", "transformers Trainer-style", hf_trainer.TESTS),
)
