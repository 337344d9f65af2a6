"""How the model is executed: eager or compiled, and whether bitwise reproducible.

Layers are compiled one by one: they share one compiled function, so that start-up does not grow
with depth. The embedding, the head with its loss, and the optimizer are few large kernels already.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainer.errors import ConfigurationError
from trainer.model.decoder import Decoder
from trainer.model.flex_attention import FlexCausalAttention

CUBLAS_WORKSPACE = ":4096:8"
"""Fixed workspaces, without which cuBLAS may pick another algorithm from one call to the next."""


@dataclass(frozen=True)
class Execution:
    """How a trainer executes its model.

    Attributes:
        compiled: compile layers, and on CUDA capture each step as a graph.
        deterministic: the same inputs give the same bits, run after run on one machine.
    """

    compiled: bool = False
    deterministic: bool = False


EAGER = Execution()


def require_determinism() -> None:
    """Put torch into deterministic mode, for the whole process.

    Raises:
        ConfigurationError: CUBLAS_WORKSPACE_CONFIG is set to another value. cuBLAS reads it at
            its first use in a process, and then no more.
    """
    wanted = os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", CUBLAS_WORKSPACE)
    if wanted not in (CUBLAS_WORKSPACE, ":16:8"):
        raise ConfigurationError(
            f"CUBLAS_WORKSPACE_CONFIG is {wanted!r}, which is not deterministic; "
            f"unset it, or set it to {CUBLAS_WORKSPACE}"
        )
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False


def prepare(model: Decoder, how: Execution) -> None:
    """Let `model` execute as `how` says.

    Raises:
        ConfigurationError: see `require_determinism`.
    """
    if how.deterministic:
        require_determinism()
    if not how.compiled:
        return
    if how.deterministic and model.head_weight.is_cuda:
        _use_flex_attention(model)
    for layer in model.model.layers:
        layer.compile(dynamic=False)


def _use_flex_attention(model: Decoder) -> None:
    """Replace fused attention, whose fast backward adds in any order, by compiled FlexAttention."""
    attention = FlexCausalAttention()
    for layer in model.model.layers:
        layer.get_submodule("self_attn").sdpa = attention

    def prepare_mask(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        attention.prepare(inputs[0].shape[1], inputs[0].device)

    model.model.register_forward_pre_hook(prepare_mask)
