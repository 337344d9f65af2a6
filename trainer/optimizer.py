"""AdamW (Loshchilov and Hutter 2019) with the settings that every mode of the trainer uses."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

BETAS = (0.9, 0.95)
EPS = 1e-8
WEIGHT_DECAY = 0.1


class AdamW(torch.optim.AdamW):
    """torch's AdamW, whose step clips by a coefficient and can be called off on the device.

    State exists from construction on. On CUDA one kernel does the whole step without telling the
    host anything, so that a step can be captured in a CUDA graph; on the CPU torch's own does.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], lr: float) -> None:
        super().__init__(groups, lr=lr, betas=BETAS, eps=EPS, foreach=True)
        parameters = [p for group in self.param_groups for p in group["params"]]
        self._step_count = torch.zeros((), dtype=torch.float32, device=parameters[0].device)
        self._rate = torch.zeros((), dtype=torch.float64, device=parameters[0].device)
        self._tables: list[Tensor] = []
        self._addresses: list[list[int]] = []
        for parameter in parameters:
            # On the CPU torch advances each count by itself; the kernel advances one for all.
            count = self._step_count if parameter.is_cuda else self._step_count.clone()
            self.state[parameter] = {
                "step": count,
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }

    def set_rate(self, lr: float) -> None:
        """The learning rate of the steps that follow."""
        for group in self.param_groups:
            group["lr"] = lr
        self._rate.fill_(lr)

    @torch.no_grad()
    def step(self, coefficient: Tensor, halted: Tensor) -> None:  # type: ignore[override]
        """One update with gradients multiplied by `coefficient`; nothing at all if `halted`.

        Args:
            coefficient: scalar on the parameters' device.
            halted: bool scalar on the parameters' device.
        """
        if self._step_count.is_cuda:
            self._step_on_device(coefficient, halted)
        elif not halted:
            for group in self.param_groups:
                gradients = [p.grad for p in group["params"] if p.grad is not None]
                torch._foreach_mul_(gradients, coefficient.float())
            super().step()

    def _step_on_device(self, coefficient: Tensor, halted: Tensor) -> None:
        from trainer.kernels.adamw import adamw_blocks

        if not torch.cuda.is_current_stream_capturing():
            self.point_at_gradients()
        self._step_count += ~halted
        for group, table in zip(self.param_groups, self._tables, strict=True):
            beta1, beta2 = group["betas"]
            count = self._step_count.double()
            step_size = self._rate / (1 - beta1**count)
            root = (1 - beta2**count).sqrt()
            adamw_blocks(
                table,
                torch.stack((self._rate, step_size, root, coefficient.double())).float(),
                halted,
                betas=(beta1, beta2),
                eps=group["eps"],
                weight_decay=group["weight_decay"],
            )

    def point_at_gradients(self) -> None:
        """Tell the kernel where the gradients now lie."""
        from trainer.kernels.adamw import block_table

        groups = [[p for p in g["params"] if p.grad is not None] for g in self.param_groups]
        addresses = [[p.grad.data_ptr() for p in group if p.grad is not None] for group in groups]
        if addresses == self._addresses:
            return
        self._addresses = addresses
        tables = [
            block_table(
                group,
                [p.grad for p in group if p.grad is not None],
                [self.state[p]["exp_avg"] for p in group],
                [self.state[p]["exp_avg_sq"] for p in group],
            )
            for group in groups
        ]
        if [t.shape for t in tables] == [t.shape for t in self._tables]:
            for own, table in zip(self._tables, tables, strict=True):
                own.copy_(table)
        else:
            self._tables = [table.to(self._step_count.device) for table in tables]

    def hand_over_tables(self) -> list[Tensor]:
        """Give a graph that was just captured its tables, pointing at the gradients it writes.

        It reads them at every replay; later steps without it get tables of their own.
        """
        self.point_at_gradients()
        tables, self._tables, self._addresses = self._tables, [], []
        return tables


def build_optimizer(model: nn.Module, lr: float) -> AdamW:
    """Decoupled weight decay on matrices only: decaying norms and biases only shrinks scales."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": WEIGHT_DECAY},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return AdamW(groups, lr)
