"""What a person sees while a run goes on: a bar on a terminal, a line now and then elsewhere.

Everything goes to stderr; stdout belongs to ``--json``. It is fed with metrics that the log holds
already, so showing them waits for no device.
"""

from __future__ import annotations

import sys
import time
from datetime import timedelta

from tqdm import tqdm  # type: ignore[import-untyped]

from trainer.run.metrics import StepMetrics

LINE_PERIOD_S = 10.0


class Progress:
    """Shows the steps of one run.

    Args:
        first, planned: steps done before, and of the whole run.
        shown: False shows notices only.
        silent: not even notices.
        flops_per_token, peak_flops: for the model FLOPs utilisation; no peak shows none.
    """

    def __init__(
        self,
        first: int,
        planned: int,
        *,
        shown: bool,
        silent: bool = False,
        flops_per_token: float,
        peak_flops: float | None,
    ) -> None:
        self._first, self._planned, self._shown = first, planned, shown and not silent
        self._silent = silent
        self._utilisation = None if peak_flops is None else flops_per_token / peak_flops
        self._began = time.monotonic()
        self._last_line = -LINE_PERIOD_S
        self._bar = tqdm(
            total=planned,
            initial=first,
            unit="step",
            file=sys.stderr,
            dynamic_ncols=True,
            disable=not (self._shown and sys.stderr.isatty()),
        )

    def step(self, metrics: StepMetrics) -> None:
        """Show one more step."""
        if not self._bar.disable:
            self._bar.set_postfix_str(self._describe(metrics), refresh=False)
            self._bar.update()
        elif self._shown:
            now = time.monotonic()
            done = metrics.step + 1
            if now - self._last_line >= LINE_PERIOD_S or done == self._planned:
                self._last_line = now
                left = self._time_left(done, now)
                self.say(f"step {done}/{self._planned}  {self._describe(metrics)}  {left} left")

    def notice(self, text: str) -> None:
        """Say something that the user did not ask for but should know."""
        self.say(f"aprtrain: notice: {text}")

    def say(self, text: str) -> None:
        """Write a line without disturbing the bar."""
        if self._silent:
            return
        self._bar.write(text, file=sys.stderr)
        sys.stderr.flush()

    def close(self) -> None:
        """Leave the bar as it stands."""
        self._bar.close()

    def _describe(self, metrics: StepMetrics) -> str:
        rate = metrics.tokens_per_sec
        words = f"loss {metrics.train_loss:.4f}  lr {metrics.lr:.2e}  {rate:,.0f} tokens/s"
        if self._utilisation is not None:
            words += f"  MFU {100 * rate * self._utilisation:.1f} %"
        return words

    def _time_left(self, done: int, now: float) -> timedelta:
        each = (now - self._began) / (done - self._first)
        return timedelta(seconds=round(each * (self._planned - done)))
