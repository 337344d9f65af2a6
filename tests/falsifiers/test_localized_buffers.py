"""A buffer is named by module, name and position; a right one, or a harmless one, is not."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from falsifiers.adapters.bundled import BundledSubject
from falsifiers.inputs import ragged_batch, roughen
from falsifiers.localization import session
from falsifiers.localization.buffers import buffers_of, judge_buffers
from tests.falsifiers.test_localization import CONSTANTS

HEAD, THETA, POSITIONS = 16, 10000.0, 96
ASKED = {"head_dim": HEAD, "rope_theta": THETA}
Tables = dict[str, Tensor]


def _angles(theta: float = THETA, dtype: torch.dtype = torch.float64) -> Tensor:
    pair = torch.arange(HEAD // 2, dtype=torch.float64)
    frequency = theta ** (-2 * pair / HEAD)
    return torch.outer(torch.arange(POSITIONS, dtype=dtype), frequency.to(dtype)).double()


def _tables(theta: float = THETA) -> Tables:
    angle = _angles(theta)
    return {"m.rotary.cos": angle.cos().float(), "m.rotary.sin": angle.sin().float()}


def _frequencies(theta: float = THETA) -> Tables:
    exponent = torch.arange(0, HEAD, 2).float() / HEAD
    return {"m.rotary_emb.inv_freq": 1.0 / theta**exponent}


def _twice(tables: Tables, how: Callable[[Tensor], Tensor]) -> Tables:
    return {f"{name}_cached": how(table)[None, None] for name, table in tables.items()}


def _complex(tables: Tables) -> Tables:
    return {"m.freqs_cis": torch.complex(tables["m.rotary.cos"], tables["m.rotary.sin"])}


RIGHT: dict[str, Tables] = {
    "one column a pair": _tables(),
    "two halves, as in transformers": _twice(_tables(), lambda t: torch.cat((t, t), -1)),
    "pairs side by side": _twice(_tables(), lambda t: t.repeat_interleave(2, -1)),
    "complex": _complex(_tables()),
    "frequencies": _frequencies(),
    "of no known meaning": {"m.using_sinks": torch.zeros(8, HEAD), "m.cos": torch.zeros(3)},
}


@pytest.mark.parametrize("layout", RIGHT)
def test_a_right_table_is_blamed_for_nothing(layout: str) -> None:
    """In each layout that trainers use."""
    assert judge_buffers(RIGHT[layout], ASKED, 2.0) == []


def _changed(tables: Tables, change: Callable[[Tensor], Tensor]) -> Tables:
    return {name: change(table.clone()) for name, table in tables.items()}


def _spoil(row: int, value: float) -> Callable[[Tensor], Tensor]:
    def change(table: Tensor) -> Tensor:
        table[row:] = value
        return table

    return change


def _stale(table: Tensor) -> Tensor:
    table[64:] = table[63]
    return table


WRONG: dict[str, tuple[Tables, str]] = {
    "another base": (_tables(500.0), "cos/sin: theta is 500, not 10000; .* first at position 1"),
    "a base nobody thought of": (_tables(12345.0), "theta is 12345, not 10000"),
    "another base of the frequencies": (
        _frequencies(500000.0),
        "inv_freq: theta is 500000, not 10000.*; differs from float64$",
    ),
    "cast with the model": (
        _changed(_tables(), Tensor.bfloat16),
        "cos/sin: tables in bfloat16; .* first at position 1",
    ),
    "frequencies cast with the model": (
        _changed(_frequencies(), Tensor.bfloat16),
        "inv_freq: tables in bfloat16",
    ),
    "cast and cast back": (
        _changed(_tables(), lambda t: t.half().float()),
        "tables in float16",
    ),
    "one of two": (
        {**_tables(), "m.rotary.sin": -_tables()["m.rotary.sin"]},
        "buffer sin: turned the other way; .* first at position 1",
    ),
    "never filled": (_changed(_tables(), _spoil(40, 0.0)), "zero from there on; .* position 40"),
    "not extended": (_changed(_tables(), _stale), "row repeated from there on; .* position 64"),
    "one wrong place": (
        {**_tables(), "m.rotary.cos": _spoil(95, 0.5)(_tables()["m.rotary.cos"])},
        "buffer cos: no known fault fits; .* first at position 95",
    ),
    "not numbers": (_changed(_tables(), _spoil(7, float("nan"))), "not finite; .* position 7"),
    "complex, another base": (_complex(_tables(500.0)), "freqs_cis: theta is 500, not 10000"),
    "exchanged": (
        dict(zip(_tables(), reversed(_tables().values()), strict=True)),
        "cosines and sines exchanged; .* first at position 0",
    ),
}


@pytest.mark.parametrize("fault", WRONG)
def test_a_wrong_table_is_named_with_its_fault_and_position(fault: str) -> None:
    """One finding a module, however many of its tables are wrong."""
    tables, words = WRONG[fault]
    (found,) = judge_buffers(tables, ASKED, 2.0)
    place = next(iter(tables)).rpartition(".")[0]
    assert (found.phase, found.where) == ("buffers", place)
    assert re.search(words, found.fault), found.fault
    assert ("max error" in found.sentence) is (found.times_bound < float("inf"))
    assert found.times_bound > 100.0


def test_layers_that_share_a_table_are_named_once() -> None:
    """And layers that have their own each."""
    shared = _tables(500.0)
    layers = {n.replace("m.", f"model.layers.{i}."): t for i in (0, 1) for n, t in shared.items()}
    assert [f.where for f in judge_buffers(layers, ASKED, 2.0)] == ["layers.0.rotary"]
    own = {name: table.clone() for name, table in layers.items()}
    assert len(judge_buffers(own, ASKED, 2.0)) == 2


@dataclass
class _Offering:
    tables: Tables

    def buffers(self) -> Tables:
        return self.tables


def test_buffers_are_found_in_modules_or_offered(qwen2: dict[str, Any]) -> None:
    """Through wrappers, too; a module with other parameters is another model's."""

    class Wrapper:
        def __init__(self, inner: Any) -> None:
            self.inner = inner
            self.teacher = torch.nn.BatchNorm1d(3)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.inner, name)

    instance = BundledSubject().build(qwen2, device="cpu", dtype="float32", seed=0)
    found = buffers_of(Wrapper(instance))
    assert len(found) == 2 * qwen2["num_layers"]
    assert "model.layers.0.self_attn.rope.cos" in found
    assert buffers_of(_Offering(_tables())).keys() == _tables().keys()


