"""Writing to a tensor of which this rank may hold only a part."""

from __future__ import annotations

from torch import Tensor


def assign(target: Tensor, whole: Tensor) -> None:
    """Copy `whole`, on any device, to `target`; of a DTensor, to the part that lies here.

    DTensors are split along their first axis, as `sharded` does. Nothing is sent.
    """
    if not hasattr(target, "device_mesh"):  # isinstance would import DTensor, for 0.6 s
        target.copy_(whole)
        return
    part = target.to_local()  # type: ignore[attr-defined]
    mesh = target.device_mesh
    first = mesh.get_local_rank() * -(-whole.shape[0] // mesh.size())
    part.copy_(whole[first : first + part.shape[0]])
