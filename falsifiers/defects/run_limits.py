"""Limits that end a run too late, too early or never."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aprverify.planting import PROTOCOL, SOURCE, Plant, defect
from falsifiers.wrapping import InstanceWrapper, SubjectWrapper, wrap_instances


@defect(
    "growth-limit-is-an-addend",
    kind=SOURCE,
    imitates="a tolerance of 2.0 that one place multiplies and another adds",
    symptom="a loss below 2 may more than double, one above may not even double",
    hidden="at a loss of 2 both rules are the same, and most runs are near it",
)
def growth_limit_is_an_addend(plant: Plant) -> None:
    """Compare with the loss before plus 2."""

    def make(original: Any) -> Any:
        def require_convergence(losses: Sequence[float], mode: str, vocab_size: int) -> None:
            seen = list(losses)
            if len(seen) > 1:
                seen[-2] = seen[-2] / 2 + 1  # twice that is the loss before plus 2
            plant.effect(seen != list(losses))
            original(seen, mode, vocab_size)

        return require_convergence

    plant.patch("trainer.run.guards:require_convergence", make)


class _FromTheBest(SubjectWrapper):
    def status_after_epoch(self, val_losses: Sequence[float], **options: Any) -> Any:
        """The status where the least loss so far was the one before."""
        losses = list(val_losses)
        if len(losses) > 1:
            losses[-2] = min(losses[:-1])
        self.plant.effect(losses != list(val_losses))
        return self.inner.status_after_epoch(losses, **options)


@defect(
    "growth-from-the-best-loss",
    kind=PROTOCOL,
    imitates="an early-stopping callback's best score, used for divergence as well",
    symptom="a loss that rises slowly over several epochs ends the run",
    hidden="where the loss only falls the best is the one before",
)
def growth_from_the_best_loss(plant: Plant) -> None:
    """See the class."""
    plant.wrap_subject(lambda subject: _FromTheBest(subject, plant))


@defect(
    "first-epoch-ceiling-raised",
    kind=SOURCE,
    imitates="a ceiling that was raised for one run that did not start, and stayed",
    symptom="a first held-out loss of up to three times that of guessing passes",
    hidden="a run that learns starts below that of guessing",
)
def first_epoch_ceiling_raised(plant: Plant) -> None:
    """Raise either ceiling by half."""

    def make(original: Any) -> Any:
        def ceiling(mode: str, vocab_size: int) -> float:
            plant.effect(True)
            return 1.5 * float(original(mode, vocab_size))

        return ceiling

    plant.patch("trainer.run.guards:first_epoch_ceiling", make)


class _LimitNotPassedOn(InstanceWrapper):
    def run(self, batches: Any, **options: Any) -> Any:
        """The same run without a least throughput."""
        self.plant.effect(options.pop("min_tokens_per_sec", None) is not None)
        return self.inner.run(batches, **options)


@defect(
    "throughput-limit-not-passed-on",
    kind=PROTOCOL,
    imitates="an option that is parsed, printed with the configuration and never read",
    symptom="a run that is far below its least throughput goes on",
    hidden="a run on a good machine is above it",
)
def throughput_limit_not_passed_on(plant: Plant) -> None:
    """See the class."""
    wrap_instances(plant, _LimitNotPassedOn)


@defect(
    "throughput-judged-by-one-step",
    kind=SOURCE,
    imitates="a watchdog without a window: the first step, which warms up, ends the job",
    symptom="one slow step ends a run that is fast enough",
    hidden="the message is the right one",
)
def throughput_judged_by_one_step(plant: Plant) -> None:
    """Fill the window with the first step's rate."""

    def make(original: Any) -> Any:
        def add(guard: Any, tokens_per_sec: float) -> None:
            window = guard._rates.maxlen
            plant.effect(guard._least is not None and len(guard._rates) < window - 1)
            guard._rates.extend([tokens_per_sec] * (window - 1))
            original(guard, tokens_per_sec)

        return add

    plant.patch("trainer.run.guards:ThroughputGuard.add", make)
