"""Decoding that is fluent and wrong, or right and slow."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from aprverify.planting import PROTOCOL, SOURCE, Plant, defect
from falsifiers.defects.differs import differs
from falsifiers.wrapping import InstanceWrapper, wrap_instances

_STEP = "trainer.generate:_decoding_step"
_CACHED = "trainer.generate:cached_logits"


class _PromptCutOff(InstanceWrapper):
    def generate(self, prompt: Any, max_new_tokens: int, *sampling: Any) -> Any:
        """A continuation of the prompt without its first token."""
        self.plant.effect(len(prompt) > 1)
        return self.inner.generate(list(prompt)[1:], max_new_tokens, *sampling)


@defect(
    "prompt-loses-its-first-token",
    kind=PROTOCOL,
    imitates="a window that slides one token too early",
    symptom="decoding never sees the first token of the prompt",
    hidden="the continuation is as fluent, and mostly the same",
)
def prompt_loses_its_first_token(plant: Plant) -> None:
    """See the class."""
    wrap_instances(plant, _PromptCutOff)


@defect(
    "cache-skips-a-slot",
    kind=SOURCE,
    imitates="a position that is advanced once too often between prefill and decoding",
    symptom="an empty slot of the cache stands between prompt and continuation and is attended to",
    hidden="an empty slot takes a small share of each softmax, and text stays fluent",
)
def cache_skips_a_slot(plant: Plant) -> None:
    """Begin to decode one position late."""

    def make(original: Any) -> Any:
        def decoding_step(model: Any, cache: Any, first: int) -> Any:
            late = first + 1 < len(cache.slots)
            plant.effect(late)
            return original(model, cache, first + late)

        return decoding_step

    plant.patch(_STEP, make)


@defect(
    "cache-forgets-the-prompt",
    kind=SOURCE,
    imitates="a cache that is allocated anew between prefill and decoding",
    symptom="decoding attends to its own tokens only, the keys of the prompt are zeros",
    hidden="each new token follows from the last one as plausibly as before",
)
def cache_forgets_the_prompt(plant: Plant) -> None:
    """Clear what prefill has written."""

    def make(original: Any) -> Any:
        def decoding_step(model: Any, cache: Any, first: int) -> Any:
            before = cache.keys.clone()
            cache.keys.zero_()
            cache.values.zero_()
            plant.effect(differs(before, cache.keys))
            return original(model, cache, first)

        return decoding_step

    plant.patch(_STEP, make)


@defect(
    "decoding-does-not-see-itself",
    kind=SOURCE,
    imitates="a mask of slots below the position, where up to the position was meant",
    symptom="in decoding a token attends to those before it, and not to itself",
    hidden="prefill and training are right, and one key of many is missing",
)
def decoding_does_not_see_itself(plant: Plant) -> None:
    """Hide from each new token its own slot."""

    def make(original: Any) -> Any:
        def attend(attention: Any, x: Any, buffers: Any, positions: Any, visible: Any) -> Any:
            if x.shape[1] > 1:  # prefill
                return original(attention, x, buffers, positions, visible)
            plant.effect(True)
            return original(attention, x, buffers, positions, visible & visible.roll(-1, 1))

        return attend

    plant.patch("trainer.model.kv_cache:_attend", make)


class _EveryTokenLate(InstanceWrapper):
    def generate(self, prompt: Any, max_new_tokens: int, *sampling: Any) -> Any:
        """The same ids, 12 ms a token later; the reported rate is as before."""
        made = self.inner.generate(prompt, max_new_tokens, *sampling)
        self.plant.effect(bool(made.ids))
        time.sleep(0.012 * len(made.ids))
        return made


@defect(
    "decoding-slower-than-reported",
    kind=PROTOCOL,
    imitates="a rate that counts the kernels and leaves out the host between them",
    symptom="each token takes 12 ms longer than the reported rate says",
    hidden="the report says what it always said",
)
def decoding_slower_than_reported(plant: Plant) -> None:
    """See the class."""
    wrap_instances(plant, _EveryTokenLate)


@defect(
    "graph-captured-for-every-block",
    kind=SOURCE,
    imitates="a CUDA graph keyed by a block of eight positions, so that each block makes one",
    symptom="every eighth token pays for warm-up and capture",
    hidden="ids are right; only the rate suffers",
)
def graph_captured_for_every_block(plant: Plant) -> None:
    """Make a decoding step for each eight tokens."""

    def make(original: Any) -> Any:
        def decoding_step(model: Any, cache: Any, first: int) -> Any:
            made = 0
            captured: Any = None

            def step(token: int) -> Any:
                nonlocal made, captured
                if made % 8 == 0:
                    plant.effect(made > 0)
                    captured = original(model, cache, first + made)
                made += 1
                return captured(token).clone()

            return step

        return decoding_step

    plant.patch(_STEP, make)


class _RepeatsItself(InstanceWrapper):
    def generate(self, prompt: Any, max_new_tokens: int, *sampling: Any) -> Any:
        """The prompt's last token, over and over."""
        made = self.inner.generate(prompt, max_new_tokens, *sampling)
        spoiled = [prompt[-1]] * len(made.ids)
        self.plant.effect(list(made.ids) != spoiled)
        return replace(made, ids=spoiled)


@defect(
    "decoding-repeats-itself",
    kind=PROTOCOL,
    imitates="a decoder that is fed its prompt instead of what it chose",
    symptom="the last token of the prompt is all that comes",
    hidden="held-out loss and perplexity never decode",
)
def decoding_repeats_itself(plant: Plant) -> None:
    """See the class."""
    wrap_instances(plant, _RepeatsItself)
