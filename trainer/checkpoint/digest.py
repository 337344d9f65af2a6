"""One hash for the whole optimizer state, so that a log line can be checked against a file."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from torch import Tensor

from trainer.checkpoint.state import MOMENTS, model_names, moment_name
from trainer.weights.apr_writer import byte_view


def optimizer_state_sha(tensors: Mapping[str, Tensor], step: int) -> str:
    """SHA-256 of AdamW's state, hexadecimal (INV-TRAIN-003).

    Hashed are, over the parameters in byte order of their names: name, NUL, ``exp_avg`` and
    ``exp_avg_sq`` as little-endian float32; then `step` as little-endian u64.

    Args:
        tensors: weights and moments by the names of `state.training_tensors`, float32 on the CPU.
        step: optimizer steps done.
    """
    digest = hashlib.sha256()
    for name in model_names(tensors):
        digest.update(name.encode() + b"\0")
        for moment in MOMENTS:
            digest.update(byte_view(tensors[moment_name(name, moment)]))
    digest.update(step.to_bytes(8, "little"))
    return digest.hexdigest()
