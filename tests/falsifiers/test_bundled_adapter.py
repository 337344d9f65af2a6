"""The bundled trainer behind the protocol: what it shows is what the trainer does."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from falsifiers.adapters.transformers_models import TransformersSubject
from falsifiers.errors import relative_error, worst_relative_error
from falsifiers.inputs import (
    joined,
    ragged_batch,
    random_batch,
    random_tokens,
    unequal_micro_batches,
)
from falsifiers.process_settings import nothing_reproducible
from falsifiers.reference.loss import mean_loss
from falsifiers.reference.model import logits, parameter_shapes
from falsifiers.subject import Batch, Execution, NotSupported, SubjectRefused

LAYER = (
    ("input_residual", "residual"),
    ("input_layernorm", "rmsnorm"),
    ("self_attn.q_proj", "linear"),
    ("self_attn.k_proj", "linear"),
    ("self_attn.v_proj", "linear"),
    ("self_attn.rope", "rope"),
    ("self_attn.sdpa", "attention"),
    ("self_attn.o_proj", "linear"),
    ("attention_residual", "residual"),
    ("post_attention_layernorm", "rmsnorm"),
    ("mlp.gate_proj", "linear"),
    ("mlp.up_proj", "linear"),
    ("mlp.gate", "swiglu"),
    ("mlp.down_proj", "linear"),
)
NORM = "model.norm.weight"


@pytest.fixture(params=["tiny-qwen2", "tiny-llama", "untied"])
def config(request: pytest.FixtureRequest, loaded: Any) -> Mapping[str, Any]:
    """Each shape in turn; the untied one has a head of its own."""
    if request.param == "untied":
        return {**loaded.configurations["tiny-llama"], "tie_word_embeddings": False}
    found: Mapping[str, Any] = loaded.configurations[request.param]
    return found


def state(instance: Any) -> dict[str, Any]:
    """Everything a look from outside might disturb."""
    trainer = instance._trainer
    return {
        "weights": {n: p.clone() for n, p in instance.parameters().items()},
        "gradients": [n for n, p in trainer.model.named_parameters() if p.grad is not None],
        "mode": instance.training(),
        "step": trainer.step,
        "moments": [v.clone() for s in trainer.optimizer.state.values() for v in s.values()],
        "rng": torch.get_rng_state(),
    }


def same(first: Any, second: Any) -> bool:
    """Equal all the way down, tensors bit for bit."""
    if isinstance(first, Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[k], second[k]) for k in first)
    if isinstance(first, list):
        return len(first) == len(second) and all(map(same, first, second))
    return bool(first == second)


def test_the_configuration_is_read_back(config, rough):
    """Field for field, with its device and dtype."""
    instance = rough(config, "bfloat16")
    assert instance.config == config
    assert (instance.device, instance.compute_dtype) == ("cpu", "bfloat16")


def test_parameters_go_by_their_hugging_face_names(config, rough):
    """Exactly the names and shapes that the configuration implies, float32, without gradient."""
    parameters = rough(config).parameters()
    assert {n: tuple(p.shape) for n, p in parameters.items()} == parameter_shapes(config)
    assert all(p.dtype == torch.float32 and not p.requires_grad for p in parameters.values())


def test_parameters_are_live(rough, qwen2):
    """What was handed out before a step shows the step: a copy would hide one."""
    instance = rough(qwen2)
    held = instance.parameters()
    before = held[NORM].clone()
    instance.train_step(random_batch(qwen2, 2, 8, 0), lr=1e-2)
    assert not torch.equal(held[NORM], before)


def test_set_parameters_writes_these_and_no_others(rough, qwen2):
    """Values arrive in float32, whatever they came in; all other parameters stay."""
    instance = rough(qwen2)
    before = state(instance)["weights"]
    value = torch.linspace(-1, 1, qwen2["hidden_size"], dtype=torch.float64)
    instance.set_parameters({NORM: value})
    after = instance.parameters()
    assert torch.equal(after[NORM], value.float())
    assert all(torch.equal(after[n], before[n]) for n in before if n != NORM)


def test_set_parameters_refuses_unknown_names_and_other_shapes(rough, qwen2):
    """A misspelt name is a KeyError; one number does not fill a tensor by broadcasting."""
    instance = rough(qwen2)
    before = state(instance)["weights"]
    with pytest.raises(KeyError, match="no_such"):
        instance.set_parameters({"model.no_such.weight": torch.ones(1)})
    with pytest.raises(ValueError, match=r"model\.norm\.weight: \[1\], not \[56\]"):
        instance.set_parameters({NORM: torch.ones(1)})
    assert same(before, dict(instance.parameters()))


def test_logits_are_the_oracles(config, rough):
    """The adapter hands over the trainer's logits, not a transposed or shifted relative."""
    instance = rough(config)
    tokens = random_tokens(config, 2, 24, 0)
    exact = logits(instance.parameters(), config, tokens)
    # Ten times float32 noise at three layers; any single fault is a hundred times that.
    assert relative_error(instance.logits(tokens), exact) < 2e-6


