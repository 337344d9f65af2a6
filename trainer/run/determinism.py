"""What decides whether the same settings give the same bits, for the record of a run."""

from __future__ import annotations

import os
from typing import Any

import torch


def settings_in_force() -> dict[str, Any]:
    """The settings as torch and the environment have them now (FALSIFY-DETERM-003)."""
    return {
        "CUBLAS_WORKSPACE_CONFIG": os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
        "warn_only": torch.is_deterministic_algorithms_warn_only_enabled(),
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "threads": torch.get_num_threads(),
    }
