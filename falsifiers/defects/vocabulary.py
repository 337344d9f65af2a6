"""Tokenizers and models that do not fit, and nobody who says so."""

from __future__ import annotations

from typing import Any

from aprverify.planting import PROTOCOL, SOURCE, Plant, defect
from falsifiers.subject import SubjectRefused
from falsifiers.wrapping import SubjectWrapper

_CHECK = "trainer.tokenizer:require_fitting_vocabulary"


class _LastIdUncounted:
    """A codec that counts its bytes and merges and forgets the token that ends a text."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    @property
    def vocab_size(self) -> int:
        """One too few."""
        return int(self._inner.vocab_size) - 1

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class _TokenizerCountsMerges(SubjectWrapper):
    def tokenizer(self, path: Any) -> Any:
        """The codec with the smaller size."""
        clean = self.inner.tokenizer(path)
        spoiled = _LastIdUncounted(clean)
        self.plant.effect(spoiled.vocab_size != clean.vocab_size)
        return spoiled


@defect(
    "end-of-text-uncounted",
    kind=PROTOCOL,
    imitates="a vocabulary size of 256 bytes and 50000 merges, without the added token",
    symptom="the tokenizer says 50256, and uses the id 50256",
    hidden="texts are encoded rightly until one of them ends",
)
def end_of_text_uncounted(plant: Plant) -> None:
    """See the classes."""
    plant.wrap_subject(lambda subject: _TokenizerCountsMerges(subject, plant))


@defect(
    "tokenizer-size-is-the-largest-id",
    kind=SOURCE,
    imitates="max(ids) where max(ids) + 1 was meant",
    symptom="every tokenizer's size is one too small",
    hidden="the last id is that of a token that ends texts, and seldom occurs",
)
def tokenizer_size_is_the_largest_id(plant: Plant) -> None:
    """Count one less."""

    def make(original: Any) -> Any:
        def rows(*arguments: Any) -> Any:
            clean = original(*arguments)
            plant.effect(clean > 0)
            return clean - 1

        return rows

    plant.patch("trainer.tokenizer:_rows", make)


@defect(
    "from-scratch-takes-a-smaller-tokenizer",
    kind=SOURCE,
    imitates="the rule for published models, which round their embedding up, applied to all",
    symptom="from scratch a tokenizer with fewer ids than the model has rows is taken",
    hidden="rows that no id names are never read, and nothing fails",
)
def from_scratch_takes_a_smaller_tokenizer(plant: Plant) -> None:
    """Check as if there were initial weights."""

    def make(original: Any) -> Any:
        def check(tokenizer_size: int, model_size: int, *, with_init: bool) -> None:
            plant.effect(not with_init and tokenizer_size < model_size)
            original(tokenizer_size, model_size, with_init=True)

        return check

    plant.patch(_CHECK, make)


@defect(
    "tokenizer-size-compared-with-last-row",
    kind=SOURCE,
    imitates="size <= rows where size < rows + 1 was rewritten by hand",
    symptom="one id more than there are rows is taken",
    hidden="the id one past the table reads whatever lies there, on some devices without an error",
)
def tokenizer_size_compared_with_last_row(plant: Plant) -> None:
    """Allow one id more."""

    def make(original: Any) -> Any:
        def check(tokenizer_size: int, model_size: int, *, with_init: bool) -> None:
            one_more = tokenizer_size == model_size + 1
            plant.effect(one_more)
            original(tokenizer_size - one_more, model_size, with_init=with_init)

        return check

    plant.patch(_CHECK, make)


class _SizeRefusalIgnored(SubjectWrapper):
    def require_fitting_tokenizer(self, size: int, config: Any, *, init: bool) -> None:
        """Go on where the trainer refuses."""
        try:
            self.inner.require_fitting_tokenizer(size, config, init=init)
        except SubjectRefused:
            self.plant.effect(True)


@defect(
    "tokenizer-refusal-ignored",
    kind=PROTOCOL,
    imitates="the seed: a tokenizer of another model was taken without a word",
    symptom="a tokenizer of any size is taken",
    hidden="ids below the number of rows all have an embedding",
)
def tokenizer_refusal_ignored(plant: Plant) -> None:
    """See the class."""
    plant.wrap_subject(lambda subject: _SizeRefusalIgnored(subject, plant))
