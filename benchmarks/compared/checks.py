"""The checks that are compared, each a few tests run as their authors run them.

A test is red if it raises anything. A check stops at its first red test, as one is enough. Tests
that take long are left out where a short walk through the same calls did not so much as call the
altered code.
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
        walk: calls what `dear` calls, once or twice, and judges nothing.
        dear: run only if the altered code was called before.
    """

    id: str
    title: str
    tests: Mapping[str, Test]
    walk: Test | None = None
    dear: Mapping[str, Test] = field(default_factory=dict)


_OVERFIT = "overfit llama"

CHECKS = (
    Check(
        "liger",
        "Liger-style",
        {
            "operator RMSNorm": liger_operators.rmsnorm,
            "operator RoPE": liger_operators.rope,
            "operator SwiGLU": liger_operators.swiglu,
            "operator fused linear cross-entropy": liger_operators.linear_cross_entropy,
        },
        liger_convergence.one_step,
        {
            **liger_convergence.TESTS,
            "operator fused linear cross-entropy, large": (
                liger_operators.linear_cross_entropy_of_large_shapes
            ),
        },
    ),
    Check(
        "modeling",
        "transformers modeling-style",
        {name: test for name, test in hf_modeling.TESTS.items() if name != _OVERFIT},
        dear={_OVERFIT: hf_modeling.TESTS[_OVERFIT]},
    ),
    Check(
        "trainer",
        "transformers Trainer-style",
        {},
        hf_trainer.one_of_each,
        hf_trainer.TESTS,
    ),
)
