"""The settings of a process that decide whether its results can be reproduced bit for bit."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"


@contextmanager
def nothing_reproducible() -> Iterator[None]:
    """Inside, nothing asks for reproducibility until the subject does; then all is as before.

    They are settings of the whole process: left in force, they would change later measurements,
    and found in force, they would prove nothing about the subject.
    """
    workspace = os.environ.get(WORKSPACE)
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark = torch.backends.cudnn.benchmark
    os.environ.pop(WORKSPACE, None)
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        os.environ.pop(WORKSPACE, None)
        if workspace is not None:
            os.environ[WORKSPACE] = workspace
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        torch.backends.cudnn.benchmark = benchmark


def refuses_undefined_order(device: str) -> bool:
    """Whether torch refuses an operation whose result depends on the order of its writes."""
    indices = torch.zeros(2, dtype=torch.int64, device=device)
    try:
        torch.zeros(1, device=device).put_(indices, torch.ones(2, device=device))
    except RuntimeError:
        return True
    return False
