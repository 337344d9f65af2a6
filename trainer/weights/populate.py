"""Initial weights into a model: all of them, each checked, or none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from trainer.errors import WeightsError
from trainer.model.decoder import Decoder
from trainer.parallel.parts import assign

_SHOWN = 5


def populate(model: Decoder, tensors: Mapping[str, Tensor]) -> None:
    """Copy `tensors`, by Hugging Face name, over the parameters of `model`.

    Every tensor must land in the model and every parameter must be given. A tied head may be given
    as well, if it equals the embedding bit for bit.

    Raises:
        WeightsError: listing what is missing, unexpected, of another shape or not finite. The model
            is then unchanged.
    """
    given = _without_tied_copy(model, tensors)
    parameters = dict(model.named_parameters())
    faults = [
        *_listed("missing", parameters.keys() - given.keys()),
        *_listed("unexpected", given.keys() - parameters.keys()),
        *_listed("wrong shape", _misshapen(parameters, given)),
        *_listed("NaN or Inf in", (n for n, t in given.items() if not t.isfinite().all())),
    ]
    if faults:
        raise WeightsError(
            "FALSIFY-APR-PRETRAIN-INIT-007: the initial weights do not fit the model; "
            + "; ".join(faults)
        )
    with torch.no_grad():
        for name, parameter in parameters.items():
            assign(parameter, given[name])


def _without_tied_copy(model: Decoder, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    head = tensors.get("lm_head.weight")
    embedding = tensors.get("model.embed_tokens.weight")
    if not model.config.tie_word_embeddings or head is None or embedding is None:
        return tensors
    if not torch.equal(head, embedding):
        raise WeightsError(
            "FALSIFY-APR-PRETRAIN-INIT-007: the model ties its head to the embedding, but the "
            "initial weights hold an lm_head.weight that differs; set tie_word_embeddings to false"
        )
    return {name: tensor for name, tensor in tensors.items() if name != "lm_head.weight"}


def _misshapen(parameters: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    return [
        f"{name} {list(given[name].shape)}, not {list(parameters[name].shape)}"
        for name in parameters.keys() & given.keys()
        if given[name].shape != parameters[name].shape
    ]


def _listed(fault: str, names: Iterable[str]) -> list[str]:
    found = sorted(names)
    if not found:
        return []
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return [f"{fault} {len(found)}: {', '.join(found[:_SHOWN])}{more}"]
