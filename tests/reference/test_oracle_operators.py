"""The oracle's operators: derivatives, closed forms, torch's own functions, and dtypes."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as functional
from torch import Tensor

from falsifiers.reference import operators
from falsifiers.reference.errors import OracleInputError
from falsifiers.reference.operators import OPERATORS, OUTPUTS, recompute, recompute_backward

# A few tens of float64 roundings of numbers near one.
ROUNDING = 1e-14
BF16_HALF_ULP = 2.0**-8


def random(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed + 1000 * sum(shape))
    return torch.randn(shape, generator=generator, dtype=torch.float64)


TARGETS = torch.tensor([3, 0, 6])
SAMPLES = {
    "embedding": ({"tokens": torch.tensor([[1, 4, 1]])}, {"weight": random(6, 4)}, {}),
    "linear": ({"x": random(2, 3, 4)}, {"weight": random(5, 4), "bias": random(5)}, {}),
    "rmsnorm": ({"x": random(2, 3, 4)}, {"weight": random(4)}, {"eps": 0.1, "hidden_size": 4}),
    "rope": ({"q": random(1, 4, 3, 6), "k": random(1, 2, 3, 6, seed=1)}, {}, {"theta": 50.0}),
    "attention": (
        {"q": random(1, 4, 3, 2), "k": random(1, 2, 3, 2), "v": random(1, 2, 3, 2, seed=1)},
        {},
        {"num_heads": 4},
    ),
    "swiglu": ({"gate": random(2, 5), "up": random(2, 5, seed=1)}, {}, {}),
    "residual": ({"stream": random(2, 5), "branch": random(2, 5, seed=1)}, {}, {}),
    "linear_cross_entropy": (
        {"hidden": random(3, 4), "targets": TARGETS, "mask": torch.tensor([True, False, True])},
        {"weight": random(7, 4)},
        {},
    ),
}


def test_every_kind_has_a_sample_and_named_outputs():
    """A kind that these tests do not reach would be judged by unproven code."""
    assert OPERATORS.keys() == SAMPLES.keys() == OUTPUTS.keys()


@pytest.mark.parametrize("kind", SAMPLES)
def test_derivatives_agree_with_finite_differences(kind):
    """recompute_backward is the derivative of recompute: central differences of each element.

    With h = 1e-6 the difference quotient is good to about 1e-9 on values near one; 1e-7 allows
    for the third derivatives.
    """
    inputs, parameters, settings = SAMPLES[kind]
    outputs = recompute(kind, inputs, parameters, settings, torch.float64)
    upstream = {n: random(*o.shape, seed=9) + 1.5 for n, o in outputs.items()}
    grad_in, grad_par = recompute_backward(
        kind, inputs, parameters, settings, upstream, torch.float64
    )
    floating = {n for n, x in inputs.items() if x.is_floating_point()}
    assert grad_in.keys() == floating and grad_par.keys() == parameters.keys()

    def projected(changed_in: dict[str, Tensor], changed_par: dict[str, Tensor]) -> float:
        there = recompute(kind, changed_in, changed_par, settings, torch.float64)
        return sum((there[n] * upstream[n]).sum().item() for n in there)

    h = 1e-6
    for name, gradient in {**grad_in, **grad_par}.items():
        value = {**inputs, **parameters}[name]
        for position in range(value.numel()):
            shift = torch.zeros_like(value).flatten()
            shift[position] = h
            ends = [
                projected(
                    {**inputs, **({name: moved} if name in inputs else {})},
                    {**parameters, **({name: moved} if name in parameters else {})},
                )
                for moved in (value + shift.view_as(value), value - shift.view_as(value))
            ]
            slope = (ends[0] - ends[1]) / (2 * h)
            assert gradient.flatten()[position].item() == pytest.approx(slope, rel=1e-7, abs=1e-7)


def test_operators_agree_with_torch_functions():
    """Where torch has the operator as one function, both give the same numbers."""
    x, weight = random(2, 3, 8), random(8, seed=1)
    q, k, v = random(2, 6, 5, 4), random(2, 3, 5, 4), random(2, 3, 5, 4, seed=1)
    hidden, head, targets = random(5, 4), random(7, 4), torch.tensor([0, 6, 2, 2, 5])
    pairs = [
        (operators.rmsnorm(x, weight, 0.01), functional.rms_norm(x, (8,), weight, 0.01)),
        (
            operators.attention(q, k, v),
            functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True),
        ),
        (operators.swiglu(x, 2 * x), functional.silu(x) * 2 * x),
        (
            operators.linear(x, random(5, 8), random(5)),
            functional.linear(x, random(5, 8), random(5)),
        ),
        (
            operators.linear_cross_entropy(hidden, targets, head),
            functional.cross_entropy(hidden @ head.T, targets, reduction="sum"),
        ),
    ]
    for ours, theirs in pairs:
        torch.testing.assert_close(ours, theirs, rtol=ROUNDING, atol=ROUNDING)


def test_rope_turns_pairs_by_position_times_frequency():
    """As complex numbers: element i plus i·element i + D/2, times exp(i·t·theta^(-2i/D))."""
    q, theta = random(1, 2, 7, 6), 50.0
    ours, _ = operators.rope(q, q, theta)
    frequencies = torch.tensor([theta ** (-2 * i / 6) for i in range(3)], dtype=torch.float64)
    turns = torch.polar(
        torch.ones(7, 3, dtype=torch.float64), torch.arange(7.0)[:, None] * frequencies
    )
    expected = torch.complex(q[..., :3], q[..., 3:]) * turns
    theirs = torch.cat((expected.real, expected.imag), dim=-1)
    torch.testing.assert_close(ours, theirs, rtol=ROUNDING, atol=ROUNDING)
    assert torch.equal(ours[:, :, 0], q[:, :, 0])


def test_equal_keys_average_the_values_seen_so_far():
    """Without a preference attention is the running mean of the values, per head group."""
    v = random(1, 2, 5, 3)
    k = torch.ones_like(v)
    q = random(1, 4, 5, 3)
    running = v.cumsum(dim=2) / torch.arange(1, 6, dtype=torch.float64)[:, None]
    expected = torch.stack([running[0, 0], running[0, 0], running[0, 1], running[0, 1]])[None]
    ours = operators.attention(q, k, v)
    torch.testing.assert_close(ours, expected, rtol=ROUNDING, atol=ROUNDING)


def test_two_keys_are_weighted_by_the_logistic_of_their_scaled_difference():
    """softmax of two scores: sigmoid((q·k1 - q·k0)/sqrt(d)), which pins the scale."""
    q, k = random(1, 1, 2, 9), random(1, 1, 2, 9, seed=1)
    v = torch.tensor([[0.0], [1.0]], dtype=torch.float64).expand(1, 1, 2, 1)
    difference = (q[0, 0, 1] @ (k[0, 0, 1] - k[0, 0, 0])).item() / 3.0
    weight = operators.attention(q, k, v)[0, 0, 1, 0].item()
    assert weight == pytest.approx(1 / (1 + math.exp(-difference)), rel=ROUNDING)


def test_a_masked_target_reaches_neither_loss_nor_gradient():
    """Not even an ignore index, or a hidden state of infinities."""
    hidden = random(3, 4)
    hidden[1] = math.inf
    inputs = {
        "hidden": hidden,
        "targets": torch.tensor([3, -100, 6]),
        "mask": torch.tensor([True, False, True]),
    }
    weight = {"weight": random(7, 4)}
    loss = recompute("linear_cross_entropy", inputs, weight, {}, torch.float64)["loss_sum"]
    two = {"hidden": hidden[[0, 2]], "targets": torch.tensor([3, 6])}
    alone = recompute("linear_cross_entropy", two, weight, {}, torch.float64)["loss_sum"]
    assert loss.item() == pytest.approx(alone.item(), rel=ROUNDING)
    grad_in, _ = recompute_backward(
        "linear_cross_entropy", two, weight, {}, {"loss_sum": torch.ones(())}, torch.float64
    )
    assert grad_in["hidden"].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", SAMPLES)
def test_the_comparator_answers_in_its_dtype(kind, dtype):
    """Outputs and gradients come in the training dtype; only the sum of losses stays float32."""
    inputs, parameters, settings = SAMPLES[kind]
    outputs = recompute(kind, inputs, parameters, settings, dtype)
    expected = torch.float32 if kind == "linear_cross_entropy" else dtype
    assert {o.dtype for o in outputs.values()} == {expected}
    upstream = {n: torch.ones_like(o) for n, o in outputs.items()}
    gradients = recompute_backward(kind, inputs, parameters, settings, upstream, dtype)
    assert {g.dtype for group in gradients for g in group.values()} == {dtype}


ROUNDED = {
    "rmsnorm": ({"x": (64, 256)}, {"eps": 1e-6}, 1),
    "rope": ({"q": (1, 4, 512, 16), "k": (1, 2, 512, 16)}, {"theta": 1e4}, 1),
    "swiglu": ({"gate": (64, 256), "up": (64, 256)}, {}, 2),
    "residual": ({"stream": (64, 256), "branch": (64, 256)}, {}, 1),
}


@pytest.mark.parametrize("kind", ROUNDED)
def test_bfloat16_operators_round_no_more_often_than_documented(kind):
    """Each documented rounding costs at most half a unit in the last place, 2^-8 relative.

    The float32 roundings inside add 3e-7 of numbers up to 5, which is 2e-6 absolute where terms
    cancel, and one per cent of the bound elsewhere.
    """
    shapes, settings, roundings = ROUNDED[kind]
    inputs = {n: random(*shape, seed=i).bfloat16() for i, (n, shape) in enumerate(shapes.items())}
    parameters = {"weight": random(256).bfloat16()} if kind == "rmsnorm" else {}
    exact = recompute(kind, inputs, parameters, settings, torch.float64)
    rounded = recompute(kind, inputs, parameters, settings, torch.bfloat16)
    for name, value in exact.items():
        error = (rounded[name].double() - value).abs()
        assert error.max() > 0
        assert (error <= 1.01 * roundings * BF16_HALF_ULP * value.abs() + 2e-6).all(), name


def test_a_missing_gradient_counts_as_zero():
    """A record whose backward reached q only: the gradient of k is zero, not absent."""
    inputs, _, settings = SAMPLES["rope"]
    upstream = {"q": torch.ones(1, 4, 3, 6)}
    gradients, _ = recompute_backward("rope", inputs, {}, settings, upstream, torch.float64)
    assert torch.equal(gradients["k"], torch.zeros_like(inputs["k"]))
    assert gradients["q"].norm() > 0


@pytest.mark.parametrize(
    ("kind", "inputs", "parameters", "settings", "message"),
    [
        ("gelu", {}, {}, {}, "'gelu' is not one of"),
        ("rmsnorm", {"x": TARGETS}, {"weight": TARGETS}, {}, r"missing \['eps'\]"),
        ("swiglu", {"gate": TARGETS}, {}, {}, r"missing \['up'\]"),
        (
            "residual",
            {"stream": TARGETS, "branch": TARGETS},
            {"bias": TARGETS},
            {},
            r"surplus \['bias'\]",
        ),
        ("linear", {"x": TARGETS, "weight": TARGETS}, {"weight": TARGETS}, {}, "given twice"),
    ],
)
def test_a_record_that_does_not_fit_is_refused_by_name(kind, inputs, parameters, settings, message):
    """A typo in a record must not silently change what is computed."""
    with pytest.raises(OracleInputError, match=message):
        recompute(kind, inputs, parameters, settings, torch.float64)


def test_a_gradient_of_no_output_is_refused():
    """Nor is a backward without any upstream gradient."""
    inputs, parameters, settings = SAMPLES["linear"]
    for upstream in ({}, {"output": torch.ones(2, 3, 5)}):
        with pytest.raises(OracleInputError, match="returns"):
            recompute_backward("linear", inputs, parameters, settings, upstream, torch.float64)