def test_losses_are_the_oracles_over_the_targets_that_count(config, rough):
    """The mask arrives wherever a batch does: training loss, evaluation and a step's metrics."""
    instance, batch = rough(config), ragged_batch(config, 3, 12, 1)
    exact = mean_loss(instance.parameters(), config, batch.tokens, batch.target_mask).item()
    every = mean_loss(instance.parameters(), config, batch.tokens).item()
    loss, _ = instance.loss_and_gradients(batch)
    losses = [loss, instance.evaluate([batch]), instance.train_step(batch).train_loss]
    # Ten times float32 noise; counting all positions must be far outside.
    assert losses == pytest.approx([exact] * 3, rel=1e-6)
    assert abs(every - exact) > 1e-4 * exact


@pytest.mark.parametrize("action", ["logits", "loss_and_gradients", "trace", "evaluate"])
def test_looking_changes_nothing(action, rough, qwen2):
    """Weights, gradients, mode, step, optimizer state and random state are what they were."""
    instance = rough(qwen2)
    instance.train_step(random_batch(qwen2, 2, 8, 0))
    batch = ragged_batch(qwen2, 3, 12, 1)
    looks = {
        "logits": lambda: instance.logits(batch.tokens),
        "loss_and_gradients": lambda: instance.loss_and_gradients(batch),
        "trace": lambda: instance.trace(batch),
        "evaluate": lambda: instance.evaluate([batch]),
    }
    before = state(instance)
    looks[action]()
    assert same(before, state(instance))


def test_a_trace_names_every_operator_in_execution_order(config, rough):
    """Embedding, fourteen a layer, the last addition, final norm, loss; no name twice.

    The first layer reads the embedding alone, and what the last one adds is added after it.
    """
    found = [(r.name, r.kind) for r in rough(config).trace(random_batch(config, 2, 8, 0))]
    layers = range(config["num_layers"])
    inside = [(f"layers.{i}.{name}", kind) for i in layers for name, kind in LAYER]
    assert found == [
        ("embed_tokens", "embedding"),
        *inside[1:],
        ("last_residual", "residual"),
        ("norm", "rmsnorm"),
        ("loss", "linear_cross_entropy"),
    ]
    assert len(found) == 14 * config["num_layers"] + 3


def test_nothing_computes_between_traced_operators(config, rough):
    """Every input is, element for element, what an earlier operator returned."""
    records = rough(config, "bfloat16").trace(ragged_batch(config, 2, 8, 0))
    returned: set[bytes] = set()

    def content(x: Tensor) -> bytes:  # heads are split and merged between operators
        return x.float().flatten().sort().values.numpy().tobytes()

    for record in records:
        given = {n: x for n, x in record.inputs.items() if x.is_floating_point()}
        unknown = [n for n, x in given.items() if content(x) not in returned]
        assert not unknown, f"{record.name}: {unknown} came from outside the trace"
        returned.update(content(x) for x in record.outputs.values())


def test_a_trace_has_a_gradient_wherever_backward_goes(config, rough):
    """Each operator has its gradients, shaped like what they belong to."""
    for record in rough(config, "bfloat16").trace(ragged_batch(config, 2, 8, 0)):
        assert record.grad_outputs.keys() == record.outputs.keys(), record.name
        floating = {n for n, x in record.inputs.items() if x.is_floating_point()}
        assert record.grad_inputs.keys() == floating, record.name
        for name, gradient in record.grad_inputs.items():
            assert gradient.shape == record.inputs[name].shape, f"{record.name}.{name}"


def test_traced_gradients_are_those_of_loss_and_gradients(config, rough):
    """Every parameter has the gradient that a step would use; a tied table's is in two shares."""
    instance, batch = rough(config), ragged_batch(config, 2, 8, 0)
    _, gradients = instance.loss_and_gradients(batch)
    head = "model.embed_tokens" if config["tie_word_embeddings"] else "lm_head"
    traced: dict[str, Tensor] = {}
    for record in instance.trace(batch):
        module = head if record.name == "loss" else f"model.{record.name}"
        for local, gradient in record.grad_parameters.items():
            name = f"{module}.{local}"
            traced[name] = traced[name] + gradient if name in traced else gradient
    assert traced.keys() == gradients.keys()
    error, where = worst_relative_error(traced, {n: gradients[n] for n in traced})
    # Hooks change the order in which autograd adds, so float32 rounding is left: 3e-6 for a k bias,
    # whose gradient nearly cancels. Another parameter's gradient is off by one.
    assert error < 3e-5, where


def test_a_table_gradient_is_split_into_its_two_shares(config, rough):
    """The embedding's share is what its output received, summed by token, tied or not."""
    record = rough(config).trace(ragged_batch(config, 2, 8, 0))[0]
    received = record.grad_outputs["out"].flatten(0, 1)
    share = torch.zeros_like(record.parameters["weight"])
    share.index_add_(0, record.inputs["tokens"].flatten(), received)
    # The share of a tied table is a difference, so float32 rounding of the sum is left in it.
    assert relative_error(record.grad_parameters["weight"], share) < 1e-5


