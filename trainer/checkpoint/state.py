"""Names of the tensors that a resumable checkpoint holds, and where a trainer keeps them.

Weights go under their Hugging Face names, AdamW's moments beside them as
``__training__.optim.{name}.exp_avg`` and ``.exp_avg_sq``, so that a reader for inference only has
to skip one prefix (F-CKPT-016). Where ranks hold parts of tensors, the file holds them whole.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from trainer.trainer import PretrainTrainer
from trainer.weights.apr_metadata import TRAINING_PREFIX

MOMENTS = ("exp_avg", "exp_avg_sq")


def moment_name(parameter: str, moment: str) -> str:
    """Name of a moment tensor of the parameter called `parameter`."""
    return f"{TRAINING_PREFIX}optim.{parameter}.{moment}"


def training_tensors(trainer: PretrainTrainer) -> dict[str, Tensor]:
    """Weights and moments of `trainer` by name: the live float32 tensors on its device.

    Shapes are those of the whole, but where ranks hold parts, so do these tensors: `parts.assign`
    writes and `trainer.parallel.whole` reads them.
    """
    parameters, state = trainer.parameters, trainer.optimizer.state
    tensors = trainer.parallel.spread({name: p.detach() for name, p in parameters.items()})
    for moment in MOMENTS:
        parts = trainer.parallel.spread({name: state[p][moment] for name, p in parameters.items()})
        tensors |= {moment_name(name, moment): part for name, part in parts.items()}
    return tensors


def optimizer_step_counts(trainer: PretrainTrainer) -> Tensor:
    """AdamW's own step count of each parameter, float32 ``[parameters]`` on their device."""
    return torch.stack(
        [trainer.optimizer.state[parameter]["step"] for parameter in trainer.parameters.values()]
    )


def model_names(names: Iterable[str]) -> list[str]:
    """Those of `names` that are weights, sorted by their bytes."""
    weights = (name for name in names if not name.startswith(TRAINING_PREFIX))
    return sorted(weights, key=str.encode)


def complete_names(names: Iterable[str]) -> set[str]:
    """The weights among `names`, and both moments of each."""
    weights = model_names(names)
    return {*weights, *(moment_name(name, moment) for name in weights for moment in MOMENTS)}
