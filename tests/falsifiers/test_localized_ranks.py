"""Of several ranks the missing one is named, and watching leaves a falsifier's hooks alone."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from falsifiers.adapters.bundled import BundledSubject
from falsifiers.imposed_gradients import ImposedGradients
from falsifiers.localization import session
from falsifiers.localization.ranks import TwinStep, judge_ranks
from falsifiers.localization.steps import Micro
from falsifiers.subject import Batch, StepMetrics

from .test_localization import CONSTANTS, run_folder

_TOKENS = [Batch(torch.arange(6)[None] + rank) for rank in range(3)]


def _micros(ranks: int) -> list[Micro]:
    """Rank r has loss r + 1, targets r + 1, and a gradient along an axis of its own."""
    return [
        Micro(1.0 + rank, {"w": torch.eye(3)[rank] * (rank + 1)}, rank + 1) for rank in range(ranks)
    ]


def _twin(ranks: int, batches: list[Batch] | None = None) -> tuple[TwinStep, dict[str, Any]]:
    micros = _micros(ranks)
    targets = sum(m.targets for m in micros)
    loss = sum(m.loss * m.targets for m in micros) / targets
    norm = math.hypot(*((r + 1) * (r + 1) / targets for r in range(ranks)))
    metrics = StepMetrics(0, loss, norm, 1e-3, 1.0, None, "no GPU")
    line = {"step": 0, "train_loss": loss, "grad_norm": norm, "lr": 1e-3}
    return TwinStep.of(metrics, micros, batches or _TOKENS[:ranks]), line


def test_ranks_that_agree_with_one_process_are_blamed_for_nothing() -> None:
    """Within the rounding of a sum in another order."""
    twin, line = _twin(2)
    assert not list(judge_ranks([{**line, "grad_norm": line["grad_norm"] * (1 + 1e-6)}], [twin]))


@pytest.mark.parametrize(
    ("ranks", "change", "where", "said"),
    [
        (2, {"grad_norm": 1.0}, "step 0, backward over ranks", "rank 0's batch alone"),
        (2, {"grad_norm": 4 / 3}, "step 0, backward over ranks", "rank 0 counts and adds nothing"),
        (3, {"train_loss": 10 / 4}, "step 0, forward over ranks", "rank 1 is left out"),
        (3, {"train_loss": 3.0}, "step 0, forward over ranks", "rank 2's batch alone"),
        (2, {"lr": 5e-4}, "step 0, schedule over ranks", "no known fault"),
        (2, {"train_loss": 10 / 3}, "step 0, forward over ranks", "summed over ranks"),
        (2, {"grad_norm": None}, "step 0, backward over ranks", "no known fault"),
    ],
)
def test_the_rank_and_the_quantity_are_named(
    ranks: int, change: dict[str, Any], where: str, said: str
) -> None:
    """As the numbers would be without one of them, or with one for all."""
    twin, line = _twin(ranks)
    (found,) = judge_ranks([{**line, **change}], [twin])
    assert (found.where, found.times_bound > 2) == (where, True)
    assert said in found.fault


def test_the_first_step_that_differs_is_named_and_no_later_one() -> None:
    """Here the second, whose norm still has the first one's gradient in it."""
    twin, line = _twin(2)
    later = {**line, "step": 1, "grad_norm": math.hypot(line["grad_norm"], line["grad_norm"])}
    (found,) = judge_ranks([line, later, {**later, "step": 2}], [twin] * 3)
    assert found.where == "step 1, backward over ranks" and "not cleared" in found.fault


def test_ranks_that_read_the_same_batch_are_named_first() -> None:
    """Before any number: it is the data."""
    twin, line = _twin(3, [_TOKENS[0], _TOKENS[1], _TOKENS[0]])
    (found,) = judge_ranks([{**line, "grad_norm": 9.0}], [twin])
    assert (found.phase, found.fault) == ("data", "ranks 0 and 2 read the same batch")


def test_watching_uses_up_none_of_the_gradients_that_a_falsifier_imposes(
    qwen2: dict[str, Any],
) -> None:
    """Two passes, two gradients: the step is that of their sum, watched or not, and is judged."""
    states, found = [], []
    for watched in (False, True):
        subject, observer = session.observe(BundledSubject(), CONSTANTS)
        given = subject if watched else BundledSubject()
        instance = given.build(qwen2, device="cpu", dtype="float32", seed=0)
        imposed = ImposedGradients(instance)
        ones = {n: torch.ones_like(p) for n, p in instance.parameters().items()}
        imposed.impose(ones, {n: 1e-3 * one for n, one in ones.items()})
        batches = [Batch(torch.arange(5)[None] + k) for k in range(2)]
        instance.train_step(batches, lr=1e-3)
        states.append({n: m.exp_avg for n, m in instance.optimizer_state().items()})
        found.append(session.account(observer))
    assert all(torch.equal(states[0][n], states[1][n]) for n in states[0])
    assert found[1]["findings"] == [] and found[1]["notes"] == []
    assert (found[0]["looked"], found[1]["looked"]) == (False, True)


class _Runs:
    """A subject that has nothing but finished runs."""

    def run_directory(self, path: Path) -> Path:
        """As it lies."""
        return path


@pytest.mark.parametrize(("seed", "named"), [(0, ["step 3, optimizer"]), (1, [])])
def test_runs_of_one_identity_that_a_falsifier_asks_for_are_compared(
    tmp_path: Path, seed: int, named: list[str]
) -> None:
    """The first step and quantity; runs of two seeds may differ, and one may end sooner."""
    one = run_folder(tmp_path / "a")
    other = run_folder(tmp_path / "b", seed=seed, train_loss=1.0)
    subject, observer = session.observe(_Runs(), CONSTANTS)
    for folder in (one, other, one):
        subject.run_directory(folder)
    seen = session.account(observer)
    assert [f["where"] for f in seen["findings"]][:1] == named
    assert seen["notes"] == []
