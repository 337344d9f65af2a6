"""torch's random generators as text.

Training draws no random number after initialisation today; the states are kept so that the day it
does, a resumed run is still the same run.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

import torch

from trainer.errors import CheckpointError


def capture_random_state(device: torch.device) -> dict[str, str]:
    """Base64 of the CPU generator's state, and of `device`'s if that is a GPU."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return {
        name: base64.b64encode(state.numpy().tobytes()).decode() for name, state in states.items()
    }


def restore_random_state(states: Mapping[str, Any], device: torch.device, source: str) -> None:
    """Undo `capture_random_state`. A state of a kind of device that is not in use is left alone.

    Raises:
        CheckpointError: a state is damaged (F-CKPT-004); `source` names the file.
    """
    for name, encoded in states.items():
        try:
            state = torch.frombuffer(
                bytearray(base64.b64decode(encoded, validate=True)), dtype=torch.uint8
            )
            if name == "cpu":
                torch.set_rng_state(state)
            elif name == device.type:
                torch.cuda.set_rng_state(state, device)
        except (TypeError, ValueError, RuntimeError, binascii.Error) as error:
            raise CheckpointError(
                f"F-CKPT-004: {source}: training.random_state.{name} is damaged: {error}; "
                "use another checkpoint"
            ) from error
