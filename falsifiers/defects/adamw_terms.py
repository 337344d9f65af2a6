"""One term of AdamW wrong, or one property of its state."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from aprverify.planting import PROTOCOL, SOURCE, Plant, defect
from falsifiers.defects.differs import differs
from falsifiers.wrapping import InstanceWrapper, wrap_instances

_STEP = "trainer.optimizer:AdamW.step"


def _own_arithmetic(
    plant: Plant, update: Callable[[Any, Any, dict[str, Any], dict[str, Any]], None]
) -> None:
    """Let `update` move each parameter by its clipped gradient, instead of the optimizer."""
    import torch

    def make(original: Any) -> Any:
        @torch.no_grad()  # type: ignore[untyped-decorator, unused-ignore]
        def step(own: Any, coefficient: Any, halted: Any) -> None:
            if halted:
                return
            counts = {id(state["step"]): state["step"] for state in own.state.values()}
            for count in counts.values():  # on a GPU all parameters share one
                count += 1
            for group in own.param_groups:
                for parameter in group["params"]:
                    gradient = parameter.grad * coefficient.float()
                    plant.effect(bool(gradient.any()))
                    update(parameter, gradient, own.state[parameter], group)

        return step

    plant.patch(_STEP, make)


def _corrections(state: Mapping[str, Any], group: Mapping[str, Any]) -> tuple[float, float]:
    beta1, beta2 = group["betas"]
    count = float(state["step"])
    return 1 - beta1**count, 1 - beta2**count


@defect(
    "l2-for-decoupled-decay",
    kind=SOURCE,
    imitates="Adam with weight_decay, taken for AdamW (Loshchilov and Hutter 2019, section 2)",
    symptom="decay is added to the gradient, and divided by the root of the second moment",
    hidden="weights shrink, only all of them alike instead of in proportion",
)
def l2_for_decoupled_decay(plant: Plant) -> None:
    """Add the decay to the clipped gradient, and take it out of the update."""

    def make(original: Any) -> Any:
        def step(own: Any, coefficient: Any, halted: Any) -> None:
            decays = [group["weight_decay"] for group in own.param_groups]
            for group in own.param_groups:
                for parameter in group["params"]:
                    l2 = group["weight_decay"] * parameter.detach() / coefficient.float()
                    plant.effect(bool(l2.any()))
                    parameter.grad.add_(l2)
                group["weight_decay"] = 0.0
            original(own, coefficient, halted)
            for group, decay in zip(own.param_groups, decays, strict=True):
                group["weight_decay"] = decay

        return step

    plant.patch(_STEP, make)


@defect(
    "decay-not-times-rate",
    kind=SOURCE,
    imitates="the paper's own form, whose decay has a schedule apart from the rate",
    symptom="weights shrink by a thousandth of the decay a step, whatever the rate",
    hidden="at one rate the two forms are the same",
)
def decay_not_times_rate(plant: Plant) -> None:
    """Divide the decay by the rate that it will be multiplied by."""

    def make(original: Any) -> Any:
        def step(own: Any, coefficient: Any, halted: Any) -> None:
            decays = [group["weight_decay"] for group in own.param_groups]
            for group in own.param_groups:
                if group["lr"]:
                    group["weight_decay"] *= 1e-3 / group["lr"]
            pairs = zip(own.param_groups, decays, strict=True)
            plant.effect(any(group["weight_decay"] != decay for group, decay in pairs))
            original(own, coefficient, halted)
            for group, decay in zip(own.param_groups, decays, strict=True):
                group["weight_decay"] = decay

        return step

    plant.patch(_STEP, make)


class _Composed(InstanceWrapper):
    """Changes every gradient, those that a falsifier imposes included."""

    def __init__(self, inner: Any, plant: Plant) -> None:
        super().__init__(inner, plant)
        for name in inner.parameters():
            inner.on_gradient(name, lambda found, name=name: self._changed(name, found))

    def on_gradient(self, name: str, hook: Any) -> None:
        """The hook, and then the change."""
        self.inner.on_gradient(name, lambda found: self._changed(name, hook(found)))

    def _changed(self, name: str, gradient: Any) -> Any:
        changed = self.change(name, gradient)
        self.plant.effect(differs(gradient, changed))
        return changed

    def change(self, name: str, gradient: Any) -> Any:
        """The gradient to be used instead."""
        return gradient


class _L2InLoss(_Composed):
    def change(self, name: str, gradient: Any) -> Any:
        """With the gradient of ``0.0005 · |w|²`` added."""
        return gradient + 1e-3 * self.inner.parameters()[name]


@defect(
    "l2-penalty-in-the-loss",
    kind=PROTOCOL,
    imitates="a regulariser of the loss that was left in beside AdamW's decay",
    symptom="a thousandth of each weight is added to its gradient",
    hidden="the reported loss has no penalty, and weights stay as small as hoped",
)
def l2_penalty_in_the_loss(plant: Plant) -> None:
    """See the class."""
    wrap_instances(plant, _L2InLoss)


class _ThroughFloat16(_Composed):
    def change(self, name: str, gradient: Any) -> Any:
        """Rounded to float16, which ends at 65504 and at 6e-8."""
        return gradient.half().float()


@defect(
    "gradients-through-float16",
    kind=PROTOCOL,
    imitates="a gradient hook that compresses to float16 before the all-reduce",
    symptom="gradients above 65504 become infinite, those below 6e-8 zero",
    hidden="ordinary gradients lose three digits, which no curve shows",
)
def gradients_through_float16(plant: Plant) -> None:
    """See the class."""
    wrap_instances(plant, _ThroughFloat16)


@defect(
    "norm-squared-in-float32",
    kind=SOURCE,
    imitates="torch's default: norms accumulated in the gradient's own dtype",
    symptom="the sum of squares overflows above 1e19, and vanishes below 1e-23",
    hidden="no ordinary gradient is so large",
)
def norm_squared_in_float32(plant: Plant) -> None:
    """Sum the squares in float32."""
    import torch

    def make(original: Any) -> Any:
        def global_norm(parameters: Any) -> Any:
            own = list(parameters)
            squares = torch.stack([p.grad.square().sum() for p in own if p.grad is not None])
            spoiled = squares.sum().sqrt().double()
            plant.effect(differs(original(own), spoiled))
            return spoiled

        return global_norm

    plant.patch("trainer.gradients:global_norm", make)


@defect(
    "second-moment-of-products",
    kind=SOURCE,
    imitates="a fused update that multiplies the gradient by the moment that was just written",
    symptom="the second moment averages gradient times first moment, a tenth of g² at first",
    hidden="under a steady gradient the product is about the square",
)
def second_moment_of_products(plant: Plant) -> None:
    """Multiply by the first moment instead of by the gradient."""

    def update(parameter: Any, gradient: Any, state: dict[str, Any], group: dict[str, Any]) -> None:
        beta1, beta2 = group["betas"]
        first, second = _corrections(state, group)
        state["exp_avg"].lerp_(gradient, 1 - beta1)
        state["exp_avg_sq"].mul_(beta2).addcmul_(gradient, state["exp_avg"], value=1 - beta2)
        root = (state["exp_avg_sq"] / second).abs().sqrt()
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.addcdiv_(state["exp_avg"], root + group["eps"], value=-group["lr"] / first)

    _own_arithmetic(plant, update)


class _MomentsSwapped(InstanceWrapper):
    def optimizer_state(self) -> Any:
        """Each moment under the other's name."""
        self.plant.effect(True)
        state = self.inner.optimizer_state()
        return {n: replace(m, exp_avg=m.exp_avg_sq, exp_avg_sq=m.exp_avg) for n, m in state.items()}


