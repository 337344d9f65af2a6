"""The `Parallelism` that ``--parallel`` names."""

from __future__ import annotations

from trainer.parallel.parallelism import Parallelism
from trainer.parallel.world import DDP, World


def build_parallelism(name: str | None, world: World) -> Parallelism:
    """For `name` as `world.choose_parallel` returned it, inside of the process group."""
    if name is None:
        return Parallelism(world)
    if name == DDP:
        from trainer.parallel.replicated import Replicated

        return Replicated(world)
    from trainer.parallel.sharded import Sharded

    return Sharded(world)
