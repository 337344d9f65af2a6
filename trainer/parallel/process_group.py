"""Connecting the processes of a run, and parting from them without leaving one waiting."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist

from trainer.errors import PeerLost
from trainer.parallel.world import World


class Connection:
    """The tie between the processes of a run."""

    def __init__(self) -> None:
        self.abandoned = False

    def abandon(self) -> None:
        """Wait for nobody at the end: another rank may never do its part of what was begun."""
        self.abandoned = True


@contextmanager
def process_group(world: World, device: str) -> Iterator[Connection]:
    """Belong to the process group of `world` inside the block; nothing for a single process.

    Tensors on the CPU travel by gloo and those on a GPU by NCCL, so that hosts can agree without
    waiting for their GPUs. An exception that leaves the block abandons the connection.

    Raises:
        PeerLost: the others cannot be reached.
    """
    connection = Connection()
    if world.size == 1:
        yield connection
        return
    on_cuda = device.startswith("cuda")
    if on_cuda:
        torch.cuda.set_device(device)
    try:
        dist.init_process_group("cpu:gloo,cuda:nccl" if on_cuda else "gloo")
    except (RuntimeError, ValueError) as error:
        raise PeerLost(f"rank {world.rank} cannot reach the other ranks: {error}") from error
    try:
        yield connection
    except BaseException:
        connection.abandon()
        raise
    finally:
        # Modules that FSDP has wrapped form cycles that hold the group. Its threads must end before
        # the interpreter does, or they crash when they give tensors back to it.
        gc.collect()
        if connection.abandoned:
            assert dist.group.WORLD is not None
            dist.group.WORLD.abort()
        else:
            dist.destroy_process_group()
