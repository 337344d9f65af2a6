"""What the hosts of all ranks agree on, without their GPUs having to wait.

Every rank must reach these calls in the same order. They take some 0.1 ms, during which the GPUs
work on what was launched before.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor

from trainer.errors import PeerLost, TrainerError
from trainer.parallel.world import World

_MESSAGE_BYTES = 4096


@contextmanager
def peers_needed() -> Iterator[None]:
    """Communication fails only because another rank has ended; say so.

    Raises:
        PeerLost: a collective operation failed.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise _peer_lost(error) from error


_GLOO = "gloo/"
"""In the source paths that plain RuntimeErrors of gloo begin with; other backends have a type."""


@contextmanager
def peers_missed() -> Iterator[None]:
    """As `peers_needed`, around work that may fail for other reasons too.

    FSDP communicates from within a layer's forward and backward pass.

    Raises:
        PeerLost: what failed was communication.
    """
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, dist.DistError) or _GLOO in str(error):
            raise _peer_lost(error) from error
        raise


def _peer_lost(error: RuntimeError) -> PeerLost:
    reason = str(error).partition("\n")[0]
    return PeerLost(f"another rank has ended, see its own message ({reason})")


class Ranks:
    """The hosts of a run's processes; of a single one, nothing is ever sent."""

    def __init__(self, world: World) -> None:
        self.world = world

    def total(self, number: int) -> int:
        """The sum of `number` over the ranks."""
        if self.world.size == 1:
            return number
        value = torch.tensor(number, dtype=torch.int64)
        with peers_needed():
            dist.all_reduce(value)
        return int(value)

    def greatest(self, number: int) -> int:
        """The greatest `number` of any rank."""
        if self.world.size == 1:
            return number
        value = torch.tensor(number, dtype=torch.int64)
        with peers_needed():
            dist.all_reduce(value, op=dist.ReduceOp.MAX)
        return int(value)

    @contextmanager
    def together(self) -> Iterator[None]:
        """All ranks get through the block, or all raise the first error that one of them met.

        Only errors of the trainer are shared; any other ends its rank, which the rest then miss.

        Raises:
            TrainerError: what was raised within, here or on another rank.
        """
        failure: TrainerError | None = None
        try:
            yield
        except TrainerError as error:
            failure = error
        if self.world.size > 1:
            shared = self._share(failure)
            if failure is None and shared is not None:
                raise shared
        if failure is not None:
            raise failure

    def _share(self, failure: TrainerError | None) -> TrainerError | None:
        if not self.greatest(int(failure is not None)):
            return None
        told = [torch.zeros(_MESSAGE_BYTES, dtype=torch.uint8) for _ in range(self.world.size)]
        with peers_needed():
            dist.all_gather(told, _encoded(failure))
        rank = next(rank for rank, text in enumerate(told) if text.any())
        status, message = json.loads(bytes(told[rank].tolist()).rstrip(b"\0"))
        kind = next(k for k in TrainerError.__subclasses__() if k.status == status)
        return kind(f"rank {rank}: {message}")


def _encoded(failure: TrainerError | None) -> Tensor:
    buffer = torch.zeros(_MESSAGE_BYTES, dtype=torch.uint8)
    if failure is not None:
        # ASCII needs at most 12 bytes a character, so that cutting never breaks the JSON.
        text = json.dumps([failure.status, str(failure)[: _MESSAGE_BYTES // 16]]).encode()
        buffer[: len(text)] = torch.tensor(list(text), dtype=torch.uint8)
    return buffer
