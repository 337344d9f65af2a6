"""The state of one step boundary as host tensors, taken without waiting for the GPU.

Copies are queued on the trainer's own stream: after the step that was launched last, before the
one that is launched next. AdamW updates in place, so the next step has to wait for them in any
case and a side stream could win nothing; a CUDA graph that replays a whole step is ordered as
well. The cost is host memory of 12 bytes a parameter, page-locked once and used again for every
checkpoint, and a pause of the GPU for 12 bytes a parameter over the bus (0.1 s for 370M). A copy
on the device first would shorten the pause to milliseconds, for 12 bytes of GPU memory a
parameter: those are worth more as a larger batch.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainer.checkpoint import state
from trainer.checkpoint.position import TrainingPosition
from trainer.checkpoint.random_state import capture_random_state
from trainer.config import ModelConfig
from trainer.trainer import PretrainTrainer

_ALIGNMENT = 64


@dataclass(frozen=True)
class Snapshot:
    """Training state of one step boundary.

    Attributes:
        config: the architecture.
        position: where the run stands.
        random_state: of `random_state.capture_random_state`.
        tensors: float32 on the CPU, by the names of `state.training_tensors`; not to be read before
            `wait` has returned.
        step_counts: AdamW's own count of each parameter's steps, float32 on the CPU.
        copied: happens when the copies are done; None if they are.
    """

    config: ModelConfig
    position: TrainingPosition
    random_state: Mapping[str, str]
    tensors: Mapping[str, Tensor]
    step_counts: Tensor
    copied: torch.cuda.Event | None = None

    def wait(self) -> None:
        """Block the calling thread until `tensors` can be read."""
        if self.copied is not None:
            self.copied.synchronize()

    def training_metadata(self) -> dict[str, Any]:
        """The object ``training`` of the file's metadata."""
        return self.position.to_metadata() | {"random_state": dict(self.random_state)}


class HostBuffers:
    """Host memory for one snapshot at a time, allocated at the first and used again for the next.

    For a GPU it is page-locked, or its copies would not be asynchronous. torch's own allocator of
    such memory rounds each tensor up to a power of two, hence one block for all of them.
    """

    def __init__(self) -> None:
        self._views: dict[str, Tensor] = {}

    def copy(
        self, tensors: Mapping[str, Tensor], whole: Callable[[Tensor], Tensor]
    ) -> dict[str, Tensor]:
        """Queue copies of `tensors` on the current stream, over those that the last call made.

        Each is put together by `whole` just before it is copied, so that one at a time is.
        """
        if {n: (t.shape, t.dtype) for n, t in tensors.items()} != {
            n: (v.shape, v.dtype) for n, v in self._views.items()
        }:
            self._views = _allocate(tensors)
        for name, tensor in tensors.items():
            self._views[name].copy_(whole(tensor), non_blocking=True)
        return dict(self._views)


def capture(
    trainer: PretrainTrainer, position: TrainingPosition, buffers: HostBuffers | None = None
) -> Snapshot:
    """Copy the state of `trainer` after its last launched step; the next may be launched at once.

    Args:
        position: belongs to this step boundary.
        buffers: where to copy to; whoever passes them sees to it that the snapshot before is no
            longer needed. None takes new memory.

    Raises:
        ValueError: `position` is not that of the trainer.
    """
    if position.step != trainer.step:
        raise ValueError(f"position of step {position.step}, but the trainer is at {trainer.step}")
    counts = "step_counts"
    live = state.training_tensors(trainer) | {counts: state.optimizer_step_counts(trainer)}
    copies = (buffers or HostBuffers()).copy(live, trainer.parallel.whole)
    copied = None
    if trainer.device.type == "cuda":
        copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
        copied.record(torch.cuda.current_stream(trainer.device))
    return Snapshot(
        config=trainer.config,
        position=position,
        random_state=capture_random_state(trainer.device),
        step_counts=copies.pop(counts),
        tensors=copies,
        copied=copied,
    )


def assist(trainer: PretrainTrainer) -> None:
    """What every other rank does while the leading one is in `capture`."""
    for tensor in state.training_tensors(trainer).values():
        trainer.parallel.whole(tensor)


def _allocate(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    offsets, size = {}, 0
    for name, tensor in tensors.items():
        offsets[name] = size
        size += -(-tensor.nbytes // _ALIGNMENT) * _ALIGNMENT
    memory = np.empty(size, dtype=np.uint8)
    if any(tensor.is_cuda for tensor in tensors.values()):
        _page_lock(memory)
    block = torch.from_numpy(memory)
    return {
        name: block[offset : offset + tensors[name].nbytes]
        .view(tensors[name].dtype)
        .view(tensors[name].shape)
        for name, offset in offsets.items()
    }


def _page_lock(memory: npt.NDArray[np.uint8]) -> None:
    runtime: Any = torch.cuda.cudart()  # type: ignore[no-untyped-call]
    address = memory.ctypes.data
    torch.cuda.check_error(runtime.cudaHostRegister(address, memory.nbytes, 0))
    # The tensors over this memory keep the array, so it goes only after the last of them. At exit
    # the driver unlocks everything by itself, and may be gone before this would run.
    weakref.finalize(memory, runtime.cudaHostUnregister, address).atexit = False
