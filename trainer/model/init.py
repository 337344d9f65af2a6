"""Random initialisation, as in GPT-2 (Radford et al. 2019).

Matrices are normal(0, 0.02); the two projections that write to the residual stream in each layer
are scaled by 1/√(2 · layers), so that the stream's variance does not grow with depth. Norm weights
are one and biases zero.

The final norm leaves hidden states of mean square 1, so the logits of a fresh model are close to
normal with variance σ² = hidden_size · 0.02² (0.41 for 1024), and its loss on random tokens is
close to ln V + σ²/2.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from trainer.model.decoder import Decoder

STANDARD_DEVIATION = 0.02
RESIDUAL_WRITERS = ("o_proj.weight", "down_proj.weight")


def initialize(model: Decoder, seed: int) -> None:
    """Fill every parameter in place, from a generator of its own on the parameters' device.

    One seed gives one model on one kind of device; CPU and CUDA generators draw different numbers.
    """
    generator = torch.Generator(device=model.head_weight.device).manual_seed(seed)
    residual = STANDARD_DEVIATION / math.sqrt(2 * model.config.num_layers)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
        elif parameter.ndim == 1:
            nn.init.ones_(parameter)
        else:
            deviation = residual if name.endswith(RESIDUAL_WRITERS) else STANDARD_DEVIATION
            nn.init.normal_(parameter, 0.0, deviation, generator=generator)
