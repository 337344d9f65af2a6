"""AdamW (Loshchilov and Hutter 2019) with the settings that every mode of the trainer uses."""

from __future__ import annotations

import torch
from torch import nn

BETAS = (0.9, 0.95)
EPS = 1e-8
WEIGHT_DECAY = 0.1


def build_optimizer(model: nn.Module, lr: float) -> torch.optim.AdamW:
    """Decoupled weight decay on matrices only: decaying norms and biases only shrinks scales.

    State is float32 like the parameters. Fused kernels on CUDA, multi-tensor ones on the CPU.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    on_cuda = parameters[0].is_cuda
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": WEIGHT_DECAY},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        groups, lr=lr, betas=BETAS, eps=EPS, fused=on_cuda, foreach=not on_cuda
    )
