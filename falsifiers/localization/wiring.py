"""What each operator of a decoder should have been given: the outputs of those before it.

Operators answer for their own error; here the connections do. They are known by the order of kinds,
so names are the subject's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from falsifiers.localization.findings import Bounds, Finding, Look, misfit
from falsifiers.localization.shapes_of_error import guesses
from falsifiers.subject import Batch, OperatorRecord

_ATTENTION = ("rmsnorm", *3 * ("linear",), "rope", "attention", "linear", "residual")
_FEED_FORWARD = ("rmsnorm", "linear", "linear", "swiglu", "linear", "residual")
_LAYER = [*_ATTENTION, *_FEED_FORWARD]
_SIZE = len(_LAYER)


@dataclass(frozen=True)
class Link:
    """An input of one operator, and what should be there.

    Attributes:
        consumer: index of the record that reads it.
        name: of the input.
        producer: index of the record that made it.
        output: which of its outputs.
        change: how its layout changes on the way.
        back: the same for a gradient on its way back.
    """

    consumer: int
    name: str
    producer: int
    output: str = "out"
    change: str = ""


def kinds(layers: int) -> list[str]:
    """The kinds of all operators of a decoder in order."""
    return ["embedding", *_LAYER * layers, "rmsnorm", "linear_cross_entropy"]


def links(layers: int) -> Iterator[Link]:
    """Every connection, by index of record."""
    stream, branch = 0, -1
    for layer in range(layers):
        n = 1 + _SIZE * layer  # the first norm
        yield Link(n, "x", stream)
        for i in (1, 2, 3):
            yield Link(n + i, "x", n)
        yield Link(n + 4, "q", n + 1, change="heads")
        yield Link(n + 4, "k", n + 2, change="heads")
        yield Link(n + 5, "q", n + 4, "q")
        yield Link(n + 5, "k", n + 4, "k")
        yield Link(n + 5, "v", n + 3, change="heads")
        yield Link(n + 6, "x", n + 5, change="joined")
        yield Link(n + 7, "stream", stream)
        yield Link(n + 7, "branch", n + 6)
        yield Link(n + 8, "x", n + 7)
        yield Link(n + 9, "x", n + 8)
        yield Link(n + 10, "x", n + 8)
        yield Link(n + 11, "gate", n + 9)
        yield Link(n + 11, "up", n + 10)
        yield Link(n + 12, "x", n + 11)
        yield Link(n + 13, "stream", n + 7)
        branch = n + 12
        yield Link(n + 13, "branch", branch)
        stream = n + 13
    yield Link(stream + 1, "x", stream)
    yield Link(stream + 2, "hidden", stream + 1)


def misordered(records: Sequence[OperatorRecord], layers: int) -> str:
    """Where the operators are not those of a decoder of so many layers; empty if they are."""
    expected = kinds(layers)
    for index, (record, kind) in enumerate(zip(records, expected, strict=False)):
        if record.kind != kind:
            return f"operator {index} is {record.name}, a {record.kind}; a {kind} stands there"
    if len(records) != len(expected):
        return f"{len(records)} operators ran, {len(expected)} make a decoder of {layers} layers"
    return ""


def forward_links(
    records: Sequence[OperatorRecord], layers: int, batch: Batch, bounds: Bounds
) -> dict[int, Look]:
    """By the index of who reads it, each input that is not what the operator before it made."""
    looks: dict[int, Look] = {}
    for index, end in _ends(records, batch):
        looks.setdefault(index, Look()).findings.append(end)
    for link in links(layers):
        consumer, producer = records[link.consumer], records[link.producer]
        given = consumer.inputs[link.name].double()
        made = _changed(producer.outputs[link.output].double(), given, link.change)
        least = torch.finfo(producer.outputs[link.output].dtype).eps / 2
        times = misfit(given, made, least, bounds.eager)
        if times > 1.0:
            words = _what_instead(given, made, records, least)
            fault = f"is not given what {producer.name} made: {words}"
            finding = Finding("forward", consumer.name, f"input {link.name}", times, fault)
            looks.setdefault(link.consumer, Look()).findings.append(finding)
    return looks


def backward_links(
    records: Sequence[OperatorRecord], layers: int, bounds: Bounds
) -> dict[int, Look]:
    """By the index of who receives it, each gradient that is not the sum of what was passed on."""
    passed: dict[tuple[int, str], list[Tensor]] = {}
    for link in links(layers):
        gradient = records[link.consumer].grad_inputs.get(link.name)
        output = records[link.producer].outputs[link.output]
        if gradient is not None:
            back = {"heads": "joined", "joined": "heads"}.get(link.change, "")
            restored = _changed(gradient, output, back)
            passed.setdefault((link.producer, link.output), []).append(restored)
    looks: dict[int, Look] = {}
    for (index, name), gradients in passed.items():
        record = records[index]
        received = record.grad_outputs.get(name)
        if received is None or any(g.shape != received.shape for g in gradients):
            continue
        wide = [g.double() for g in gradients]
        exact, eager = sum(wide[1:], wide[0]), sum(gradients[1:], gradients[0])
        least = max(_error(eager, exact), torch.finfo(received.dtype).eps / 2)
        times = misfit(received, exact, least, bounds.eager)
        if times > 1.0:
            fits = (w for w, g in guesses(received, exact) if misfit(received, g, least, 2.0) <= 1)
            words = next(fits, "another tensor")
            fault = f"receives a gradient that nobody passed on: {words}"
            finding = Finding("backward", record.name, f"gradient of {name}", times, fault)
            looks.setdefault(index, Look()).findings.append(finding)
    return looks


def _error(value: Tensor, exact: Tensor) -> float:
    norm = float(exact.norm())
    return float((value.double() - exact).norm()) / norm if norm else 0.0


def _changed(made: Tensor, given: Tensor, change: str) -> Tensor:
    """`made` in the layout of `given`, where the numbers of elements allow it."""
    if made.numel() != given.numel():
        return made
    if change == "heads" and given.ndim == 4:
        return made.reshape(given.shape[0], given.shape[2], given.shape[1], -1).transpose(1, 2)
    if change == "joined" and made.ndim == 4:
        return made.transpose(1, 2).flatten(2)
    return made.reshape(given.shape)


def _what_instead(
    given: Tensor,
    made: Tensor,
    records: Sequence[OperatorRecord],
    least: float,
) -> str:
    for words, guess in guesses(given, made):
        if misfit(given, guess, least, 1.0) <= 1.0:
            return words
    for record in records:
        for name, output in record.outputs.items():
            if output.numel() == given.numel() and output.ndim > 0:
                same = output.double().reshape(given.shape)
                if misfit(given, same, least, 1.0) <= 1.0:
                    return f"it is {record.name}.{name}"
    return "another tensor"


def _ends(records: Sequence[OperatorRecord], batch: Batch) -> Iterator[tuple[int, Finding]]:
    """Tokens at the beginning; targets and mask at the end."""
    first, last, index = records[0], records[-1], len(records) - 1
    tokens, targets = batch.tokens[:, :-1], batch.tokens[:, 1:]
    if not _same(first.inputs["tokens"], tokens):
        shifted = {"the targets": targets, "shifted one place": tokens.roll(1, -1)}
        words = _which(first.inputs["tokens"], shifted)
        fault = f"reads other tokens than the batch has: {words}"
        yield 0, Finding("data", first.name, "input tokens", float("inf"), fault)
    if not _same(last.inputs["targets"], targets):
        other: Mapping[str, Tensor] = {
            "they are the inputs, not shifted": tokens,
            "shifted twice": targets.roll(-1, -1),
            "rolled back": targets.roll(1, -1),
            "rolled over sequences": targets.roll(1, 0),
            "rolled over all": targets.flatten().roll(1),
        }
        fault = f"targets are not the next tokens: {_which(last.inputs['targets'], other)}"
        yield index, Finding("data", last.name, "input targets", float("inf"), fault)
    mask = last.inputs.get("mask")
    wanted = batch.target_mask
    if mask is None and wanted is not None and not bool(wanted.all()):
        yield index, Finding("data", last.name, "input mask", float("inf"), "mask not passed on")
    elif mask is not None:
        right = torch.ones_like(targets, dtype=torch.bool) if wanted is None else wanted
        if not _same(mask, right):
            fault = "mask is not the batch's"
            yield index, Finding("data", last.name, "input mask", float("inf"), fault)


def _which(given: Tensor, others: Mapping[str, Tensor]) -> str:
    return next((words for words, other in others.items() if _same(given, other)), "others")


def _same(one: Tensor, other: Tensor) -> bool:
    one, other = one.flatten().cpu(), other.flatten().cpu()
    return len(one) == len(other) and bool((one.long() == other.long()).all())
