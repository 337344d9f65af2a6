"""The judge of traces: perfect operators pass, one wrong operator is found and named."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from falsifiers.inputs import ragged_batch
from falsifiers.operator_parity import compare_trace, trace_dtypes
from falsifiers.reference.operators import recompute, recompute_backward
from falsifiers.subject import Batch, OperatorRecord

KINDS = (
    "embedding",
    "linear",
    "rmsnorm",
    "rope",
    "attention",
    "swiglu",
    "residual",
    "linear_cross_entropy",
)
PARAMETRIC = ("embedding", "linear", "rmsnorm", "linear_cross_entropy")
FAULT = 1.05
"""Far above bfloat16 rounding (0.4 %), whose own ratio is near one, and far below obvious."""
EAGER_FACTOR = 2.0
"""What the contract allows; here only to tell a fault from noise."""

Records = Sequence[OperatorRecord]


@pytest.fixture(scope="module")
def records(qwen2: Mapping[str, Any], rough: Callable[..., Any]) -> Records:
    """A clean trace in bfloat16, ragged targets, biases at work."""
    return tuple(rough(qwen2, "bfloat16").trace(ragged_batch(qwen2, 2, 32, 5)))


def rebuilt(record: OperatorRecord, dtype: torch.dtype, stored: torch.dtype) -> OperatorRecord:
    """The record with everything the operator made recomputed in `dtype`, rounded to `stored`.

    A loss, the one scalar, is kept as it was computed, as every trainer keeps it.
    """
    arguments = (record.kind, record.inputs, record.parameters, record.settings)

    def rounded(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: x.to(stored) if x.ndim else x for name, x in tensors.items()}

    made = replace(record, outputs=rounded(recompute(*arguments, dtype)))
    if not record.grad_outputs:
        return made
    inputs, parameters = recompute_backward(*arguments, record.grad_outputs, dtype)
    own = {name: value for name, value in parameters.items() if name in record.grad_parameters}
    return replace(made, grad_inputs=rounded(inputs), grad_parameters=rounded(own))


def spoiled(
    records: Records, kind: str, part: str, change: Callable[[Tensor], Tensor]
) -> tuple[Records, str]:
    """One record of a kind, from the middle, with one tensor of `part` changed; and its name."""
    index = [i for i, record in enumerate(records) if record.kind == kind]
    chosen = index[len(index) // 2]
    tensors = dict(getattr(records[chosen], part))
    name = sorted(tensors)[-1]
    tensors[name] = change(tensors[name].double())
    result = list(records)
    result[chosen] = replace(records[chosen], **{part: tensors})
    return result, f"{records[chosen].name}.{name}"


def test_the_trace_holds_every_kind(records):
    """Otherwise the tests below would be of fewer operators than they say."""
    assert {record.kind for record in records} == set(KINDS)


def test_exact_operators_have_ratio_zero(records):
    """Against itself float64 is not wrong at all, forward, backward or on average."""
    verdict = compare_trace([rebuilt(r, torch.float64, torch.float64) for r in records], "bfloat16")
    parts = (verdict.forward, verdict.backward, verdict.attention_backward, verdict.gain)
    assert [part.ratio for part in parts] == [0.0] * 4


def test_correctly_rounded_operators_have_ratio_one_or_less(records):
    """No bfloat16 tensor is nearer to the exact one than its rounding, so none beats it."""
    best = [rebuilt(r, torch.float64, torch.bfloat16) for r in records]
    verdict = compare_trace(best, "bfloat16")
    for part in (verdict.forward, verdict.backward, verdict.attention_backward):
        assert 0.0 < part.ratio <= 1.0, part


def test_plain_eager_torch_has_ratio_one(records):
    """The yardstick measured with itself is one exactly, but for floors, which are below."""
    verdict = compare_trace(
        [rebuilt(r, torch.bfloat16, torch.bfloat16) for r in records], "bfloat16"
    )
    for part in (verdict.forward, verdict.backward, verdict.gain):
        assert part.ratio == 1.0, part
    assert 0.0 < verdict.attention_backward.ratio <= 1.0


def test_a_clean_trace_is_counted_whole(records, qwen2):
    """14 operators a layer, embedding, final norm and loss, each forward and backward."""
    verdict = compare_trace(records, "bfloat16")
    assert verdict.operators == 14 * qwen2["num_layers"] + 3
    assert verdict.backward_operators == verdict.operators


def test_a_record_without_backward_is_not_counted_as_one(records):
    """A gradient hook that never fired shows in the count."""
    index = next(i for i, record in enumerate(records) if record.kind == "swiglu")
    silent = replace(records[index], grad_outputs={}, grad_inputs={})
    verdict = compare_trace([*records[:index], silent, *records[index + 1 :]], "bfloat16")
    assert verdict.backward_operators == len(records) - 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_wrong_output_of_one_operator_is_the_worst(kind, records):
    """5 % in one operator's output is far out of bound, and that operator is named."""
    trace, name = spoiled(records, kind, "outputs", lambda x: x * FAULT)
    verdict = compare_trace(trace, "bfloat16")
    assert verdict.forward.name == name
    assert verdict.forward.ratio > EAGER_FACTOR
    clean = compare_trace(records, "bfloat16")
    assert (verdict.backward, verdict.attention_backward) == (
        clean.backward,
        clean.attention_backward,
    )


