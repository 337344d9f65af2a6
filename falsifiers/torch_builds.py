"""Processes that see another build of torch, or other GPUs, than there are.

A module that Python loads at start-up answers in torch's place, so that each state of a machine can
be met on any machine and by any trainer that asks torch.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from falsifiers.subject import Subject

_SEEN = {
    "without-cuda": "version.cuda = None\ncuda.device_count = lambda: 0",
    "cuda-no-gpu": "version.cuda = '13.0'\ncuda.device_count = lambda: 0",
    "cuda-one-gpu": (
        "import types\n"
        "version.cuda = '13.0'\n"
        "cuda.device_count = lambda: 1\n"
        "cuda.get_device_properties = lambda device: types.SimpleNamespace(\n"
        "    name='A card', major=9, minor=0, total_memory=2**36, multi_processor_count=100)"
    ),
}
_START = "import torch\nfrom torch import cuda, version\ncuda.is_available = lambda: {available}\n"


def reported(subject: Subject, build: str) -> dict[str, Any]:
    """What the devices command says where torch is as `build` describes it.

    ``actual`` is this machine, ``hidden`` this machine with no GPU shown to the process.

    Raises:
        RuntimeError: the command failed, or printed no JSON object.
    """
    with tempfile.TemporaryDirectory(prefix="torch-build-") as folder:
        environment = dict(os.environ)
        if build == "hidden":
            environment["CUDA_VISIBLE_DEVICES"] = ""
        elif build != "actual":
            source = _START.format(available=build == "cuda-one-gpu") + _SEEN[build]
            (Path(folder) / "sitecustomize.py").write_text(source + "\n")
            paths = [folder, *filter(None, [environment.get("PYTHONPATH")])]
            environment["PYTHONPATH"] = os.pathsep.join(paths)
        command = subject.command("devices", "--json")
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment, timeout=120, check=False
        )
    try:
        report: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        raise RuntimeError(
            f"no report, exit code {done.returncode}: {done.stderr[-800:]}"
        ) from None
    return report
