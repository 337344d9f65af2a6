"""A launch of two processes by torchrun, which takes seconds and is therefore made once."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def torchrun(*words: str | Path, ranks: int = 2) -> list[str]:
    """The command that runs `words` on `ranks` processes of this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(ranks)]
    return [*launcher, "--master-port", str(port), *map(str, words)]


def environment() -> dict[str, str]:
    """For a launch: this source tree, one thread a rank, and no rank of an outer launch."""
    outer = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    kept = {name: value for name, value in os.environ.items() if name not in outer}
    return kept | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def launch(*words: str | Path, ranks: int = 2) -> subprocess.CompletedProcess[str]:
    """Run `words` by torchrun and wait."""
    command: Sequence[str] = torchrun(*words, ranks=ranks)
    return subprocess.run(
        command, env=environment(), cwd=ROOT, capture_output=True, text=True, timeout=120
    )
