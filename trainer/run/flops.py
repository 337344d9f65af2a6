"""Model FLOPs utilisation: useful arithmetic per second over what the card can do.

FLOPs per token are 6 × the parameters that take part in matrix products, plus
12 · layers · heads · head_dim · length for attention (Chowdhery et al. 2022, appendix B), not
halved for causality, so that the figure compares with published ones. Imports no torch.
"""

from __future__ import annotations

from trainer.config import ModelConfig

PEAK_BFLOAT16 = {
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "H200": 989e12,
    "GH200": 989e12,
    "A100": 312e12,
    "A800": 312e12,
    "L40S": 362e12,
    "A10": 125e12,
    "RTX 4090": 165e12,
    "RTX 3090": 71e12,
}
"""Dense bfloat16 FLOP/s by a part of the card's name, from the vendor's data sheets."""


def flops_per_token(config: ModelConfig, seq_length: int) -> float:
    """FLOPs of forward and backward per target token at this sequence length."""
    attention = config.num_heads * config.head_dim
    projections = 2 * attention + 2 * config.num_kv_heads * config.head_dim
    layer = config.hidden_size * (projections + 3 * config.intermediate_size)
    matmul = config.num_layers * layer + config.vocab_size * config.hidden_size
    return 6.0 * matmul + 12.0 * config.num_layers * attention * seq_length


def peak_flops(card: str) -> float | None:
    """Peak bfloat16 FLOP/s of a card by the name its driver gives it; None if it is not known."""
    known = [name for name in PEAK_BFLOAT16 if name in card]
    return PEAK_BFLOAT16[max(known, key=len)] if known else None