@pytest.mark.parametrize("kind", [k for k in KINDS if k not in ("embedding", "attention")])
def test_a_wrong_gradient_of_an_input_is_the_worst(kind, records):
    """5 % in the gradient that one operator passes on is found there and nowhere else."""
    trace, name = spoiled(records, kind, "grad_inputs", lambda x: x * FAULT)
    verdict = compare_trace(trace, "bfloat16")
    assert verdict.backward.name == f"{name}.grad"
    assert verdict.backward.ratio > EAGER_FACTOR
    assert verdict.forward == compare_trace(records, "bfloat16").forward


def test_a_wrong_gradient_of_attention_is_the_worst_there(records):
    """Attention's backward is judged apart: both yardsticks must reject it."""
    trace, name = spoiled(records, "attention", "grad_inputs", lambda x: x * FAULT)
    verdict = compare_trace(trace, "bfloat16")
    assert verdict.attention_backward.name == f"{name}.grad"
    assert verdict.attention_backward.ratio > EAGER_FACTOR
    assert verdict.backward == compare_trace(records, "bfloat16").backward


@pytest.mark.parametrize("kind", PARAMETRIC)
def test_a_wrong_gradient_of_a_parameter_is_the_worst(kind, records):
    """5 % in one weight's gradient is found though every activation's is right."""
    trace, name = spoiled(records, kind, "grad_parameters", lambda x: x * FAULT)
    verdict = compare_trace(trace, "bfloat16")
    assert verdict.backward.name == f"{name}.grad"
    assert verdict.backward.ratio > EAGER_FACTOR


def test_a_factor_below_rounding_shows_in_the_gain(records):
    """0.2 % on every row hides in bfloat16's rounding element by element, not on average."""
    best = [rebuilt(r, torch.float64, torch.bfloat16) for r in records]
    trace, name = spoiled(best, "rmsnorm", "outputs", lambda x: x * 1.002)
    verdict = compare_trace(trace, "bfloat16")
    assert verdict.forward.ratio <= EAGER_FACTOR
    assert verdict.gain.name == name
    assert verdict.gain.ratio > EAGER_FACTOR


def with_nan(x: Tensor) -> Tensor:
    x = x.clone(memory_format=torch.contiguous_format)
    x.view(-1)[0] = math.nan
    return x


