"""What float32 and bfloat16 compute mean here.

float32 means IEEE float32 in every matrix product: TF32 on CUDA keeps 10 mantissa bits, and
oneDNN on the CPU can be told to use bfloat16. Both are process-wide switches that any library may
flip, so they are set around each computation, and put back.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from trainer.errors import ConfigurationError

COMPUTE_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def compute_dtype_named(name: str) -> torch.dtype:
    """The torch dtype of activations.

    Raises:
        ConfigurationError: `name` is neither ``float32`` nor ``bfloat16``.
    """
    if name not in COMPUTE_DTYPES:
        raise ConfigurationError(f"compute dtype {name!r} is not one of {tuple(COMPUTE_DTYPES)}")
    return COMPUTE_DTYPES[name]


@contextmanager
def ieee_float32() -> Iterator[None]:
    """Compute float32 matrix products in IEEE float32 inside the block, on every backend."""
    cuda, cpu = torch.backends.cuda.matmul, torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = cuda.fp32_precision, cpu.fp32_precision
    cuda.fp32_precision = cpu.fp32_precision = "ieee"
    try:
        yield
    finally:
        cuda.fp32_precision, cpu.fp32_precision = before
