"""The chunked linear cross-entropy against log-softmax in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from trainer import loss

ROWS, SIZE, VOCABULARY = 11, 6, 9


@pytest.fixture
def problem() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Hidden states, head, targets and row weights, one of them zero."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(ROWS, SIZE, generator=generator)
    head = torch.randn(VOCABULARY, SIZE, generator=generator)
    targets = torch.randint(VOCABULARY, (ROWS,), generator=generator)
    weights = torch.rand(ROWS, generator=generator)
    weights[3] = 0
    return hidden, head, targets, weights


@pytest.mark.parametrize("rows_at_once", [1, 4, 11, 100])
def test_loss_and_gradients_equal_log_softmax(
    problem: tuple[Tensor, Tensor, Tensor, Tensor],
    rows_at_once: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever the chunk, also a ragged last one, and with uneven row weights and upstream."""
    monkeypatch.setattr(loss, "CHUNK_LOGITS", rows_at_once * VOCABULARY)
    hidden, head, targets, weights = problem
    ours = hidden.clone().requires_grad_(), head.clone().requires_grad_()
    reference = hidden.double().requires_grad_(), head.double().requires_grad_()

    total = loss.linear_cross_entropy(*ours, targets, weights)
    expected = F.cross_entropy(reference[0] @ reference[1].T, targets, reduction="none") @ (
        weights.double()
    )
    (total * 0.37).backward()  # type: ignore[no-untyped-call]
    (expected * 0.37).backward()  # type: ignore[no-untyped-call]

    # Float32 rounding of sums of 11 terms of order one.
    torch.testing.assert_close(total.double(), expected, rtol=1e-6, atol=1e-6)
    for got, want in zip(ours, reference, strict=True):
        assert got.grad is not None and want.grad is not None
        torch.testing.assert_close(got.grad.double(), want.grad, rtol=1e-5, atol=1e-6)


def test_mask_is_weights_of_one_and_zero(
    problem: tuple[Tensor, Tensor, Tensor, Tensor],
) -> None:
    """A bool mask counts exactly its True rows."""
    hidden, head, targets, _ = problem
    mask = torch.arange(ROWS) % 2 == 0
    masked = loss.linear_cross_entropy(hidden, head, targets, mask)
    torch.testing.assert_close(masked, loss.linear_cross_entropy(hidden[mask], head, targets[mask]))


@pytest.mark.parametrize("wanted", ["hidden", "head", "neither"])
def test_a_gradient_that_nobody_wants_changes_nothing(
    problem: tuple[Tensor, Tensor, Tensor, Tensor], wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss is the same bits, and so is the gradient that is wanted, over several chunks."""
    monkeypatch.setattr(loss, "CHUNK_LOGITS", 4 * VOCABULARY)
    hidden, head, targets, weights = problem
    both = hidden.clone().requires_grad_(), head.clone().requires_grad_()
    expected = loss.linear_cross_entropy(*both, targets, weights)
    expected.backward()  # type: ignore[no-untyped-call]
    ours = (
        hidden.clone().requires_grad_(wanted == "hidden"),
        head.clone().requires_grad_(wanted == "head"),
    )
    total = loss.linear_cross_entropy(*ours, targets, weights)
    assert torch.equal(total, expected)
    if wanted == "neither":
        assert not total.requires_grad
        return
    total.backward()  # type: ignore[no-untyped-call]
    for name, got, want in zip(("hidden", "head"), ours, both, strict=True):
        assert got.grad is None if name != wanted else torch.equal(got.grad, want.grad)  # type: ignore[arg-type]


def test_chunks_cover_every_row_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole chunks and a remainder; a vocabulary larger than a chunk goes row by row."""
    monkeypatch.setattr(loss, "CHUNK_LOGITS", 40)
    assert [(c.start, c.stop) for c in loss._chunks(10, 10)] == [(0, 4), (4, 8), (8, 10)]
    assert [(c.start, c.stop) for c in loss._chunks(2, 41)] == [(0, 1), (1, 2)]


def test_head_gradient_is_accumulated_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """In bfloat16 compute 300 equal chunks add up; a bfloat16 sum stops growing at 256 of them."""
    monkeypatch.setattr(loss, "CHUNK_LOGITS", 2)
    hidden = torch.ones(300, 1, dtype=torch.bfloat16)
    head = torch.zeros(2, 1, requires_grad=True)
    total = loss.linear_cross_entropy(hidden, head, torch.zeros(300, dtype=torch.int64))
    total.backward()  # type: ignore[no-untyped-call]
    assert head.grad is not None and head.grad.tolist() == [[-150.0], [150.0]]


def test_extreme_logits_stay_finite() -> None:
    """Logits of ±1e4 give a loss near 0 and 2e4, no NaN, and finite gradients."""
    hidden = torch.tensor([[1.0], [1.0]], requires_grad=True)
    head = torch.tensor([[1e4], [-1e4]], requires_grad=True)
    total = loss.linear_cross_entropy(hidden, head, torch.tensor([0, 1]))
    total.backward()  # type: ignore[no-untyped-call]
    assert total.item() == 20_000.0
    assert hidden.grad is not None and hidden.grad.isfinite().all()
    assert head.grad is not None and head.grad.isfinite().all()


@pytest.mark.parametrize("offset", [1e3, -1e6, 3e38])
def test_a_common_offset_costs_neither_loss_nor_gradient(offset: float) -> None:
    """Equal logits cost ln V and have gradients that sum to zero, however large they are."""
    hidden = torch.full((1, VOCABULARY), offset, requires_grad=True)
    total = loss.linear_cross_entropy(hidden, torch.eye(VOCABULARY), torch.tensor([2]))
    total.backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(total, torch.tensor(float(VOCABULARY)).log())
    assert hidden.grad is not None
    # Nine parts of one, each rounded to float32.
    assert abs(hidden.grad.double().sum().item()) <= 1e-6


@pytest.mark.parametrize("value", [3.2e38, float("inf"), float("nan")])
def test_a_row_of_weight_zero_costs_exactly_nothing(value: float) -> None:
    """Whatever its logits are, also where loss or logits overflow; the other is as before."""
    logits = torch.randn(2, VOCABULARY, generator=torch.Generator().manual_seed(1))
    alone = logits[1:].clone()
    logits[0], logits[0, 0] = value, -value
    targets = torch.tensor([0, 3])
    weights = torch.tensor([0.0, 1.0])
    losses = loss._row_losses(logits, targets, weights, VOCABULARY, with_gradient=True)
    expected = loss._row_losses(alone, targets[1:], weights[1:], VOCABULARY, with_gradient=True)
    assert losses[0] == 0 and not logits[0].any()
    assert torch.equal(losses[1:], expected) and torch.equal(logits[1:], alone)
