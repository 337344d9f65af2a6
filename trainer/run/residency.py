"""INV-GPUTRAIN-003: proof that a run that was asked to use a GPU really lives on it.

Weights and moments must be on the device, and the driver must see memory in use. Inside a container
or a virtual machine NVML's process list can be empty or carry the host's ids, so three proofs are
tried, strongest first, and the record says which one held and why not a stronger one.
"""

from __future__ import annotations

import os
from typing import Any

import torch

from trainer.errors import ResidencyProofFailed
from trainer.run.gpu_sampler import nvml_handle
from trainer.trainer import PretrainTrainer


def memory_in_use(device: torch.device) -> int | None:
    """Bytes in use on the whole device as NVML tells, None where it cannot be asked."""
    try:
        import pynvml  # type: ignore[import-untyped]

        pynvml.nvmlInit()
        return int(pynvml.nvmlDeviceGetMemoryInfo(nvml_handle(pynvml, device)).used)
    except Exception:  # pynvml's errors have no common base with ImportError
        return None


def prove_residency(trainer: PretrainTrainer, used_before: int | None) -> dict[str, Any]:
    """Proof that the training state is on the trainer's GPU, ready for run.json.

    Args:
        used_before: `memory_in_use` before the trainer was built.

    Raises:
        ResidencyProofFailed: a tensor is elsewhere, or no memory is seen in use.
    """
    state = _state_bytes(trainer)
    device = trainer.device
    process, reason = _process_memory(device)
    used, allocated = memory_in_use(device), torch.cuda.memory_allocated(device)
    grown = None if used is None or used_before is None else used - used_before
    if process:
        proof = "nvml-process"
    elif grown is not None and grown >= state:
        proof = "nvml-device-memory"
    elif allocated >= state and (used is None or used >= allocated):
        proof = "torch-allocator"
    else:
        raise ResidencyProofFailed(
            f"INV-GPUTRAIN-003: {device}: the training state takes {state:,} bytes, but torch has "
            f"{allocated:,} allocated there and NVML sees {used} in use ({reason}); check "
            "that CUDA_VISIBLE_DEVICES and the driver mean the same device"
        )
    return {
        "proof": proof,
        "reason": reason,
        "device": str(device),
        "state_bytes": state,
        "process_bytes": process,
        "device_bytes_grown": grown,
        "allocated_bytes": allocated,
    }


def _state_bytes(trainer: PretrainTrainer) -> int:
    device, total = trainer.device, 0
    for name, parameter in trainer.parameters.items():
        moments = trainer.optimizer.state[parameter]
        held = {
            name: parameter,
            f"exp_avg of {name}": moments["exp_avg"],
            f"exp_avg_sq of {name}": moments["exp_avg_sq"],
        }
        for what, tensor in held.items():
            if tensor.device != device or device.type != "cuda":
                raise ResidencyProofFailed(
                    f"INV-GPUTRAIN-003: {what} is on {tensor.device}, not on the GPU that was "
                    f"asked for ({device}); this is a fault of the trainer, please report it"
                )
            total += tensor.nbytes
    return total


def _process_memory(device: torch.device) -> tuple[int | None, str | None]:
    try:
        import pynvml

        pynvml.nvmlInit()
        running = pynvml.nvmlDeviceGetComputeRunningProcesses(nvml_handle(pynvml, device))
    except Exception as error:  # pynvml's errors have no common base with ImportError
        return None, f"NVML: {error}"
    own = [entry.usedGpuMemory for entry in running if entry.pid == os.getpid()]
    if not own:
        return None, f"NVML lists {len(running)} processes, none with this one's id {os.getpid()}"
    if own[0] is None:
        return None, "NVML lists this process without its memory"
    return int(own[0]), None
