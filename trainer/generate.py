"""Text from a model: prefill the prompt, then one token at a time.

Greedy unless a temperature is given. On CUDA the step of one token is captured as a graph: it is
some thousand small kernels, and launching them one by one takes longer than running them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer import precision
from trainer.errors import ConfigurationError
from trainer.model.decoder import Decoder
from trainer.model.kv_cache import KvCache, cached_logits

_WARM_UP_STEPS = 2


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen.

    Attributes:
        temperature: 0 takes the most likely token; above, logits are divided by it.
        top_k: only the k most likely tokens can be drawn; None lets all.
        seed: of the draws. One seed gives one text on one kind of device.
    """

    temperature: float = 0.0
    top_k: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class Generation:
    """What was generated, and how fast.

    Attributes:
        ids: the new tokens; the stop token is not among them.
        stopped: whether the stop token ended it.
        prefill_seconds: until the prompt was read and the decoding step was ready.
        decode_seconds: for all tokens after the first, which prefill gives.
        decoded: tokens that were decoded in that time, the stop token included.
    """

    ids: list[int]
    stopped: bool
    prefill_seconds: float
    decode_seconds: float
    decoded: int

    @property
    def tokens_per_second(self) -> float | None:
        """Decode rate; None if the prompt gave the only token."""
        return self.decoded / self.decode_seconds if self.decoded else None


def generate(
    model: Decoder,
    prompt: Sequence[int],
    max_new_tokens: int,
    sampling: Sampling | None = None,
    stop: int | None = None,
) -> Generation:
    """Continue `prompt`, at most `max_new_tokens` tokens and up to the token `stop`.

    Raises:
        ConfigurationError: the prompt is empty or holds an id that the model does not have, or
            prompt and new tokens are more than the model's positions.
    """
    _require_ids(prompt, model.config.vocab_size)
    began = time.perf_counter()
    device = model.head_weight.device
    choose = _chooser(sampling or Sampling(), device)
    with torch.inference_mode(), precision.ieee_float32():
        cache = KvCache(model, len(prompt) + max_new_tokens)
        tokens = torch.tensor([list(prompt)], device=device)
        logits = cached_logits(model, cache, tokens, cache.slots[: len(prompt)])
        step = _decoding_step(model, cache, len(prompt)) if max_new_tokens > 1 else None
        token = choose(logits)
        started = time.perf_counter()
        ids: list[int] = []
        decoded = 0
        while token != stop:
            ids.append(token)
            if step is None or len(ids) == max_new_tokens:
                break
            token = choose(step(token))
            decoded += 1
        ended = time.perf_counter()
    return Generation(ids, token == stop, started - began, ended - started, decoded)


def _require_ids(prompt: Sequence[int], vocab_size: int) -> None:
    if not prompt:
        raise ConfigurationError("the prompt has no token; give it some text")
    low, high = min(prompt), max(prompt)
    if low < 0 or high >= vocab_size:
        raise ConfigurationError(
            f"the prompt holds ids {low} … {high}, the model has 0 … {vocab_size - 1}"
        )


def _chooser(sampling: Sampling, device: torch.device) -> Callable[[Tensor], int]:
    """From logits ``[vocab]`` to a token; this is where a step waits for the device."""
    if sampling.temperature == 0:
        return lambda logits: int(logits.argmax())
    generator = torch.Generator(device).manual_seed(sampling.seed)

    def draw(logits: Tensor) -> int:
        # From the largest down and in float64, so that no temperature makes infinity of it.
        scaled = (logits.double() - logits.max()) / sampling.temperature
        count = min(sampling.top_k or len(scaled), len(scaled))
        values, tokens = scaled.topk(count)
        drawn = torch.multinomial(values.softmax(-1), 1, generator=generator)
        return int(tokens[drawn])

    return draw


def _decoding_step(model: Decoder, cache: KvCache, first: int) -> Callable[[int], Tensor]:
    """From a token to the logits after it. Positions count up from `first`."""
    token = torch.zeros((1, 1), dtype=torch.int64, device=cache.slots.device)
    position = cache.slots[first : first + 1].clone()

    def forward() -> Tensor:
        logits = cached_logits(model, cache, token, position)
        position.add_(1)
        return logits

    if cache.slots.device.type != "cuda":

        def eager(following: int) -> Tensor:
            token.fill_(following)
            return forward()

        return eager
    # What warming up leaves at the first position, the first step overwrites.
    with torch.cuda.device(token.device):
        graph, logits = _captured(forward, reset=lambda: position.fill_(first))

    def replay(following: int, _kept: Tensor = position) -> Tensor:
        # The graph knows the position by its address alone, so something has to hold on to it.
        token.fill_(following)
        graph.replay()
        return logits

    return replay


def _captured(
    forward: Callable[[], Tensor], reset: Callable[[], object]
) -> tuple[torch.cuda.CUDAGraph, Tensor]:
    """The graph of `forward`, and the tensor that each replay fills; `reset` undoes a call."""
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(_WARM_UP_STEPS):
            forward()
            reset()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        logits = forward()
    return graph, logits
