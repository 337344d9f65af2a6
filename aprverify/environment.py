"""What a row was measured on: machine, packages, GPUs and the variables that decide numerics."""

from __future__ import annotations

import os
import platform
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from aprverify.gpus import driver_version, visible_gpus

_PACKAGES = (
    "torch", "numpy", "safetensors", "gguf", "tokenizers", "transformers", "triton",
    "pytest", "pytest-xdist", "PyYAML", "jsonschema", "hypothesis",
)  # fmt: skip
_VARIABLES = (
    "CUDA_VISIBLE_DEVICES", "CUBLAS_WORKSPACE_CONFIG", "NVIDIA_TF32_OVERRIDE",
    "OMP_NUM_THREADS", "OPENBLAS_CORETYPE", "PYTHONHASHSEED", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
)  # fmt: skip


@cache
def describe_environment() -> dict[str, Any]:
    """The environment line of run.jsonl, without its id."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory, 1),
        "packages": {name: v for name in _PACKAGES if (v := _version(name)) is not None},
        "gpus": [
            {"name": g.name, "memory_gib": g.memory_gib, "compute_capability": g.compute_capability}
            for g in visible_gpus()
        ],
        "driver": driver_version(),
        "variables": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
    }


def describe_commit(root: Path) -> tuple[str | None, bool | None]:
    """(commit, dirty) of the work tree at `root`; (None, None) where git knows none."""
    try:
        commit = _git(root, "rev-parse", "HEAD")
        return commit, bool(_git(root, "status", "--porcelain"))
    except (OSError, subprocess.CalledProcessError):
        return None, None


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
