"""Fully sharded data parallelism, FSDP2 (Zhao et al. 2023): every rank keeps a part of each weight.

A layer's weights are gathered when it is about to run, and its gradients are added up into the
parts when it has run backward. Weights travel and are summed in float32, so every rank computes
what one process would. The embedding, the final norm and the head stay whole from the forward pass
to the end of the backward pass, because the loss reads the head's weight outside of the model.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from trainer.model.decoder import Decoder
from trainer.parallel.parallelism import SeveralRanks
from trainer.parallel.ranks import peers_needed

_ALIGNMENT = 16
"""Bytes; what the AdamW kernel asks of every address."""


class Sharded(SeveralRanks):
    """Every rank keeps a part of each weight, of its gradient and of its moments."""

    def adopt(self, model: Decoder) -> dict[str, nn.Parameter]:
        """See `Parallelism`. The model's parameters become DTensors split along their first axis;
        the optimizer gets the parts on this rank, some of which may be empty."""
        mesh = init_device_mesh(model.head_weight.device.type, (self.world.size,))
        for module in (*model.model.layers, model):
            fully_shard(module, mesh=mesh, reshard_after_forward=module is not model)
            assert isinstance(module, FSDPModule)
            # The loss is divided by the targets of all ranks already: a sum is the mean.
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
        self._model = model
        self._sharded: dict[str, DTensor] = dict(model.named_parameters())  # type: ignore[arg-type]
        self._parts = {n: nn.Parameter(p.to_local().detach()) for n, p in self._sharded.items()}
        return self._parts

    def finish(self, mean: Tensor) -> Tensor:
        """See `Parallelism`."""
        for name, part in self._parts.items():
            parameter = self._sharded[name]
            assert isinstance(parameter.grad, DTensor)
            part.grad = _aligned(parameter.grad.to_local())
            parameter.grad = None
        return self.sum_up(mean)

    def joint_norm(self, norm: Tensor) -> Tensor:
        """See `Parallelism`."""
        return self.sum_up(norm.square()).sqrt()

    def after_inference(self) -> None:
        """See `Parallelism`. Whole weights that were kept for a backward pass are let go."""
        assert isinstance(self._model, FSDPModule)
        self._model.reshard()

    def spread(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `Parallelism`."""
        return {name: _like(self._sharded[name], tensor) for name, tensor in tensors.items()}

    def whole(self, tensor: Tensor) -> Tensor:
        """See `Parallelism`."""
        if not isinstance(tensor, DTensor):
            return tensor
        with peers_needed():
            return tensor.full_tensor()


def _like(parameter: DTensor, part: Tensor) -> DTensor:
    return DTensor.from_local(
        part.detach(),
        parameter.device_mesh,
        parameter.placements,
        run_check=False,
        shape=parameter.shape,
        stride=parameter.stride(),
    )


def _aligned(gradient: Tensor) -> Tensor:
    """Itself, or a copy at an address of its own if it begins within another one's last bytes."""
    return gradient.clone() if gradient.data_ptr() % _ALIGNMENT else gradient
