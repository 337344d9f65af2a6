"""A whole trace: the operators forward in order, then backward in reverse, each by itself."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from falsifiers.localization.findings import Bounds, Finding, Look
from falsifiers.localization.operators import Judge
from falsifiers.localization.wiring import backward_links, forward_links, misordered
from falsifiers.subject import Batch, Configuration, OperatorRecord

_BIASED = ("q_proj", "k_proj", "v_proj")


def judge_trace(
    records: Sequence[OperatorRecord],
    batch: Batch,
    asked: Configuration,
    dtype: str,
    parameters: Mapping[str, Tensor],
    bounds: Bounds,
) -> Look:
    """Everything that leaves its bound, causes first.

    Args:
        records: of one forward and backward.
        batch: what was traced, as the falsifier gave it.
        asked: the configuration that the falsifier asked for; what operators were run with is not
            taken from the instance, which may have been built with another.
        dtype: the compute dtype that it asked for.
        parameters: of the instance, by name.
        bounds: factors over plain torch's error.
    """
    settings = {"eps": asked["rms_norm_eps"], "theta": asked["rope_theta"]}
    records = [replace(r, settings={**r.settings, **settings}) for r in records]
    look = Look()
    if fault := misordered(records, asked["num_layers"]):
        look.findings.append(Finding("forward", "the model", "operators", math.inf, fault))
    wired = not look.findings
    layers = asked["num_layers"]
    into = forward_links(records, layers, batch, bounds) if wired else {}
    back = backward_links(records, layers, bounds) if wired else {}
    plain = getattr(torch, dtype)
    for index, record in enumerate(records):
        look.add(into.get(index, Look()))
        for finding in _parameters(record, asked, parameters):
            look.findings.append(finding)
        look.add(Judge(bounds, plain, _others(record, parameters)).forward(record))
    for index in reversed(range(len(records))):
        look.add(back.get(index, Look()))
        look.add(Judge(bounds, plain, {}).backward(records[index]))
    return look


def _others(record: OperatorRecord, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The model's other parameters, those of the same place in other layers first."""
    own = f"model.{record.name}."
    part = record.name.split(".")[-1]
    names = sorted(parameters, key=lambda n: f".{part}." not in n)
    return {n.removeprefix("model."): parameters[n] for n in names if not n.startswith(own)}


def _parameters(
    record: OperatorRecord, asked: Configuration, parameters: Mapping[str, Tensor]
) -> Iterator[Finding]:
    """Parameters that the operator should have and has not, or the other way round."""
    if record.kind == "linear":
        wanted = bool(asked["attention_bias"]) and record.name.split(".")[-1] in _BIASED
        if wanted != ("bias" in record.parameters):
            fault = "has no bias: it was never built" if wanted else "has a bias not asked for"
            yield Finding("forward", record.name, "bias", math.inf, fault)
    for local, value in record.parameters.items():
        name = f"model.{record.name}.{local}"
        if record.kind == "linear_cross_entropy":
            continue
        if name not in parameters:
            fault = f"reads a {local} that is no parameter of the model"
            yield Finding("parameters", record.name, local, math.inf, fault)
        elif value.shape != parameters[name].shape or not torch.equal(
            value.float(), parameters[name].to(value.device)
        ):
            fault = f"reads another {local} than the model's parameter {name}"
            yield Finding("parameters", record.name, local, math.inf, fault)
