"""The records of a run beside its checkpoints: ``run.json``, ``outcome.json``, and file hashes."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trainer.errors import CheckpointError
from trainer.weights.durable import durable_file

RUN, OUTCOME, LOG, CHECKPOINTS = "run.json", "outcome.json", "train.jsonl", "ckpt"


def holds_run(root: Path) -> bool:
    """Whether a run has left anything in the folder `root`."""
    return any((root / name).exists() for name in (RUN, OUTCOME, LOG, CHECKPOINTS))


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write `content` durably. Raises OSError."""
    text = json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    with durable_file(path) as file:
        # A path that is not UTF-8 holds surrogates; so written they are JSON's own escapes.
        file.write(text.encode(errors="backslashreplace"))


def read_run(root: Path) -> dict[str, Any]:
    """The run.json in the folder `root`.

    Raises:
        CheckpointError: it is missing or not one.
    """
    path = root / RUN
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content["identity"], dict) or not isinstance(content["resumed"], list):
            raise ValueError("identity or resumed is of another type")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(
            f"{path}: not the record of a run: {error!r}; start a new run in another --run-dir"
        ) from error
    return dict(content)


def require_same_identity(root: Path, identity: Mapping[str, Any]) -> None:
    """Refuse to go on with the run in `root` if its identity is not the one asked for.

    Raises:
        CheckpointError: listing each field with both values.
    """
    stored = read_run(root)["identity"]
    dealing = ("accumulation", "world_size")
    same_in_all = math.prod(stored.get(n, 0) for n in dealing) == math.prod(
        identity.get(n, 0) for n in dealing
    )
    # A step's micro-batches may go to another number of ranks, as long as they stay the same.
    dealt_out_anew = dealing if same_in_all else ()
    differing = [
        f"{name}: was {stored.get(name)!r}, asked {value!r}"
        for name, value in identity.items()
        if stored.get(name) != value and name not in dealt_out_anew
    ]
    if differing:
        raise CheckpointError(
            f"{root / RUN}: the run to go on with has other settings; {'; '.join(differing)}; "
            "resume with those of the run, or start a new one"
        )


def sha256_of(paths: Sequence[Path]) -> str:
    """SHA-256 of one file; of several, over their names and hashes in the order given."""
    if len(paths) > 1:
        lines = [f"{path.name}\0{sha256_of([path])}\n" for path in paths]
        return hashlib.sha256("".join(lines).encode()).hexdigest()
    with paths[0].open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