@pytest.mark.parametrize("kind", KINDS)
def test_a_nan_in_an_output_is_nan(kind, records):
    """One NaN gives NaN under that operator's name, whatever comes after it."""
    trace, name = spoiled(records, kind, "outputs", with_nan)
    forward = compare_trace(trace, "bfloat16").forward
    assert math.isnan(forward.ratio) and forward.name == name


def test_the_first_of_two_nans_is_named(records):
    """Where it began is the cause; a later one is often only what it did."""
    trace, name = spoiled(records, "embedding", "outputs", with_nan)
    trace, _ = spoiled(trace, "linear_cross_entropy", "outputs", with_nan)
    assert compare_trace(trace, "bfloat16").forward.name == name


@pytest.mark.parametrize("kind", [k for k in KINDS if k != "embedding"])
def test_a_nan_in_a_gradient_is_nan(kind, records):
    """The same backward, under either yardstick of attention."""
    trace, name = spoiled(records, kind, "grad_inputs", with_nan)
    verdict = compare_trace(trace, "bfloat16")
    part = verdict.attention_backward if kind == "attention" else verdict.backward
    assert math.isnan(part.ratio) and part.name == f"{name}.grad"


@pytest.mark.parametrize("kind", [k for k in KINDS if k != "embedding"])
def test_a_gradient_that_was_not_traced_is_no_pass(kind, records):
    """Leaving out the gradient of an input counts as NaN, not as nothing to compare."""
    index = next(i for i, record in enumerate(records) if record.kind == kind)
    bare = replace(records[index], grad_inputs={})
    verdict = compare_trace([*records[:index], bare, *records[index + 1 :]], "bfloat16")
    part = verdict.attention_backward if kind == "attention" else verdict.backward
    assert math.isnan(part.ratio) and part.name.startswith(f"{records[index].name}.")


@pytest.mark.parametrize("kind", PARAMETRIC)
def test_a_parameter_gradient_that_was_not_traced_is_no_pass(kind, records):
    """Leaving out the gradient of a weight counts as NaN, a tied table's share included."""
    index = next(i for i, record in enumerate(records) if record.kind == kind)
    bare = replace(records[index], grad_parameters={})
    verdict = compare_trace([*records[:index], bare, *records[index + 1 :]], "bfloat16")
    assert math.isnan(verdict.backward.ratio)


def test_an_output_of_another_shape_is_infinitely_wrong(records):
    """One row does not stand for a batch."""
    trace, name = spoiled(records, "residual", "outputs", lambda x: x[:1])
    forward = compare_trace([r for r in trace if r.kind == "residual"], "bfloat16").forward
    assert (forward.ratio, forward.name) == (math.inf, name)


def test_a_table_gradient_without_repeated_tokens_has_a_yardstick(qwen2, rough):
    """Where each token occurs once, plain torch is exact: one rounding of ours is no fault."""
    tokens = torch.arange(18).view(2, 9)
    record = rough(qwen2, "bfloat16").trace(Batch(tokens))[0]
    rounded = rebuilt(record, torch.float64, torch.bfloat16)
    off = replace(rounded, grad_parameters={"weight": rounded.grad_parameters["weight"] * 1.002})
    assert compare_trace([rounded], "bfloat16").backward.ratio == 0.0
    assert 0.0 < compare_trace([off], "bfloat16").backward.ratio < 1.0


def test_dtypes_of_a_trace_are_those_of_its_activations(records):
    """A clean trace has one; the float32 loss, integer tokens and masks are not counted."""
    assert trace_dtypes(records) == "bfloat16"


@pytest.mark.parametrize("part", ["inputs", "outputs"])
def test_one_activation_of_another_dtype_shows(part, records):
    """One projection run in float32 is enough, seen by what it was given or by what it made."""
    index = next(i for i, record in enumerate(records) if record.kind == "linear")
    wide = {name: x.float() for name, x in getattr(records[index], part).items()}
    trace = [*records[:index], replace(records[index], **{part: wide}), *records[index + 1 :]]
    assert trace_dtypes(trace) == "bfloat16,float32"
