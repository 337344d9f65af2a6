"""Rotations by other angles, of other lengths, or not turned back."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from aprverify.planting import PROTOCOL, SOURCE, Plant, defect
from falsifiers.defects.differs import differs
from falsifiers.wrapping_operators import OperatorsWrapper, wrap_operators

_TABLES = "trainer.model.rope:rope_tables"
_JOINT_BACKWARD = "trainer.model.rope:_SplitAndRotate.backward"


@defect(
    "rope-tables-in-bfloat16",
    kind=SOURCE,
    imitates="transformers#29285, gpt-neox#1003: tables kept in the dtype of the model",
    symptom="cosines and sines are rounded to bfloat16, so that turning also stretches",
    hidden="each pair is off by 0.2 %, whatever the position, like noise of the dtype",
)
def rope_tables_in_bfloat16(plant: Plant) -> None:
    """Round the tables."""

    def make(original: Any) -> Any:
        def tables(head_dim: int, theta: float, max_positions: int) -> Any:
            clean = original(head_dim, theta, max_positions)
            rounded = tuple(table.bfloat16().float() for table in clean)
            plant.effect(differs(clean, rounded))
            return rounded

        return tables

    plant.patch(_TABLES, make)


@defect(
    "rope-angles-in-float32",
    kind=SOURCE,
    imitates="position times frequency in float32, as in most implementations",
    symptom="an angle of 1300 radians is off by up to 6e-5, one of 20000 by 1e-3",
    hidden="only the fastest pairs of far positions are off, and short tests have neither",
)
def rope_angles_in_float32(plant: Plant) -> None:
    """Compute frequencies and angles in float32."""

    def make(original: Any) -> Any:
        def tables(head_dim: int, theta: float, max_positions: int) -> Any:
            import torch

            clean = original(head_dim, theta, max_positions)
            exponents = torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim
            angles = torch.outer(torch.arange(max_positions).float(), 1.0 / theta**exponents)
            narrow = (angles.cos(), angles.sin())
            plant.effect(differs(clean, narrow))
            return narrow

        return tables

    plant.patch(_TABLES, make)


@defect(
    "rope-tables-from-one",
    kind=SOURCE,
    imitates="positions counted from 1, as where position 0 stands for padding",
    symptom="queries and keys are both turned one position too far",
    hidden="attention depends on differences of positions only, so no loss can show it",
)
def rope_tables_from_one(plant: Plant) -> None:
    """Leave out the first row."""

    def make(original: Any) -> Any:
        def tables(head_dim: int, theta: float, max_positions: int) -> Any:
            plant.effect(max_positions > 0)
            return tuple(t[1:] for t in original(head_dim, theta, max_positions + 1))

        return tables

    plant.patch(_TABLES, make)


class _Stretched(OperatorsWrapper):
    def rope(self, q: Any, k: Any, *, theta: float) -> Any:
        """Rotated, and longer by a two-hundredth."""
        self.plant.effect(q.numel() > 0)
        return tuple(1.005 * x for x in self.inner.rope(q, k, theta=theta))


@defect(
    "rope-attention-factor",
    kind=PROTOCOL,
    imitates="YaRN's factor 0.1 ln s + 1 on a model whose context is not stretched",
    symptom="queries and keys are multiplied by 1.005 as they are rotated",
    hidden="it is a softmax that is 1 % sharper, which training compensates",
)
def rope_attention_factor(plant: Plant) -> None:
    """See the class."""
    wrap_operators(plant, _Stretched)


class _KeysAhead(OperatorsWrapper):
    def rope(self, q: Any, k: Any, *, theta: float) -> Any:
        """Queries as they should be, keys one position further."""
        import torch

        behind_one = torch.cat((k.new_zeros(*k.shape[:2], 1, k.shape[3]), k), 2)
        ahead = self.inner.rope(behind_one, behind_one, theta=theta)[1][:, :, 1:]
        turned_q, turned_k = self.inner.rope(q, k, theta=theta)
        self.plant.effect(differs(turned_k, ahead))
        return turned_q, ahead


@defect(
    "rope-keys-one-ahead",
    kind=PROTOCOL,
    imitates="a key cache that counts the position after it has stored the key",
    symptom="keys are rotated one position further than queries",
    hidden="a constant offset between q and k trains well from scratch",
)
def rope_keys_one_ahead(plant: Plant) -> None:
    """See the class."""
    wrap_operators(plant, _KeysAhead)


class _Wrapped(OperatorsWrapper):
    def rope(self, q: Any, k: Any, *, theta: float) -> Any:
        """Positions modulo 2048."""
        import torch

        self.plant.effect(q.shape[2] > 2048)
        parts = [
            self.inner.rope(a, b, theta=theta)
            for a, b in zip(q.split(2048, 2), k.split(2048, 2), strict=True)
        ]
        return tuple(torch.cat(part, 2) for part in zip(*parts, strict=True))


@defect(
    "rope-positions-wrap",
    kind=PROTOCOL,
    imitates="tables for 2048 positions that a longer sequence reads from the start again",
    symptom="position 2048 is rotated like position 0",
    hidden="sequences up to 2048 are right, and longer ones still learn from near tokens",
)
def rope_positions_wrap(plant: Plant) -> None:
    """See the class."""
    wrap_operators(plant, _Wrapped)


class _NotTurnedBack(OperatorsWrapper):
    def rope(self, q: Any, k: Any, *, theta: float) -> Any:
        """Rotated queries whose gradient passes through as it is."""
        turned_q, turned_k = self.inner.rope(q, k, theta=theta)
        self.plant.effect(differs(q, turned_q))
        return q + (turned_q - q).detach(), turned_k


@defect(
    "rope-gradient-not-turned-back",
    kind=PROTOCOL,
    imitates="a fused rotation whose backward was never written",
    symptom="the gradient of q is not rotated back",
    hidden="the forward pass is right, and slow pairs and first positions hardly turn at all",
)
def rope_gradient_not_turned_back(plant: Plant) -> None:
    """See the class."""
    wrap_operators(plant, _NotTurnedBack)


class _GradientAhead(OperatorsWrapper):
    def rope(self, q: Any, k: Any, *, theta: float) -> Any:
        """Rotated keys whose gradient is a hundredth larger."""
        turned_q, turned_k = self.inner.rope(q, k, theta=theta)
        self.plant.effect(k.numel() > 0)
        return turned_q, turned_k + 0.01 * (turned_k - turned_k.detach())


@defect(
    "rope-gradient-stretched",
    kind=PROTOCOL,
    imitates="a scale that is folded into the rotation forward and not undone backward",
    symptom="the gradient of k is 1 % too large",
    hidden="the forward pass is bit for bit right",
)
def rope_gradient_stretched(plant: Plant) -> None:
    """See the class."""
    wrap_operators(plant, _GradientAhead)


@defect(
    "joint-rotation-not-reversed",
    kind=SOURCE,
    imitates="a backward kernel that copies the signs of the forward one",
    symptom="on the fast path the gradients of q and k are turned on instead of back",
    hidden="the forward pass is right, position 0 is, and norms of gradients are",
)
def joint_rotation_not_reversed(plant: Plant) -> None:
    """Give the kernel the negated sines."""

    def make(original: Any) -> Any:
        def backward(ctx: Any, *gradients: Any) -> Any:
            cos, sin = ctx.saved_tensors
            spoiled = original(SimpleNamespace(saved_tensors=(cos, -sin)), *gradients)
            plant.effect(differs(original(ctx, *gradients)[0], spoiled[0]))
            return spoiled

        return backward

    plant.patch(_JOINT_BACKWARD, make)


@defect(
    "joint-rotation-lacks-last-key-head",
    kind=SOURCE,
    imitates="a block of heads rounded down to a power of two instead of up",
    symptom="on the fast path the last of three key heads gets no gradient",
    hidden="with one, two, four or eight key heads, as most models have, it is right",
)
def joint_rotation_lacks_last_key_head(plant: Plant) -> None:
    """Clear the gradient of the key heads beyond the power of two."""

    def make(original: Any) -> Any:
        def backward(ctx: Any, grad_q: Any, grad_k: Any, grad_v: Any) -> Any:
            joint, *rest = original(ctx, grad_q, grad_k, grad_v)
            heads, key_heads, size = grad_q.shape[1], grad_k.shape[1], grad_k.shape[-1]
            kept = 1 << (key_heads.bit_length() - 1)
            spoiled = joint.clone()
            spoiled[..., (heads + kept) * size : (heads + key_heads) * size] = 0.0
            plant.effect(differs(joint, spoiled))
            return spoiled, *rest

        return backward

    plant.patch(_JOINT_BACKWARD, make)
