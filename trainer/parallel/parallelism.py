"""How the ranks of a run share the work of a step: what a trainer asks of it, and the plain answer.

The base class is a single process, for which none of the questions costs anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice

import torch
from torch import Tensor, nn

from trainer.batch import TokenBatch
from trainer.model.decoder import Decoder
from trainer.parallel.ranks import Ranks
from trainer.parallel.world import ALONE, World


class Parallelism:
    """Training in a single process.

    Attributes:
        world: the processes of the run.
        ranks: their hosts.
    """

    def __init__(self, world: World = ALONE) -> None:
        self.world = world
        self.ranks = Ranks(world)

    def adopt(self, model: Decoder) -> dict[str, nn.Parameter]:
        """Take charge of an initialised `model`, once.

        Returns:
            By parameter name, in the model's order, what the optimizer of this rank updates:
            float32 on the model's device.
        """
        return dict(model.named_parameters())

    def before_last_backward(self) -> None:
        """The backward pass that comes now makes the step's gradients complete."""

    def finish(self, mean: Tensor) -> Tensor:
        """Let gradients be those of all ranks.

        Args:
            mean: this rank's token losses over all ranks' targets, a scalar on the device.

        Returns:
            The mean over all ranks.
        """
        return mean

    def joint_norm(self, norm: Tensor) -> Tensor:
        """The norm over everything, from that over what this rank's optimizer updates."""
        return norm

    def share_of(self, batches: Iterable[TokenBatch]) -> Iterable[TokenBatch]:
        """Those of `batches` that this rank evaluates."""
        return batches

    def sum_up(self, numbers: Tensor) -> Tensor:
        """Sum of `numbers` on the device over the ranks, in place."""
        return numbers

    def after_inference(self) -> None:
        """Called when the model was run without a backward pass to follow."""

    def spread(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """By parameter name, tensors like those that `adopt` returned, as parts of the whole.

        `parts.assign` and `whole` take what is returned here; its shapes are those of the whole.
        """
        return dict(tensors)

    def whole(self, tensor: Tensor) -> Tensor:
        """`tensor` itself, or from `spread` put together of all ranks, which all must ask."""
        return tensor


class SeveralRanks(Parallelism):
    """What every way to use several processes has in common."""

    def share_of(self, batches: Iterable[TokenBatch]) -> Iterable[TokenBatch]:
        """Every world-size-th batch, and equally many on each rank: a missing one counts nothing.

        Ranks that share weights have to go through the model together.
        """
        chosen: Iterator[TokenBatch]
        if isinstance(batches, Sequence):
            size, step = len(batches), self.world.size
            rounds = -(-size // step)
            places = (round * step + self.world.rank for round in range(rounds))
            for place in places:
                yield batches[place] if place < size else _uncounted(batches[size - 1])
            return
        chosen = iter(batches)
        while group := list(islice(chosen, self.world.size)):
            mine = self.world.rank < len(group)
            yield group[self.world.rank] if mine else _uncounted(group[-1])

    def sum_up(self, numbers: Tensor) -> Tensor:
        """See `Parallelism`."""
        import torch.distributed as dist

        from trainer.parallel.ranks import peers_needed

        with peers_needed():
            dist.all_reduce(numbers)
        return numbers


def _uncounted(batch: TokenBatch) -> TokenBatch:
    return TokenBatch(batch.tokens, torch.zeros_like(batch.tokens[:, 1:], dtype=torch.bool))
