"""Models exported through the subject's command line, and read back by nobody who wrote them.

The command is a process of a second or more, so equal weights are exported once. A source defect
has a command line of its own, so what it exports is never taken for the clean one's.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from falsifiers.made_once import made_once
from falsifiers.reference import gguf_weights
from falsifiers.subject import Instance, Subject
from falsifiers.subject_parts import Provenance

TARGETS = {"safetensors": "folder", "gguf": "model.gguf"}
"""What the exported model is called; the command takes the format from it."""

_SOURCE, _TARGET = "CHECKPOINT", "EXPORTED"
_TIMEOUT = 300


def exported(subject: Subject, instance: Instance, format_: str) -> Path:
    """The weights of `instance`, saved as a checkpoint and exported in float32 to `format_`."""
    command = subject.command("export", _SOURCE, _TARGET, "--no-tokenizer")

    def make(folder: Path) -> None:
        checkpoint = folder / "source.apr"
        instance.save_checkpoint(checkpoint, Provenance("0" * 64, 1))
        places = {_SOURCE: str(checkpoint), _TARGET: str(folder / TARGETS[format_])}
        words = [places.get(word, word) for word in command]
        # Copying needs no thread, and waiting ones starve other workers.
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            words, capture_output=True, text=True, env=environment, timeout=_TIMEOUT, check=False
        )
        if done.returncode:
            raise RuntimeError(f"exit code {done.returncode}: no export: {done.stderr[-800:]}")
        checkpoint.unlink()

    key = (command, format_, _digest(instance.parameters()))
    return made_once(f"export-{format_}", key, make) / TARGETS[format_]


def read_export(path: Path, format_: str) -> dict[str, Tensor]:
    """float32 tensors of an exported model by Hugging Face name."""
    if format_ == "gguf":
        return gguf_weights.load(path)[1]
    from safetensors.torch import load_file

    return load_file(path / "model.safetensors")


def _digest(parameters: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, parameter in sorted(parameters.items()):
        digest.update(name.encode() + b"\0")
        digest.update(parameter.detach().cpu().contiguous().numpy().data)
    return digest.hexdigest()