def _observed(config: dict[str, Any], spoil: Callable[[Tensor], Tensor]) -> dict[str, Any]:
    """What is seen of an instance whose tables are spoilt after it was built."""
    subject, observer = session.observe(BundledSubject(), CONSTANTS)
    instance = subject.build(config, device="cpu", dtype="float32", seed=0)
    roughen(instance, 0, 0.3)
    done = set()
    for name, buffer in buffers_of(instance._inner).items():
        if buffer.data_ptr() not in done and name.endswith((".cos", ".sin")):
            done.add(buffer.data_ptr())
            spoil(buffer)
    instance.loss_and_gradients(ragged_batch(config, 2, 48, 0))
    return session.account(observer)


def test_a_table_that_its_reader_shows_comes_first(llama: dict[str, Any]) -> None:
    """The buffer, then the operator that read it."""
    seen = _observed(llama, lambda table: table[20:].fill_(0.0))
    first, second = seen["findings"][:2]
    assert first["sentence"].startswith(
        "layers.0.self_attn.rope: buffer cos/sin: zero from there on; differs from float64 "
        "first at position 20 ("
    )
    assert (second["phase"], second["where"]) == ("forward", "layers.0.self_attn.rope")


def test_a_table_that_does_no_harm_is_named_only_where_nothing_else_is(
    llama: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows beyond the sequence do not explain a loss that is wrong by something else."""
    spoil = lambda table: table[48:].fill_(0.0)  # noqa: E731
    (alone,) = _observed(llama, spoil)["findings"]
    assert "first at position 48" in alone["fault"]
    from trainer.model import mlp

    monkeypatch.setattr(mlp.Gate, "forward", lambda self, gate, up: gate * up)
    seen = _observed(llama, spoil)
    assert seen["findings"][0]["where"] == "layers.0.mlp.gate"
    assert all(finding["phase"] != "buffers" for finding in seen["findings"])
    assert any("first at position 48" in note for note in seen["notes"])


def test_a_table_of_an_untraced_model_comes_first(llama: dict[str, Any]) -> None:
    """Where no operator can be watched, the logits are wrong because the table is."""
    from falsifiers.adapters.transformers_models import TransformersSubject

    def seen(cast: bool) -> list[dict[str, Any]]:
        subject, observer = session.observe(TransformersSubject(), CONSTANTS)
        instance = subject.build(llama, device="cpu", dtype="float32", seed=0)
        roughen(instance, 0, 0.3)
        if cast:
            for buffer in buffers_of(instance._inner).values():
                buffer.copy_(buffer.bfloat16())
        instance.loss_and_gradients(ragged_batch(llama, 2, 48, 0))
        found: list[dict[str, Any]] = session.account(observer)["findings"]
        return found

    assert seen(cast=False) == []
    first = seen(cast=True)[0]
    assert first["sentence"].startswith("rotary_emb: buffer inv_freq")
    assert "tables in bfloat16" in first["fault"]
