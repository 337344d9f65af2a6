"""Parts of a subject that can be tried alone: its operators, its tokenizer, its saved state.

`falsifiers/subject.py` hands them out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor


class Operators(Protocol):
    """The operators of a decoder, each on tensors that the caller makes.

    Tensors lie on one device, in float32 or bfloat16, the compute dtype; parameters are float32.
    Each result has the compute dtype unless said otherwise, and is differentiable in every
    floating-point argument but `row_weights`.
    """

    def rmsnorm(self, x: Tensor, weight: Tensor, *, eps: float) -> Tensor:
        """``x / sqrt(mean(x²) + eps) * weight``: ``[..., C], [C] -> [..., C]``."""

    def rope(self, q: Tensor, k: Tensor, *, theta: float) -> tuple[Tensor, Tensor]:
        """``q [B, H, T, D], k [B, K, T, D]`` rotated in half-split pairs; position is T's index."""

    def swiglu(self, gate: Tensor, up: Tensor) -> Tensor:
        """``silu(gate) * up``: two tensors of one shape ``[..., F] -> [..., F]``."""

    def attention(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Causal ``softmax(q kᵀ / √D) v``: ``q [B, H, T, D], k and v [B, K, T, D] -> q``'s shape.

        K divides H; query head h reads key/value head ``h // (H / K)``.
        """

    def linear_cross_entropy(
        self, hidden: Tensor, weight: Tensor, targets: Tensor, row_weights: Tensor | None = None
    ) -> Tensor:
        """Sum of ``row_weight * -log softmax(hidden @ weight.T)[target]``: a float32 scalar, nats.

        ``hidden [N, C]``, ``weight [vocab, C]`` float32, ``targets [N]`` int64, ``row_weights
        [N]`` float32; None is all ones.
        """


class TextCodec(Protocol):
    """A tokenizer."""

    @property
    def vocab_size(self) -> int:
        """One more than the largest id."""

    def encode(self, text: str) -> list[int]:
        """Ids of `text`, nothing added around it."""

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids`."""


@dataclass(frozen=True)
class Moments:
    """AdamW's state of one parameter.

    Attributes:
        exp_avg: first moment, float32, the parameter's shape; live.
        exp_avg_sq: second moment, likewise.
        step: updates that the state has taken part in.
    """

    exp_avg: Tensor
    exp_avg_sq: Tensor
    step: int


@dataclass(frozen=True)
class Provenance:
    """What a checkpoint has to know besides the state of the instance.

    Attributes:
        dataset_sha256: of the prepared dataset; hex.
        accumulation: micro-batches of an optimizer step.
        seed: of weights and data order.
    """

    dataset_sha256: str
    accumulation: int
    seed: int = 0


@dataclass(frozen=True)
class Sampling:
    """How a token is drawn.

    Attributes:
        temperature: logits are divided by it; above 0.
        top_k: only the k most likely tokens can be drawn; None lets all.
        seed: of the draws.
    """

    temperature: float
    top_k: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class Generated:
    """A continuation.

    Attributes:
        ids: the new tokens.
        tokens_per_sec: decoded tokens by wall time, without reading the prompt; None for one token.
    """

    ids: Sequence[int]
    tokens_per_sec: float | None