def test_traced_parameters_and_settings_are_the_models(rough, qwen2):
    """An operator is judged with the weights it read and with the configured eps and theta."""
    instance = rough(qwen2)
    parameters = instance.parameters()
    for record in instance.trace(random_batch(qwen2, 2, 8, 0)):
        assert record.settings == {"eps": qwen2["rms_norm_eps"], "theta": qwen2["rope_theta"]}
        for local, value in record.parameters.items():
            name = "embed_tokens" if record.name == "loss" else record.name
            assert torch.equal(value, parameters[f"model.{name}.{local}"])
        if record.name.endswith(("q_proj", "k_proj", "v_proj")):
            assert record.parameters.keys() == {"weight", "bias"}


def hooks(instance: Any) -> list[str]:
    """Modules of the trainer that still have a hook."""
    trainer = instance._trainer
    modules = [*trainer.model.named_modules(), ("loss", trainer.loss)]
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return [name for name, module in modules if any(getattr(module, kind) for kind in kinds)]


def test_a_trace_leaves_no_hook_behind(rough, qwen2):
    """Not after a trace, and not after one that failed half-way."""
    instance = rough(qwen2)
    instance.trace(random_batch(qwen2, 2, 8, 0))
    assert hooks(instance) == []
    tokens = torch.full((1, 9), qwen2["vocab_size"])
    with pytest.raises(IndexError):
        instance.trace(Batch(tokens))
    assert hooks(instance) == []


def test_a_step_reports_its_own_rate_and_number(rough, qwen2):
    """The rate of the step is the one given; steps count from zero."""
    instance, batch = rough(qwen2), random_batch(qwen2, 2, 8, 0)
    first = instance.train_step(batch, lr=0.0)
    second = instance.train_step(batch)
    assert (first.step, first.lr, second.step, second.lr) == (0, 0.0, 1, 3e-4)
    assert first.train_loss == second.train_loss, "a rate of zero moves nothing"


def test_several_micro_batches_are_one_step(rough, qwen2):
    """The step counts once, its loss is over all targets, and its weights are the whole's."""
    parts, whole = rough(qwen2), rough(qwen2)
    batches = unequal_micro_batches(qwen2, 3, 16, 0)
    ours, expected = parts.train_step(batches), whole.train_step(joined(batches))
    assert (ours.step, parts.train_step(batches).step) == (0, 1)
    assert ours.train_loss == pytest.approx(expected.train_loss, rel=1e-6)


def test_execution_reaches_the_trainer(subject, qwen2):
    """Deterministic is switched on when it is asked for, and only then."""
    options = {"device": "cpu", "dtype": "float32", "seed": 0}
    with nothing_reproducible():
        subject.build(qwen2, **options)
        assert not torch.are_deterministic_algorithms_enabled()
        subject.build(qwen2, **options, execution=Execution(deterministic=True))
        assert torch.are_deterministic_algorithms_enabled()
    compiled = subject.build(qwen2, **options, execution=Execution(compiled=True))
    layers = compiled._trainer.model.model.layers
    assert all(layer._compiled_call_impl is not None for layer in layers)


def test_another_subject_refuses_what_it_does_not_have(qwen2):
    """A fast path that does not exist is not supported, and never the plain one in its place."""
    for execution in (Execution(compiled=True), Execution(deterministic=True)):
        with pytest.raises(NotSupported, match="executed eagerly"):
            TransformersSubject().build(
                qwen2, device="cpu", dtype="float32", seed=0, execution=execution
            )


def test_a_gradient_hook_replaces_the_gradient(rough, qwen2):
    """What the hook returns is what the trainer accumulates."""
    instance, batch = rough(qwen2), random_batch(qwen2, 2, 8, 0)
    instance.on_gradient(NORM, lambda gradient: gradient * 0 + 2)
    _, gradients = instance.loss_and_gradients(batch)
    assert torch.equal(gradients[NORM], torch.full_like(gradients[NORM], 2.0))


def test_refusals_carry_the_trainers_status(subject, qwen2):
    """The trainer's errors arrive as refusals, by their status and with their message."""
    with pytest.raises(SubjectRefused, match="cuda:15") as refused:
        subject.resolve_device("cuda:07")
    assert refused.value.kind == "USAGE"
    with pytest.raises(SubjectRefused, match="encoder") as refused:
        subject.build({**qwen2, "architecture": "bert"}, device="cpu", dtype="float32", seed=0)
    assert refused.value.kind == "ARCHITECTURE"


def test_a_run_hands_back_its_log(rough, qwen2, tmp_path):
    """One line a step, in order, with finite numbers."""
    batches = [random_batch(qwen2, 2, 8, seed) for seed in range(3)]
    seen: list[int] = []
    log = tmp_path / "log.jsonl"
    result = rough(qwen2).run(batches, steps=3, log=log, before_step=seen.append)
    assert (result.status, seen) == ("OK", [0, 1, 2])
    assert [line["step"] for line in result.logged] == [0, 1, 2]
    assert all(math.isfinite(line["train_loss"]) for line in result.logged)
