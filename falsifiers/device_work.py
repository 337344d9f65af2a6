"""Work that a GPU is busy with for seconds: what is queued behind it has not happened yet."""

from __future__ import annotations

import torch

_CYCLES = 40_000_000
"""How long one kernel waits: 20 ms at 2 GHz."""

_KERNELS = 100
"""Two seconds. What the host does meanwhile, as it should, takes milliseconds."""


class DeviceWork:
    """Kernels on the current stream that wait and touch nothing. A CPU is never busy with any."""

    def __init__(self, device: str) -> None:
        self._cuda = device.startswith("cuda")
        self._ended: torch.cuda.Event | None = None

    def begin(self) -> None:
        """Queue them, once everything that was queued before is done."""
        if not self._cuda:
            return
        torch.cuda.synchronize()
        for _ in range(_KERNELS):
            torch.cuda._sleep(_CYCLES)  # type: ignore[no-untyped-call]
        self._ended = torch.cuda.current_stream().record_event()

    def wait(self) -> None:
        """Let the device come to their end, and to that of everything queued behind them."""
        if self._cuda:
            torch.cuda.synchronize()

    def is_over(self) -> bool:
        """Whether the device has come to their end; False where there are none."""
        return self._ended is not None and bool(self._ended.query())  # type: ignore[no-untyped-call]
