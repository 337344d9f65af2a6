"""Gates that are nearly SiLU, and backward passes that are nearly theirs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from aprverify.planting import PROTOCOL, SOURCE, Plant, defect
from falsifiers.defects.differs import differs
from falsifiers.defects.slopes import spoiled_by
from falsifiers.wrapping_operators import OperatorsWrapper, wrap_operators

_FORWARD = "trainer.model.mlp:Gate.forward"


def _gate_with(plant: Plant, spoil: Callable[[Any, Any], Any]) -> None:
    """Let the gate be ``spoil(gate, up)``."""

    def make(original: Any) -> Any:
        def forward(module: Any, gate: Any, up: Any) -> Any:
            return spoiled_by(plant, partial(original, module), spoil, gate, up)

        return forward

    plant.patch(_FORWARD, make)


@defect(
    "swiglu-up-plus-one",
    kind=SOURCE,
    imitates="gpt-oss, whose gate multiplies by up + 1, on a model whose gate does not",
    symptom="the gated product is silu(gate) · (up + 1)",
    hidden="from scratch it trains as well, and the second factor is never zero on average",
)
def swiglu_up_plus_one(plant: Plant) -> None:
    """Add one."""
    from torch.nn import functional

    _gate_with(plant, lambda gate, up: functional.silu(gate) * (up + 1.0))


@defect(
    "swiglu-quick-gelu",
    kind=SOURCE,
    imitates="gpt-oss and CLIP, which take x · sigmoid(1.702 x) for the same thing",
    symptom="the sigmoid of the gate is 1.7 times as steep",
    hidden="it trains as well as SiLU",
)
def swiglu_quick_gelu(plant: Plant) -> None:
    """Steepen the sigmoid."""
    import torch

    _gate_with(plant, lambda gate, up: gate * torch.sigmoid(1.702 * gate) * up)


@defect(
    "swiglu-gate-clamped-at-seven",
    kind=SOURCE,
    imitates="gpt-oss, which limits the gate to 7, on a model that does not",
    symptom="a gate above 7 counts as 7 and gets no gradient",
    hidden="early in training no gate is that large",
)
def swiglu_gate_clamped_at_seven(plant: Plant) -> None:
    """Clamp from above."""
    from torch.nn import functional

    _gate_with(plant, lambda gate, up: functional.silu(gate.clamp(max=7.0)) * up)


@defect(
    "swiglu-sigmoid-in-bfloat16",
    kind=SOURCE,
    imitates="lightning-thunder#725: one operator that is left in the narrow dtype",
    symptom="the sigmoid is rounded to bfloat16 in a float32 model",
    hidden="0.2 % of single activations averages out in the projection that follows",
)
def swiglu_sigmoid_in_bfloat16(plant: Plant) -> None:
    """Round the sigmoid."""
    import torch

    _gate_with(plant, lambda gate, up: gate * torch.sigmoid(gate).bfloat16().to(gate.dtype) * up)


@defect(
    "swiglu-slope-lacks-a-term",
    kind=SOURCE,
    imitates="a hand-written backward that takes the sigmoid for the derivative of SiLU",
    symptom="the gradient of the gate lacks silu · (1 - sigmoid)",
    hidden="the forward pass is right, and the sign of the gradient is for every positive gate",
)
def swiglu_slope_lacks_a_term(plant: Plant) -> None:
    """Keep the gradient out of the sigmoid."""

    def make(original: Any) -> Any:
        def forward(module: Any, gate: Any, up: Any) -> Any:
            plant.effect(gate.requires_grad and gate.numel() > 0)
            return gate * gate.detach().sigmoid() * up

        return forward

    plant.patch(_FORWARD, make)


@defect(
    "swiglu-of-nothing-detached",
    kind=SOURCE,
    imitates="an early return for an empty batch that allocates the result by itself",
    symptom="with no rows the result belongs to no graph, and backward fails or gives none",
    hidden="only a rank or an expert without a token ever comes here",
)
def swiglu_of_nothing_detached(plant: Plant) -> None:
    """Return early."""

    def make(original: Any) -> Any:
        def forward(module: Any, gate: Any, up: Any) -> Any:
            plant.effect(gate.numel() == 0)
            return original(module, gate, up) if gate.numel() else up.new_empty(up.shape)

        return forward

    plant.patch(_FORWARD, make)


class _AtLeastOneRow(OperatorsWrapper):
    def swiglu(self, gate: Any, up: Any) -> Any:
        """A row of zeros where there was none."""
        import torch

        self.plant.effect(gate.numel() == 0)
        out = self.inner.swiglu(gate, up)
        if gate.numel():
            return out
        return torch.cat((out.flatten(0, -2), out.new_zeros(1, out.shape[-1])))


@defect(
    "swiglu-of-nothing-is-a-row",
    kind=PROTOCOL,
    imitates="a launch grid of at least one block, and a result of its size",
    symptom="no rows in, one row of zeros out",
    hidden="only a rank or an expert without a token ever comes here",
)
def swiglu_of_nothing_is_a_row(plant: Plant) -> None:
    """See the class."""
    wrap_operators(plant, _AtLeastOneRow)


class _Swapped(OperatorsWrapper):
    def swiglu(self, gate: Any, up: Any) -> Any:
        """silu(up) · gate."""
        self.plant.effect(differs(gate, up))
        return self.inner.swiglu(up, gate)


@defect(
    "swiglu-halves-swapped",
    kind=PROTOCOL,
    imitates="a joint matrix read as up and gate instead of gate and up, as layouts differ",
    symptom="up goes through SiLU, and gate is multiplied",
    hidden="from scratch the two are exchangeable; only loaded weights are wrong",
)
def swiglu_halves_swapped(plant: Plant) -> None:
    """See the class."""
    wrap_operators(plant, _Swapped)


class _Flatter(OperatorsWrapper):
    def swiglu(self, gate: Any, up: Any) -> Any:
        """gate · sigmoid(0.99 gate) · up."""
        self.plant.effect(gate.numel() > 0)
        return self.inner.swiglu(0.99 * gate, up) / 0.99


@defect(
    "swiglu-sigmoid-flatter",
    kind=PROTOCOL,
    imitates="Swish with a trained beta near one in place of SiLU",
    symptom="the sigmoid is 1 % flatter, so the minimum is 1 % deeper",
    hidden="no output differs by more than 0.3 % of its gate",
)
def swiglu_sigmoid_flatter(plant: Plant) -> None:
    """See the class."""
    wrap_operators(plant, _Flatter)


class _Saturates(OperatorsWrapper):
    def swiglu(self, gate: Any, up: Any) -> Any:
        """The product with gates of at most 64."""
        limited = gate.clamp(max=64.0)
        self.plant.effect(differs(gate, limited))
        return self.inner.swiglu(limited, up)


@defect(
    "swiglu-gate-saturates",
    kind=PROTOCOL,
    imitates="a clamp against overflow of the exponential, applied to the gate itself",
    symptom="a gate above 64 counts as 64",
    hidden="gates that large are rare, and there a loss of slope looks like convergence",
)
def swiglu_gate_saturates(plant: Plant) -> None:
    """See the class."""
    wrap_operators(plant, _Saturates)


@defect(
    "joint-gate-gradient-lacks-tail",
    kind=SOURCE,
    imitates="a launch grid rounded down to whole blocks of 1024 columns",
    symptom="on the fast path the columns after the last whole block get no gradient",
    hidden="the forward pass is right, and most of every row's gradient",
)
def joint_gate_gradient_lacks_tail(plant: Plant) -> None:
    """Clear the gradient of the gate's tail."""

    def make(original: Any) -> Any:
        def backward(ctx: Any, grad: Any) -> Any:
            clean = original(ctx, grad)
            size = grad.shape[-1]
            spoiled = clean.clone()
            spoiled[..., (size // 1024 * 1024 or size) : size] = 0.0
            plant.effect(differs(clean, spoiled))
            return spoiled

        return backward

    plant.patch("trainer.model.mlp:_JointGate.backward", make)


@defect(
    "joint-gate-slope-lacks-a-term",
    kind=SOURCE,
    imitates="a hand-written backward kernel that takes the sigmoid for SiLU's derivative",
    symptom="on the fast path the gradient of the gate lacks silu · (1 - sigmoid)",
    hidden="the forward pass is right, and so is everything that runs eager",
)
def joint_gate_slope_lacks_a_term(plant: Plant) -> None:
    """Replace the gate's half of the gradient."""

    def make(original: Any) -> Any:
        def backward(ctx: Any, grad: Any) -> Any:
            clean = original(ctx, grad)
            gate, up = (x.float() for x in ctx.saved_tensors[0].chunk(2, dim=-1))
            spoiled = clean.clone()
            spoiled[..., : grad.shape[-1]] = (grad.float() * up * gate.sigmoid()).to(clean.dtype)
            plant.effect(differs(clean, spoiled))
            return spoiled

        return backward

    plant.patch("trainer.model.mlp:_JointGate.backward", make)
