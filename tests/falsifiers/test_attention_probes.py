"""Weights read out of attention's outputs, and the sizes that its gradients are judged by."""

from __future__ import annotations

import math

import pytest
import torch

from aprverify.contract.model import Case
from falsifiers.adapters.bundled import BundledSubject
from falsifiers.attention_probes import (
    Heads,
    attention_rows,
    gradient_errors,
    gradient_sizes,
    kernel_errors,
    operators_of,
    outputs_and_gradients,
    random_heads,
)
from falsifiers.subject import NotSupported

CASE = {
    "device": "cpu",
    "dtype": "float32",
    "path": "eager",
    "heads": 6,
    "kv_heads": 2,
    "head_dim": 8,
    "length": 21,
    "sharpness": 2.0,
    "seed": 0,
}


def _case(**changes: object) -> Case:
    return Case("", "reduced", {**CASE, **changes}, ())  # type: ignore[arg-type]


@pytest.mark.parametrize("length", [1, 7, 8, 21])
def test_rows_are_the_softmax_of_scaled_products(subject: BundledSubject, length: int) -> None:
    """One-hot values give the weights, whether the length fits into the head size or not."""
    heads = random_heads(_case(length=length))
    keys = heads.k.double().repeat_interleave(3, dim=1)
    scores = (heads.q.double() @ keys.transpose(-1, -2) / math.sqrt(8))[0]
    future = torch.ones(length, length, dtype=torch.bool).triu(diagonal=1)
    expected = scores.masked_fill(future, -math.inf).softmax(-1)
    rows = attention_rows(subject.operators(), heads.q, heads.k)
    assert rows.shape == (6, length, length)
    assert torch.allclose(rows, expected, atol=1e-6)


def test_gradients_are_never_larger_than_their_size(subject: BundledSubject) -> None:
    """The size is what is left when nothing cancels, so it bounds every gradient."""
    heads = random_heads(_case())
    _, gradients = outputs_and_gradients(
        subject.operators(), heads.q, heads.k, heads.v, heads.grad_out
    )
    sizes = gradient_sizes(heads)
    assert all(0.01 * sizes[n] < float(g.norm()) <= sizes[n] for n, g in gradients.items())


def test_one_token_has_a_size_though_its_gradient_is_zero() -> None:
    """So an error in it is a number, and not a division by zero."""
    heads = random_heads(_case(length=1))
    exact = {n: torch.zeros_like(getattr(heads, n), dtype=torch.float64) for n in "qkv"}
    errors = gradient_errors(heads, {**exact, "q": exact["q"] + 1.0}, exact)
    assert math.isfinite(errors["q"]) and errors["q"] > 0.01
    assert errors["k"] == errors["v"] == 0.0


def test_a_lost_gradient_is_nan_or_large_never_small(subject: BundledSubject) -> None:
    """Neither zeros nor NaN in place of a gradient pass for one."""
    heads = random_heads(_case())
    _, clean = outputs_and_gradients(subject.operators(), heads.q, heads.k, heads.v, heads.grad_out)
    exact = {n: g.double() for n, g in clean.items()}
    spoiled = {"q": clean["q"] * 0.0, "k": clean["k"] * math.nan, "v": clean["v"]}
    errors = gradient_errors(heads, spoiled, exact)
    assert errors["q"] > 0.01 and math.isnan(errors["k"]) and errors["v"] == 0.0


def test_the_yardstick_grows_with_the_dtype() -> None:
    """Plain torch errs by the rounding of the dtype, in each of the four tensors."""
    narrow = random_heads(_case(dtype="bfloat16"))
    wide = Heads(*(x.float() for x in (narrow.q, narrow.k, narrow.v, narrow.grad_out)))
    fine, coarse = kernel_errors(wide), kernel_errors(narrow)
    assert fine.keys() == coarse.keys() == {"out", "q", "k", "v"}
    assert all(coarse[name] > 1000 * fine[name] > 0.0 for name in fine)


def test_fixed_order_asks_for_the_compiled_operator(subject: BundledSubject) -> None:
    """A case that names it never tries the eager one in its place."""
    heads = random_heads(_case())
    operators = operators_of(subject, _case(path="fixed-order"))
    with pytest.raises(NotSupported):
        operators.attention(heads.q, heads.k, heads.v)
