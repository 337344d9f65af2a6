"""Two instances that were asked for the same things must hold the same bits: the first that differ.

Compared are instances of one process that were built alike with deterministic execution, for as
long as they were given the same. Of every tensor a digest is kept and not the tensor, so that a
large model costs time and no memory; what is reported is which, and not by how much.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from falsifiers.localization.findings import Finding
from falsifiers.subject import Batch, OperatorRecord, StepMetrics
from falsifiers.subject_parts import Moments

Quantity = tuple[str, str, str]
"""Phase, place, tensor."""


@dataclass
class Life:
    """What one instance was given and what it then held, in order.

    Attributes:
        identity: what it was built from.
        events: what it was given, and the quantities that were there afterwards.
        traces: operators traced before the event of that index, by index and inputs.
    """

    identity: Hashable
    events: list[tuple[Hashable, dict[Quantity, str]]] = field(default_factory=list)
    traces: dict[tuple[int, str], dict[Quantity, str]] = field(default_factory=dict)

    def began(self, weights: Mapping[str, Tensor]) -> None:
        """It was built, and has these weights."""
        made = {("parameters", "initial weights", n): digest(w) for n, w in weights.items()}
        self.events.append(("built", made))

    def given(self, values: Mapping[str, Tensor]) -> None:
        """Its weights were set."""
        self.events.append((tuple((n, digest(v)) for n, v in values.items()), {}))

    def went_its_own_way(self) -> None:
        """It was given what nothing else can be known to have been given."""
        self.events.append((object(), {}))

    def stepped(
        self,
        batches: Sequence[Batch],
        lr: float | None,
        metrics: StepMetrics,
        moments: Mapping[str, Moments],
        weights: Mapping[str, Tensor],
    ) -> None:
        """It took a step."""
        at = f"step {metrics.step}"
        made: dict[Quantity, str] = {
            ("schedule", f"{at}, schedule", "lr"): repr(metrics.lr),
            ("forward", f"{at}, forward", "train_loss"): repr(metrics.train_loss),
            ("backward", f"{at}, backward", "grad_norm"): repr(metrics.grad_norm),
        }
        for name, own in moments.items():
            made["backward", f"{at}, backward", f"{name} exp_avg"] = digest(own.exp_avg)
        for name, own in moments.items():
            made["optimizer", f"{at}, optimizer", f"{name} exp_avg_sq"] = digest(own.exp_avg_sq)
        for name, weight in weights.items():
            made["weights", f"{at}, weights", name] = digest(weight)
        self.events.append(((lr, tuple(batch_digest(batch) for batch in batches)), made))

    def traced(self, batch: Batch, records: Sequence[OperatorRecord]) -> None:
        """Its operators were recorded on a batch."""
        made: dict[Quantity, str] = {}
        for record in records:
            for name, output in record.outputs.items():
                made["forward", record.name, name] = digest(output)
        for record in reversed(records):
            for name, gradient in {**record.grad_inputs, **record.grad_parameters}.items():
                made["backward", record.name, f"gradient of {name}"] = digest(gradient)
        self.traces.setdefault((len(self.events), batch_digest(batch)), made)


def judge_repeats(lives: Sequence[Life]) -> Iterator[Finding]:
    """The first quantity in which two instances differ that were built and treated alike."""
    for one, other in itertools.combinations(lives, 2):
        if one.identity == other.identity and (found := _parted(one, other)):
            yield found
            return


def _parted(one: Life, other: Life) -> Finding | None:
    for index, ((given, made), (also, again)) in enumerate(
        zip(one.events, other.events, strict=False)
    ):
        if given != also:
            return None
        for key in (key for key in one.traces if key[0] == index and key in other.traces):
            if found := _first(one.traces[key], other.traces[key]):
                return found
        if found := _first(made, again):
            return found
    return None


def _first(made: Mapping[Quantity, str], again: Mapping[Quantity, str]) -> Finding | None:
    differing = [key for key in made if key in again and made[key] != again[key]]
    if not differing:
        return None
    phase, where, tensor = differing[0]
    values = made[differing[0]], again[differing[0]]
    alike = sum(key[:2] == (phase, where) for key in made)
    count = sum(key[:2] == (phase, where) for key in differing)
    said = (
        f"{values[0]} and {values[1]}" if tensor in _NUMBERS else f"{count} of {alike} differ in it"
    )
    fault = f"two runs of one seed part here, all before agrees bit for bit: {said}"
    return Finding(phase, where, tensor, math.inf, fault)


_NUMBERS = ("lr", "train_loss", "grad_norm")


def identity(config: Mapping[str, Any], options: Mapping[str, Any]) -> Hashable:
    """What instances must share to be the same run twice."""
    return repr(sorted(config.items())), repr(sorted(options.items()))


def batch_digest(batch: Batch) -> str:
    """Of tokens and mask."""
    mask = "" if batch.target_mask is None else digest(batch.target_mask)
    return digest(batch.tokens) + mask


def digest(tensor: Tensor) -> str:
    """Of shape, dtype and bits."""
    flat = tensor.detach().contiguous().flatten()
    found = hashlib.blake2b(f"{tuple(tensor.shape)} {tensor.dtype}".encode(), digest_size=16)
    if flat.numel():
        found.update(flat.view(torch.uint8).cpu().numpy().data)
    return found.hexdigest()
