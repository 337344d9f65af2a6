"""Draws whose odds are not those of the logits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from aprverify.planting import PROTOCOL, SOURCE, Plant, defect
from falsifiers.wrapping import InstanceWrapper, wrap_instances


def _sample_otherwise(plant: Plant, change: Any) -> None:
    """Draw by `change(sampling)` instead."""

    def make(original: Any) -> Any:
        def chooser(sampling: Any, device: Any) -> Any:
            changed = change(sampling) if sampling.temperature else sampling
            plant.effect(changed != sampling)
            return original(changed, device)

        return chooser

    plant.patch("trainer.generate:_chooser", make)


@defect(
    "temperature-ignored",
    kind=SOURCE,
    imitates="transformers: a temperature without do_sample=True is a warning, and no temperature",
    symptom="every temperature draws as 1 does",
    hidden="texts vary from seed to seed, as sampled texts should",
)
def temperature_ignored(plant: Plant) -> None:
    """Draw at temperature 1."""
    _sample_otherwise(plant, lambda sampling: replace(sampling, temperature=1.0))


@defect(
    "temperature-multiplies",
    kind=SOURCE,
    imitates="an inverse temperature that is taken for a temperature",
    symptom="a high temperature makes draws more certain instead of less",
    hidden="at temperature 1 both are the same",
)
def temperature_multiplies(plant: Plant) -> None:
    """Divide by the inverse."""
    _sample_otherwise(
        plant, lambda sampling: replace(sampling, temperature=1 / sampling.temperature)
    )


@defect(
    "top-k-one-too-many",
    kind=SOURCE,
    imitates="a threshold at the k-th value from the end, counted from 0",
    symptom="the k+1 most likely tokens can be drawn",
    hidden="the token too many is the least likely one",
)
def top_k_one_too_many(plant: Plant) -> None:
    """Let one token more be drawn."""
    _sample_otherwise(
        plant, lambda sampling: replace(sampling, top_k=sampling.top_k and sampling.top_k + 1)
    )


@defect(
    "top-k-drawn-evenly",
    kind=SOURCE,
    imitates="random.choice over the candidates that a filter left",
    symptom="each of the k most likely tokens is drawn equally often",
    hidden="no unlikely token ever comes",
)
def top_k_drawn_evenly(plant: Plant) -> None:
    """Draw at a temperature at which all are alike."""
    _sample_otherwise(plant, lambda sampling: replace(sampling, temperature=1e6))


class _SeedLost(InstanceWrapper):
    def generate(self, prompt: Any, max_new_tokens: int, *sampling: Any) -> Any:
        """A continuation drawn by seed 0."""
        seedless = [replace(how, seed=0) for how in sampling if how is not None]
        self.plant.effect(seedless != [how for how in sampling if how is not None])
        return self.inner.generate(prompt, max_new_tokens, *seedless)


@defect(
    "sampling-seed-lost",
    kind=PROTOCOL,
    imitates="a seed that is parsed and not passed on to the generator",
    symptom="every seed gives the same text",
    hidden="the text is a fair draw",
)
def sampling_seed_lost(plant: Plant) -> None:
    """See the class."""
    wrap_instances(plant, _SeedLost)
