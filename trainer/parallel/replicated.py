"""Data parallelism: every rank has the whole model, and gradients are added up (Li et al. 2020).

Gradients travel in buckets while the backward pass is still at work on earlier layers: a bucket is
sent when its last gradient is there. The optimizer then reads them where they arrived.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

from trainer.model.decoder import Decoder
from trainer.parallel.parallelism import SeveralRanks
from trainer.parallel.ranks import peers_needed
from trainer.parallel.world import World

BUCKET_BYTES = 25 * 2**20
"""Large enough for full bandwidth, small enough that little is left to send at the end."""

_ALIGNMENT = 64
"""Elements. Kernels choose their order of summation by alignment; an own tensor has 256 bytes."""


class Replicated(SeveralRanks):
    """Every rank has the whole model."""

    def __init__(self, world: World, bucket_bytes: int = BUCKET_BYTES) -> None:
        super().__init__(world)
        self._bucket_bytes = bucket_bytes

    def adopt(self, model: Decoder) -> dict[str, nn.Parameter]:
        """See `Parallelism`."""
        self._reduction = BucketedReduction(list(model.parameters()), self._bucket_bytes)
        return super().adopt(model)

    def before_last_backward(self) -> None:
        """See `Parallelism`. Gradients travel as they are made."""
        self._reduction.begin()

    def finish(self, mean: Tensor) -> Tensor:
        """See `Parallelism`."""
        with peers_needed():
            dist.all_reduce(mean)
            self._reduction.wait()
        return mean


class _Bucket:
    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        sizes = [-(-p.numel() // _ALIGNMENT) * _ALIGNMENT for p in parameters]
        self.flat = torch.zeros(sum(sizes), dtype=torch.float32, device=parameters[0].device)
        parts = self.flat.split_with_sizes(sizes)
        self.views = {
            parameter: part[: parameter.numel()].view_as(parameter)
            for parameter, part in zip(parameters, parts, strict=True)
        }
        self.missing = 0


class BucketedReduction:
    """Sums of gradients over all ranks, sent off in the order in which a backward pass makes them.

    Args:
        parameters: float32, in the order of the forward pass, each used in every backward pass.
        bucket_bytes: a bucket is closed when it holds this much.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], bucket_bytes: int) -> None:
        self._buckets: list[_Bucket] = []
        self._begun = False
        self._sent = 0
        self._works: list[dist.Work] = []
        group: list[nn.Parameter] = []
        for parameter in reversed(parameters):
            group.append(parameter)
            if sum(p.nbytes for p in group) >= bucket_bytes:
                self._buckets.append(_Bucket(group))
                group = []
        if group:
            self._buckets.append(_Bucket(group))
        self._bucket_of = {p: bucket for bucket in self._buckets for p in bucket.views}
        for parameter in parameters:
            parameter.register_post_accumulate_grad_hook(self._take)  # type: ignore[no-untyped-call]

    def begin(self) -> None:
        """The backward pass that comes now is the last of the step."""
        self._begun, self._sent = True, 0
        for bucket in self._buckets:
            bucket.missing = len(bucket.views)

    def wait(self) -> None:
        """Let what follows on the device see the sums in each parameter's ``grad``."""
        self._begun = False
        if self._sent != len(self._buckets):
            raise AssertionError("a parameter had no gradient; every rank would wait for it")
        for work in self._works:
            work.wait()
        self._works = []

    def _take(self, parameter: Tensor) -> None:
        if not self._begun:
            return
        bucket = self._bucket_of[parameter]  # type: ignore[index]
        view = bucket.views[parameter]  # type: ignore[index]
        assert parameter.grad is not None
        parameter.grad = view.copy_(parameter.grad)
        bucket.missing -= 1
        # In order, whatever the order of the gradients: NCCL pairs calls by their number.
        while self._sent < len(self._buckets) and not self._buckets[self._sent].missing:
            with peers_needed():
                work = dist.all_reduce(self._buckets[self._sent].flat, async_op=True)
            assert work is not None
            self._works.append(work)
            self._sent += 1
