"""Guards and modes as functions: each limit from both sides."""

from __future__ import annotations

import math

import pytest

from trainer.config import LLAMA_370M
from trainer.errors import (
    ConfigurationError,
    Divergence,
    NumericalInstability,
    ThroughputOutOfRange,
)
from trainer.run import flops, guards, modes
from trainer.run.guards import ThroughputGuard

LN_V = math.log(50257)


@pytest.mark.parametrize(
    ("losses", "mode", "diverges"),
    [
        ([10.0], "finetune", False),
        ([10.0001], "finetune", True),
        ([2 * LN_V], "from-scratch", False),
        ([2 * LN_V + 1e-6], "from-scratch", True),
        ([3.0, 6.0], "finetune", False),
        ([3.0, 6.0001], "finetune", True),
        ([3.0, 6.0001], "from-scratch", True),
        ([3.0, 5.0, 9.0], "finetune", False),
        ([1.0, 9.0, 9.0], "finetune", False),
    ],
)
def test_divergence_is_growth_or_a_bad_start(
    losses: list[float], mode: str, diverges: bool
) -> None:
    """INV-TRAIN-005: only the last loss, against the one before it or the ceiling of epoch 0."""
    if not diverges:
        guards.require_convergence(losses, mode, 50257)
        return
    with pytest.raises(Divergence, match="INV-TRAIN-005"):
        guards.require_convergence(losses, mode, 50257)


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_held_out_loss_must_be_a_number(loss: float) -> None:
    """INV-TRAIN-007; a finite one passes."""
    guards.require_finite(0, 11.0)
    with pytest.raises(NumericalInstability, match="INV-TRAIN-007"):
        guards.require_finite(3, loss)


@pytest.mark.parametrize(
    ("losses", "stops"),
    [
        ([], False),
        ([2.0, 3.0, 3.0], False),
        ([2.0, 3.0, 3.0, 3.0], True),
        ([3.0, 2.0, 3.0, 3.0], True),
        ([3.0, 3.0, 2.0, 3.0], False),
        ([3.0, 2.0, 3.0, 1.9], False),
        ([3.0, 2.0, 2.0, 2.0], True),
        ([4.0, 3.0, 2.0, 2.5, 2.4], True),
    ],
)
def test_patience_is_two_and_not_before_epoch_three(losses: list[float], stops: bool) -> None:
    """INV-TRAIN-004: two epochs without a new best, equal is not better, epoch 3 is the first."""
    assert guards.stops_early(losses) is stops


def test_throughput_guard_takes_the_median_of_twenty() -> None:
    """Nine hiccups in twenty pass, eleven slow steps do not, and nineteen steps say nothing."""
    guard = ThroughputGuard(100.0)
    for rate in [1.0] * 9 + [200.0] * 11:
        guard.add(rate)
    slow = ThroughputGuard(100.0)
    for rate in [1.0] * 11 + [200.0] * 8:
        slow.add(rate)
    with pytest.raises(ThroughputOutOfRange, match="--min-tokens-per-sec 100"):
        slow.add(200.0)


def test_throughput_guard_watches_nothing_unless_asked() -> None:
    """Without a limit no rate is too low."""
    guard = ThroughputGuard(None)
    for _ in range(40):
        guard.add(0.0)


@pytest.mark.parametrize(
    ("name", "with_init", "found"),
    [
        (None, False, ("from-scratch", 3e-4, 1000, 3.0)),
        (None, True, ("finetune", 5e-5, 100, 2.2)),
        ("finetune", True, ("finetune", 5e-5, 100, 2.2)),
        ("from-scratch", True, ("from-scratch", 3e-4, 1000, 3.0)),
    ],
)
def test_defaults_of_a_mode_come_together(
    name: str | None, with_init: bool, found: tuple[str, float, int, float]
) -> None:
    """INV-TRAIN-009: the three fields of one mode, never a mixture."""
    mode = modes.choose(name, with_init=with_init, num_steps=10_000)
    assert (mode.name, mode.lr, mode.warmup, mode.target_loss, mode.notice) == (*found, None)


@pytest.mark.parametrize(
    ("option", "found"),
    [
        ({"lr": 0.0}, (0.0, 100, 2.2)),
        ({"warmup": 0}, (5e-5, 0, 2.2)),
        ({"target_loss": 0.0}, (5e-5, 100, 0.0)),
    ],
)
def test_explicit_option_wins_for_its_own_field(
    option: dict[str, float], found: tuple[float, int, float]
) -> None:
    """INV-TRAIN-009: an option, 0 included, replaces its field and leaves the others."""
    mode = modes.choose(None, with_init=True, num_steps=5000, **option)  # type: ignore[arg-type]
    assert (mode.lr, mode.warmup, mode.target_loss) == found


def test_warm_up_longer_than_the_run_is_scaled_or_refused() -> None:
    """A default is scaled down with a notice, an explicit one is refused; one that fits stays."""
    scaled = modes.choose(None, with_init=False, num_steps=500)
    assert scaled.warmup == 50 and scaled.notice is not None and "1000" in scaled.notice
    exact = modes.choose(None, with_init=False, num_steps=1000)
    assert exact.warmup == 1000 and exact.notice is not None and "100%" in exact.notice
    tenth = modes.choose(None, with_init=False, num_steps=10_000)
    assert tenth.warmup == 1000 and tenth.notice is None
    asked = modes.choose(None, with_init=False, num_steps=1000, warmup=1000)
    assert asked.notice is None
    with pytest.raises(ConfigurationError, match="501 steps does not fit in 500"):
        modes.choose(None, with_init=False, num_steps=500, warmup=501)
    assert modes.choose(None, with_init=False, num_steps=500, warmup=500).warmup == 500


def test_finetuning_needs_initial_weights() -> None:
    """There is nothing to fine-tune without them."""
    with pytest.raises(ConfigurationError, match="--init"):
        modes.choose("finetune", with_init=False, num_steps=10)


def test_flops_of_the_370m_model() -> None:
    """2.536 G a token at 2048: 6 × 322.0 M matmul parameters + 12·24·1024·2048."""
    assert flops.flops_per_token(LLAMA_370M, 2048) == pytest.approx(2.536e9, rel=2e-4)


@pytest.mark.parametrize(
    ("card", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H200", 989e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA GeForce RTX 4090", 165e12),
        ("NVIDIA Something New", None),
    ],
)
def test_peak_follows_the_cards_name(card: str, peak: float | None) -> None:
    """The most specific name wins, and an unknown card has no peak rather than a guess."""
    assert flops.peak_flops(card) == peak
