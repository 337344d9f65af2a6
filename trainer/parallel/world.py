"""Which of how many processes this is, as ``torchrun`` tells it. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from trainer import device as devices
from trainer.errors import ConfigurationError, UsageError

DDP, FSDP = "ddp", "fsdp"
PARALLEL = (DDP, FSDP)
"""Values of ``--parallel``."""


@dataclass(frozen=True)
class World:
    """The processes of a run.

    Attributes:
        rank: of this process, from 0.
        size: how many there are.
        local_rank: of this process among those of its machine; its GPU.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def leads(self) -> bool:
        """Whether this process writes the run's files and talks to the user."""
        return self.rank == 0

    @property
    def speaker(self) -> str:
        """What this process puts before an error: its rank, if others may say the same."""
        return f"rank {self.rank}: " if self.size > 1 else ""


ALONE = World()


def read_world(environment: Mapping[str, str]) -> World:
    """The world that RANK, WORLD_SIZE and LOCAL_RANK describe; without WORLD_SIZE, one process.

    Raises:
        UsageError: they are incomplete or contradict each other.
    """
    if "WORLD_SIZE" not in environment:
        return ALONE
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    given = {name: environment.get(name, "") for name in names}
    if not all(re.fullmatch(r"\d{1,6}", value) for value in given.values()):
        raise _inconsistent(given)
    rank, size, local_rank = (int(given[name]) for name in names)
    if not local_rank <= rank < size:
        raise _inconsistent(given)
    return World(rank, size, local_rank)


def choose_parallel(asked: str | None, world: World) -> str | None:
    """How several processes share the work: as asked, else by DDP; None for a single process.

    Raises:
        UsageError: `asked` needs more processes than there are.
    """
    if world.size > 1:
        return asked or DDP
    if asked is not None:
        raise UsageError(
            f"--parallel {asked} needs several processes; start them with "
            "torchrun --nproc-per-node N -m trainer pretrain ..."
        )
    return None


def resolve_device(spec: str, world: World) -> str:
    """`device.resolve_device`, where each of several processes of a machine takes its own GPU.

    Raises:
        ConfigurationError: one GPU is named for several processes.
        UsageError, DeviceUnavailable: see `device.resolve_device`.
    """
    resolved = devices.resolve_device(spec)
    if world.size == 1 or resolved == "cpu":
        return resolved
    if ":" in spec:
        raise ConfigurationError(
            f"--device {spec} names one GPU for {world.size} processes; pass --device cuda, and "
            "each takes the one with its local rank"
        )
    return devices.resolve_device(f"cuda:{world.local_rank}")


def _inconsistent(given: Mapping[str, str]) -> UsageError:
    shown = ", ".join(f"{name}={value!r}" for name, value in given.items())
    return UsageError(f"the environment has {shown}; start the processes with torchrun")
