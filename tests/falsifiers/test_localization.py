"""Localizing names the operator or quantity that is at fault, and nothing where nothing is."""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from aprverify.planting import load_defects, planted
from falsifiers.adapters.bundled import BundledSubject
from falsifiers.inputs import ragged_batch, roughen
from falsifiers.localization import session
from falsifiers.localization.findings import Bounds, Look
from falsifiers.localization.initial import judge_parameters
from falsifiers.localization.observer import ObservedInstance, ObservedSubject
from falsifiers.localization.run_pair import compare_runs
from falsifiers.localization.trace import judge_trace
from falsifiers.subject import Batch, Instance, OperatorRecord, Subject
from falsifiers.suite import SUITE

BOUNDS = Bounds(eager=2.0, attention=8.0, gain=1.4)
CONSTANTS = {
    "eager_factor": 2.0, "attention_factor": 8.0, "gain_factor": 1.4,
    "beta1": 0.9, "beta2": 0.95, "eps": 1e-8, "decay": 0.1, "clip": 1.0,
}  # fmt: skip
Traced = tuple[list[OperatorRecord], Batch, dict[str, torch.Tensor]]


@pytest.mark.parametrize(
    ("watched", "protocol"), [(ObservedInstance, Instance), (ObservedSubject, Subject)]
)
def test_what_is_watched_takes_what_the_protocol_takes(watched: type, protocol: type) -> None:
    """An argument that the protocol gained and a watcher did not would break what it watches."""
    shared = [n for n, m in vars(watched).items() if n in vars(protocol) and inspect.isfunction(m)]
    own = [name for name in shared if not name.startswith("_")]
    assert len(own) >= 5
    for name in own:
        asked = inspect.signature(getattr(protocol, name)).parameters.values()
        given = inspect.signature(getattr(watched, name))
        places = [p.name for p in asked if p.kind is p.POSITIONAL_OR_KEYWORD]
        named = {p.name: None for p in asked if p.kind is p.KEYWORD_ONLY}
        given.bind(*places, **named)


def _traced(config: dict[str, Any], dtype: str, seed: int = 0, length: int = 48) -> Traced:
    instance = BundledSubject().build(config, device="cpu", dtype=dtype, seed=seed)
    roughen(instance, seed, 0.3)
    batch = ragged_batch(config, 2, length, seed)
    return list(instance.trace(batch)), batch, dict(instance.parameters())


def _judged(config: dict[str, Any], dtype: str, traced: Traced) -> Look:
    records, batch, parameters = traced
    return judge_trace(records, batch, config, dtype, parameters, BOUNDS)


def _spoiled(traced: Traced, name: str, change: Callable[[OperatorRecord], Any]) -> Traced:
    records, *rest = traced
    index = next(i for i, record in enumerate(records) if record.name == name)
    changed = [*records]
    changed[index] = replace(records[index], **change(records[index]))
    return changed, *rest  # type: ignore[return-value]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("seed", range(3))
def test_a_clean_model_is_blamed_for_nothing(
    qwen2: dict[str, Any], llama: dict[str, Any], dtype: str, seed: int
) -> None:
    """Every operator was judged, forward and backward, and none left its bound."""
    for config in (qwen2, llama):
        look = _judged(config, dtype, _traced(config, dtype, seed))
        assert look.findings == []
        assert len(look.points) == 2 * (14 * config["num_layers"] + 3)


def test_an_operator_is_not_blamed_for_what_it_was_handed(qwen2: dict[str, Any]) -> None:
    """A bias dropped in the first layer changes every later tensor, and only it is named."""
    with planted(SUITE, load_defects(SUITE)["drop-q-bias-all"], BundledSubject(), Path()) as plant:
        instance = plant.subject.build(qwen2, device="cpu", dtype="float32", seed=0)
        roughen(instance, 0, 0.3)
        batch = ragged_batch(qwen2, 2, 48, 0)
        traced = list(instance.trace(batch)), batch, dict(instance.parameters())
        look = _judged(qwen2, "float32", traced)
    named = {finding.where for finding in look.findings}
    assert named == {f"layers.{i}.self_attn.q_proj" for i in range(3)}
    assert look.findings[0].sentence.startswith("layers.0.self_attn.q_proj: bias not added (out:")