@defect(
    "moments-under-each-others-name",
    kind=PROTOCOL,
    imitates="pytorch#1489: optimizer state that is mapped in another order",
    symptom="the first moment stands where the second belongs",
    hidden="shapes and dtypes are equal, so everything loads",
)
def moments_swapped(plant: Plant) -> None:
    """See the class."""
    wrap_instances(plant, _MomentsSwapped)


def _with_root(plant: Plant, root_of: Callable[[Any, float, float], Any]) -> None:
    """AdamW whose denominator is ``root_of(second moment, its correction, eps)``."""

    def update(parameter: Any, gradient: Any, state: dict[str, Any], group: dict[str, Any]) -> None:
        beta1, beta2 = group["betas"]
        first, second = _corrections(state, group)
        state["exp_avg"].lerp_(gradient, 1 - beta1)
        state["exp_avg_sq"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        root = root_of(state["exp_avg_sq"], second, group["eps"])
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.addcdiv_(state["exp_avg"], root, value=-group["lr"] / first)

    _own_arithmetic(plant, update)


@defect(
    "eps-inside-the-root",
    kind=SOURCE,
    imitates="other optimizers' convention (optax's eps_root): sqrt(v + eps)",
    symptom="eps acts like its own square root, 1e-4",
    hidden="gradients far above 1e-4 are stepped with as before",
)
def eps_inside_the_root(plant: Plant) -> None:
    """Add before the root is taken."""
    _with_root(plant, lambda moment, correction, eps: (moment / correction + eps).sqrt())


@defect(
    "eps-before-correction",
    kind=SOURCE,
    imitates="Kingma and Ba's efficient form, whose eps is another one (their ε hat)",
    symptom="eps is added before the second moment is corrected, and grows by up to 4.5",
    hidden="it fades within sixty steps, and concerns tiny gradients only",
)
def eps_before_correction(plant: Plant) -> None:
    """Correct root and eps together."""
    _with_root(plant, lambda moment, correction, eps: (moment.sqrt() + eps) / correction**0.5)


class _Uncorrected(InstanceWrapper):
    taken = 0

    def train_step(self, batch: Any, *, lr: float | None = None) -> Any:
        """A step at the rate that makes it one of Adam without bias correction."""
        self.taken += 1
        factor = (1 - 0.9**self.taken) / (1 - 0.95**self.taken) ** 0.5
        self.plant.effect(factor != 1)
        metrics = self.inner.train_step(batch, lr=None if lr is None else lr * factor)
        return metrics if lr is None else replace(metrics, lr=lr)


@defect(
    "bias-correction-left-out",
    kind=PROTOCOL,
    imitates="BertAdam, which corrected nothing",
    symptom="the first update is 0.45 of what it should be, and the tenth 1.03",
    hidden="a warm-up looks the same",
)
def bias_correction_left_out(plant: Plant) -> None:
    """See the class."""
    wrap_instances(plant, _Uncorrected)
