"""A step that was launched, and what it turns out to be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class StepResult:
    """What an optimizer step measured.

    Attributes:
        loss: mean negative log-likelihood per target token, nats.
        grad_norm: global L2 norm over every parameter's gradient, before clipping.
        taken: whether the weights were updated.
    """

    loss: float
    grad_norm: float
    taken: bool = True


class Reading:
    """A step's numbers on their way to the host, without making it wait for the device."""

    def __init__(self, loss: Tensor, norm: Tensor, halted: Tensor) -> None:
        numbers = torch.stack((loss.double(), norm.double(), halted.double()))
        self._arrived: torch.cuda.Event | None = None
        if numbers.is_cuda:
            self._host = torch.empty(3, dtype=torch.float64, pin_memory=True)
            self._host.copy_(numbers, non_blocking=True)
            self._arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._arrived.record(torch.cuda.current_stream(numbers.device))
        else:
            self._host = numbers

    def get(self) -> StepResult:
        """The numbers, once they have arrived."""
        if self._arrived is not None:
            self._arrived.synchronize()
        loss, norm, halted = self._host.tolist()
        return StepResult(loss, norm, taken=not halted)


class PendingStep:
    """An optimizer step that the device may still be working on.

    Attributes:
        step: optimizer steps done before this one, from 0.
        lr: the learning rate it is taken with.
        targets: target tokens it is taken over.
    """

    def __init__(
        self,
        step: int,
        lr: float,
        targets: int,
        reading: Reading,
        check: Callable[[int, StepResult], None],
    ) -> None:
        self.step = step
        self.lr = lr
        self.targets = targets
        self._reading = reading
        self._check = check

    def result(self) -> StepResult:
        """Wait for the step.

        Raises:
            NumericalInstability: loss or gradient norm of this step, or of one before it, is NaN or
                infinite. Neither that step nor any launched after it has moved a weight.
        """
        result = self._reading.get()
        self._check(self.step, result)
        return result
