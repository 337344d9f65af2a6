"""Model FLOPs utilisation of other operations, or of another card."""

from __future__ import annotations

from typing import Any

from aprverify.planting import PROTOCOL, SOURCE, Plant, defect
from falsifiers.wrapping import SubjectWrapper


def _count_otherwise(plant: Plant, change: Any) -> None:
    def make(original: Any) -> Any:
        def flops_per_token(config: Any, seq_length: int) -> float:
            clean = original(config, seq_length)
            spoiled = change(clean, config, seq_length)
            plant.effect(spoiled != clean)
            return float(spoiled)

        return flops_per_token

    plant.patch("trainer.run.flops:flops_per_token", make)


def _attention(config: Any, seq_length: int) -> float:
    return float(12 * config.num_layers * config.num_heads * config.head_dim * seq_length)


@defect(
    "operations-without-attention",
    kind=SOURCE,
    imitates="6N, which is all that many trainers count",
    symptom="products of queries with keys and of weights with values are no operations",
    hidden="at a short context they are a few per cent",
)
def operations_without_attention(plant: Plant) -> None:
    """Leave attention out."""
    _count_otherwise(plant, lambda clean, config, length: clean - _attention(config, length))


@defect(
    "operations-of-a-causal-half",
    kind=SOURCE,
    imitates="FlashAttention's own count, which halves attention for causality",
    symptom="attention counts half, and the figure compares with no published one",
    hidden="it is what the kernel really does",
)
def operations_of_a_causal_half(plant: Plant) -> None:
    """Count half of attention."""
    _count_otherwise(plant, lambda clean, config, length: clean - _attention(config, length) / 2)


class _SparsePeak(SubjectWrapper):
    def peak_operations(self, card: str) -> float | None:
        """Twice the peak."""
        clean = self.inner.peak_operations(card)
        self.plant.effect(clean is not None)
        return None if clean is None else 2 * clean


@defect(
    "peak-with-sparsity",
    kind=PROTOCOL,
    imitates="the largest figure of a data sheet, which holds for 2:4 sparse products",
    symptom="every utilisation is half of what it is",
    hidden="a low utilisation is believed",
)
def peak_with_sparsity(plant: Plant) -> None:
    """See the class."""
    plant.wrap_subject(lambda subject: _SparsePeak(subject, plant))


@defect(
    "peak-of-the-first-name-that-fits",
    kind=SOURCE,
    imitates="a table of cards that is searched by substring, in its own order",
    symptom="a PCIe card is measured against the peak of its larger sister",
    hidden="both are an H100",
)
def peak_of_the_first_name_that_fits(plant: Plant) -> None:
    """Look the card up by the shortest name that fits."""

    def make(original: Any) -> Any:
        def peak_flops(card: str) -> float | None:
            shorter = card.replace(" PCIe", "")
            plant.effect(shorter != card)
            found = original(shorter)
            return None if found is None else float(found)

        return peak_flops

    plant.patch("trainer.run.flops:peak_flops", make)