SPOILT: dict[str, tuple[str, Callable[[OperatorRecord], Any], str]] = {
    "weights of another layer": (
        "layers.1.mlp.up_proj",
        lambda r: {"outputs": {"out": r.inputs["x"] @ r.settings["other"].T}},
        "weight of layers.2.mlp.up_proj.weight",
    ),
    "heads permuted": (
        "layers.1.self_attn.sdpa",
        lambda r: {"outputs": {"out": r.outputs["out"].roll(1, 1)}},
        "heads permuted",
    ),
    "one head zero": (
        "layers.2.self_attn.sdpa",
        lambda r: {"outputs": {"out": r.outputs["out"].index_fill(1, torch.tensor([3]), 0.0)}},
        "zero at head 3",
    ),
    "branch not added": (
        "layers.0.attention_residual",
        lambda r: {"outputs": {"out": r.inputs["stream"]}},
        "branch not added",
    ),
    "unscaled": (
        "layers.2.self_attn.sdpa",
        lambda r: {"outputs": {"out": _unscaled(**r.inputs)}},
        "unscaled",
    ),
    "not finite": (
        "layers.0.mlp.gate",
        lambda r: {"outputs": {"out": r.outputs["out"] * math.nan}},
        "not finite",
    ),
}


def _unscaled(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.scaled_dot_product_attention(
        q, k, v, is_causal=True, enable_gqa=True, scale=1.0
    )


@pytest.mark.parametrize("fault", SPOILT)
def test_a_known_fault_is_told_in_words(qwen2: dict[str, Any], fault: str) -> None:
    """By the alternative of the same operator that fits within the bound."""
    name, change, words = SPOILT[fault]
    traced = _traced(qwen2, "float32")
    if fault == "weights of another layer":
        other = traced[2]["model.layers.2.mlp.up_proj.weight"]
        traced = _spoiled(traced, name, lambda r: {"settings": {"other": other}})
    found = _judged(qwen2, "float32", _spoiled(traced, name, change)).findings
    own = [finding for finding in found if "is not given what" not in finding.fault]
    assert (own[0].where, words in own[0].fault) == (name, True), own[0].sentence


def test_what_nothing_explains_is_said_to_be_unknown(qwen2: dict[str, Any]) -> None:
    """No name is made up, and where the error stands is told."""
    noise = torch.zeros(2, 48, qwen2["hidden_size"])
    noise[:, 40:] = torch.randn(
        2, 8, qwen2["hidden_size"], generator=torch.Generator().manual_seed(0)
    )
    change = lambda r: {"outputs": {"out": r.outputs["out"] + noise}}  # noqa: E731
    spoilt = _spoiled(_traced(qwen2, "float32"), "layers.1.mlp.down_proj", change)
    first = _judged(qwen2, "float32", spoilt).findings[0]
    assert first.where == "layers.1.mlp.down_proj"
    assert first.fault == "no known fault fits; wrong only at position 40–47"


def test_a_connection_is_blamed_and_not_the_operators_beside_it(qwen2: dict[str, Any]) -> None:
    """An operator that is right on inputs that nobody made for it."""
    change = lambda r: {"inputs": {"x": r.inputs["x"].roll(1, 1)}}  # noqa: E731
    spoilt = _spoiled(_traced(qwen2, "float32"), "layers.1.self_attn.q_proj", change)
    first = _judged(qwen2, "float32", spoilt).findings[0]
    assert first.where == "layers.1.self_attn.q_proj"
    assert "is not given what layers.1.input_layernorm made: shifted one place later" in first.fault


def test_a_gradient_that_is_not_there_is_a_finding(llama: dict[str, Any]) -> None:
    """Leaving a gradient out must not be a pass."""
    change = lambda r: {"grad_inputs": {}}  # noqa: E731
    spoilt = _spoiled(_traced(llama, "float32"), "layers.2.mlp.gate_proj", change)
    found = _judged(llama, "float32", spoilt).findings
    assert ("layers.2.mlp.gate_proj", "no gradient of x") in [(f.where, f.fault) for f in found]


STEPS = {
    "clean": ("", ""),
    "clip-by-square": ("clipping", "divided by the squared norm"),
    "clip-missing": ("clipping", "not clipped"),
    "beta2-999": ("optimizer", "beta2 is 0.999, not 0.95"),
    "decay-on-norms": ("weights", "weight decay on norms and biases too"),
    "norm-after-clipping": ("gradient norm", "after clipping"),
    "lm-head-norm": ("clipping", "factor "),
    "ascent": ("clipping", "update reversed"),
    "decay-dropped": ("weights", "weight decay left out"),
}


@pytest.mark.parametrize("defect", STEPS)
def test_the_first_wrong_quantity_of_a_step_is_named(llama: dict[str, Any], defect: str) -> None:
    """Forward, gradient, clipping, rate, moments and weights, each held against those before it."""

    def stepped(subject: Any) -> list[dict[str, Any]]:
        watched, observer = session.observe(subject, CONSTANTS)
        instance = watched.build(llama, device="cpu", dtype="float32", seed=0)
        roughen(instance, 0, 1.0)
        for seed in range(2):
            instance.train_step(ragged_batch(llama, 2, 16, seed), lr=1e-3)
        found: list[dict[str, Any]] = session.account(observer)["findings"]
        assert not observer.notes
        return found

    quantity, words = STEPS[defect]
    if defect == "clean":
        assert stepped(BundledSubject()) == []
        return
    with planted(SUITE, load_defects(SUITE)[defect], BundledSubject(), Path()) as plant:
        first = stepped(plant.subject)[0]
    assert (first["phase"], words in first["fault"]) == (quantity, True), first["sentence"]


def test_a_parameter_that_is_not_the_files_is_named() -> None:
    """With what it holds instead."""
    a, b = torch.arange(6.0).reshape(2, 3), torch.arange(6.0, 12.0).reshape(2, 3)
    right = {"model.a": a, "model.b": b}
    assert judge_parameters(right, right, "file").findings == []
    (found,) = judge_parameters({"model.a": b, "model.b": b}, right, "file").findings
    assert (found.where, found.fault) == ("a", "holds model.b instead")
    (found,) = judge_parameters({"model.a": a}, right, "file").findings
    assert (found.where, found.fault) == ("b", "is in the file and not in the model")


def run_folder(root: Path, **changed: Any) -> Path:
    root.mkdir()
    lines = [
        {"step": i, "lr": 1e-3, "train_loss": 7.0 - 0.1 * i, "grad_norm": 1.0 + 0.1 * i}
        for i in range(5)
    ]
    if changed:
        for line in lines[3:]:
            line.update({k: v for k, v in changed.items() if k != "seed"})
    (root / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    identity = {"seed": changed.get("seed", 0), "dataset_sha256": "ab"}
    (root / "run.json").write_text(json.dumps({"identity": identity}))
    return root


@pytest.mark.parametrize(
    ("changed", "where", "tensor"),
    [
        ({"lr": 2e-3}, "step 3, schedule", "lr"),
        ({"train_loss": 1.0}, "step 3, optimizer", "train_loss"),
        ({"grad_norm": 9.0}, "step 3, backward", "grad_norm"),
        ({"seed": 1}, "run.json, seed", "seed"),
    ],
)
def test_two_runs_part_at_a_step_and_a_quantity(
    tmp_path: Path, changed: dict[str, Any], where: str, tensor: str
) -> None:
    """Runs that agree part nowhere."""
    one, same = run_folder(tmp_path / "a"), run_folder(tmp_path / "b")
    assert compare_runs(one, same).findings == []
    other = run_folder(tmp_path / "c", **changed)
    first = compare_runs(one, other).findings[0]
    assert (first.where, first.tensor) == (where, tensor)
