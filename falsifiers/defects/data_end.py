"""What a trainer does when its data ends."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from aprverify.planting import PROTOCOL, SOURCE, Plant, defect
from falsifiers.wrapping import InstanceWrapper, wrap_instances


class _Padded(InstanceWrapper):
    """Fills the log up with a made-up step and reports success."""

    placeholder = 1.0

    def run(self, batches: Any, *, steps: int, **options: Any) -> Any:
        """The run, lengthened to what was asked for."""
        result = self.inner.run(batches, steps=steps, **options)
        missing = steps - len(result.logged)
        self.plant.effect(missing > 0)
        line = {**result.logged[-1], "train_loss": self.placeholder, "grad_norm": 1.0}
        return replace(result, status="OK", logged=[*result.logged, *[line] * missing])


class _PaddedPlausibly(_Padded):
    placeholder = 2.3456


@defect(
    "placeholder-on-exhaustion",
    kind=PROTOCOL,
    imitates="the seed: (1.0, 1.0) from an exhausted shard stream",
    symptom="steps without data are logged with loss 1.0 and gradient norm 1.0",
    hidden="the loss seems to have converged",
)
def placeholder_on_exhaustion(plant: Plant) -> None:
    """See the class."""
    wrap_instances(plant, _Padded)


@defect(
    "plausible-placeholder-on-exhaustion",
    kind=PROTOCOL,
    imitates="the seed, with a constant that no range check would question",
    symptom="steps without data are logged with loss 2.3456",
    hidden="it is the loss one hopes for",
)
def plausible_placeholder_on_exhaustion(plant: Plant) -> None:
    """See the class."""
    wrap_instances(plant, _PaddedPlausibly)


@defect(
    "last-batch-repeated",
    kind=SOURCE,
    imitates="a prefetcher that goes on yielding its last buffer",
    symptom="after the data ends the last batch is trained on again and again",
    hidden="the loss falls nicely: the batch is being memorised",
)
def last_batch_repeated(plant: Plant) -> None:
    """Remember the last batch and hand it out when there is no next."""
    latest: list[Any] = []

    def make(original: Any) -> Any:
        def next_batch(stream: Any, step: int, steps: int) -> Any:
            batch = next(stream, None)
            plant.effect(batch is None)
            if batch is not None:
                latest[:] = [batch]
            return latest[0]

        return next_batch

    plant.patch("trainer.run.loop:next_batch", make)
