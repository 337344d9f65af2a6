"""Series that falsifiers record: errors stand at their tensor's depth, losses at their step."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aprverify.contract.model import Case
from falsifiers import falsify_forward_parity as parity
from falsifiers import falsify_training_run
from falsifiers.adapters.bundled import BundledSubject
from falsifiers.by_depth import by_depth
from falsifiers.errors import worst_of
from falsifiers.run_directory import Checkpoint, Epoch, RunRecord

PARITY = {
    "device": "cpu", "arch": "tiny-qwen2", "batch": 2, "length": 16, "roughness": 0.3, "seed": 0,
}  # fmt: skip


class Recorded:
    """What a falsifier said, kept."""

    def __init__(self) -> None:
        self.measures: dict[str, Any] = {}
        self.points: dict[str, list[tuple[Any, Any]]] = {}
        self.claims: dict[str, str | None] = {}

    def measured(self, **measures: Any) -> None:
        """In place of the plugin's."""
        self.measures = measures

    def series(self, name: str, points: Any, *, claim: str | None = None, **axes: str) -> None:
        """In place of the plugin's."""
        assert axes["x"] and axes["y"] and not self.measures
        self.points[name], self.claims[name] = list(points), claim


def test_an_error_stands_at_the_depth_of_its_layer():
    """The embedding first, layers from 1, and the head after the last of them."""
    errors = {
        "lm_head": 5.0, "model.layers.1.mlp.gate_proj.weight": 3.0, "embed_tokens.out": 1.0,
        "layers.0.self_attn.rope.q": 2.0, "model.norm.weight": 4.0, "layers.1.input_layernorm": 6.0,
    }  # fmt: skip
    assert by_depth(errors.items(), 2) == [(0, 1.0), (1, 2.0), (2, 6.0), (3, 5.0)]


def test_a_layer_has_its_largest_error_and_none_without_one():
    """The largest whatever comes after it; a depth that nothing was measured at is left out."""
    errors = [("layers.11.a.x", 0.5), ("layers.11.b.x", 0.0), ("layers.1.a.x", 0.0)]
    assert by_depth(errors, 24) == [(2, 0.0), (12, 0.5)]


@pytest.mark.parametrize("order", [1, -1])
def test_nan_is_larger_than_any_error_of_its_layer(order):
    """Wherever it comes."""
    errors = [("layers.0.a.x", math.nan), ("layers.0.b.x", math.inf)][::order]
    ((depth, error),) = by_depth(errors, 1)
    assert depth == 1 and math.isnan(error)


def test_the_worst_of_errors_is_the_first_nan_or_the_largest():
    """A NaN that comes later than a large error still is what there is to see."""
    assert worst_of([("a", 1.0), ("b", 3.0), ("c", 3.0), ("d", 2.0)]) == (3.0, "b")
    error, name = worst_of([("a", math.inf), ("b", math.nan), ("c", math.nan)])
    assert math.isnan(error) and name == "b"
    assert worst_of([("a", 0.0)]) == (0.0, "")


@pytest.mark.parametrize(
    ("falsifier", "dtype", "judged"),
    [
        (
            parity.falsify_operators_match_float64,
            "bfloat16",
            {
                "forward": "forward_ratio",
                "gain": "gain_ratio",
                "backward": "backward_ratio",
                "attention-backward": "attention_backward_ratio",
            },
        ),
        (parity.falsify_float32_matches_float64, "float32", {"gradients": "gradient_error"}),
    ],
)
def test_parity_by_depth_has_every_layer_and_the_error_that_is_judged(
    falsifier: Callable[..., None], dtype: str, judged: dict[str, str], qwen2: Any
) -> None:
    """Its largest value is what the claim of its name compares."""
    found = Recorded()
    case = Case("c", "full", {**PARITY, "dtype": dtype}, ())
    falsifier(BundledSubject(), case, found.measured, found.series, qwen2)
    layers = qwen2["num_layers"]
    assert found.claims == {claim: claim for claim in judged}
    for claim, measure in judged.items():
        depths, errors = zip(*found.points[claim], strict=True)
        inner = claim == "attention-backward"
        assert list(depths) == list(range(1, layers + 1) if inner else range(layers + 2))
        assert max(errors) == found.measures[measure] > 0


def test_losses_of_a_run_stand_at_their_steps(tmp_path: Path, monkeypatch: Any, qwen2: Any) -> None:
    """Of each step, and held out where the epoch's checkpoint says that it ended."""
    losses = [4.0, 3.0, 2.0, 1.0]
    lines = [{"step": i, "train_loss": loss, "grad_norm": 1.0} for i, loss in enumerate(losses)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    sizes = ("micro_batch_size", "accumulation", "seq_length", "world_size")
    (tmp_path / "run.json").write_text(json.dumps({"identity": dict.fromkeys(sizes, 1)}))
    run = RunRecord(tmp_path)
    metadata = {
        "train_loss": 1.0, "val_loss": 0.5, "train_ppl": 1.0, "val_ppl": 1.0, "grad_norm_max": 1.0,
        "tokens_seen": 2,
    }  # fmt: skip
    run.epochs = [
        Epoch(
            number, {**metadata, "val_loss": held_out}, tmp_path,
            Checkpoint("", training={"step": step, "tokens_seen": step, "history": []}),
        )
        for number, (step, held_out) in enumerate([(2, 3.5), (4, 2.5)])
    ]  # fmt: skip
    monkeypatch.setattr(falsify_training_run, "run_under_test", lambda *_: run)
    found = Recorded()
    case = Case("c", "full", {"device": "cpu", "run": "learning"}, ())
    falsify_training_run.falsify_epoch_numbers_follow_from_the_log(
        BundledSubject(), case, found.measured, found.series, qwen2, lambda _: tmp_path
    )
    assert found.points == {
        "training": list(zip(range(1, 5), losses, strict=True)),
        "held out": [(2, 3.5), (4, 2.5)],
    }
    assert set(found.claims.values()) == {None}
