"""Is the gate silu(gate) · up, forward and backward, whatever its size and shape?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from falsifiers.fixtures import Case, Measured, Subject

if TYPE_CHECKING:
    from torch import Tensor

SHAPES = ((1, 1), (7,), (1, 1, 1), (3, 5, 33), (0, 16), (2, 0, 48), (3, 1025))
_LEAST_GATE = -40.0
"""Below, silu is so small that its product with a small up is subnormal: there a power of two does
not commute with rounding, and no relative error means anything."""
LOWEST_AT = -1.2784645427610738  # where silu is smallest: the root of 1 + x (1 − sigmoid(x))


def falsify_swiglu_of_zero_is_zero(subject: Subject, case: Case, measured: Measured) -> None:
    """A gate or an up of zero gives zero, and the gradients that the formula has there."""
    import torch

    from falsifiers.operator_trials import Errors, element_error, gaussian, torch_dtype, tried
    from falsifiers.subject import Execution

    swiglu = subject.operators(Execution(compiled=case.compiled)).swiglu
    seen = nonzero = 0
    errors = Errors()
    for index, shape in enumerate(SHAPES):
        seed = 100 * case.seed + 2 * index
        other = (3.0 * gaussian(shape, seed, case.device)).to(torch_dtype(case.dtype))
        zero = torch.zeros_like(other) * other.sign()  # minus zero is zero
        for name, arguments in (
            ("gate", {"gate": zero, "up": other}),
            ("up", {"gate": other, "up": zero}),
        ):
            trial, upstream = tried(swiglu, arguments, seed=seed + 1)
            wide, given = other.double(), upstream["out"].double()
            vanishes = "up" if name == "gate" else "gate"
            exact = given * (0.5 * wide if name == "gate" else wide * wide.sigmoid())
            seen += zero.numel()
            nonzero += int((trial.outputs["out"] != 0).sum())
            nonzero += int((trial.gradients[vanishes] != 0).sum())
            scale = exact.abs() * (1.0 + wide.abs())
            error = element_error(trial.gradients[name], exact, scale)
            errors.note("gradient", error, f"{name} is zero, {'x'.join(map(str, shape))}")
    measured(
        zeros=seen,
        nonzero=nonzero,
        gradient_error=errors.largest["gradient"],
        worst=errors.worst(),
    )


def falsify_swiglu_is_silu_times_up(subject: Subject, case: Case, measured: Measured) -> None:
    """The fused product is the closed form of silu times up, and grows with up alone."""
    from hypothesis import strategies as st

    from falsifiers.drawn_inputs import examples, powers_of_ten, widths
    from falsifiers.operator_trials import Errors, element_error, gaussian, torch_dtype, tried
    from falsifiers.subject import Execution

    swiglu = subject.operators(Execution(compiled=case.compiled)).swiglu
    errors, kind = Errors(), torch_dtype(case.dtype)
    drawn = examples(
        st.tuples(widths(1), powers_of_ten(-6, 1.5), powers_of_ten(-6, 6)),
        case.examples,
        case.seed,
        always=[(1, 1e-6, 1e-6), (257, 10**1.5, 1e6)],
    )
    for index, (width, size, up_size) in enumerate(drawn):
        seed = 1000 * case.seed + 3 * index
        gate = (size * gaussian((3, width), seed, case.device)).clamp(_LEAST_GATE, 80.0).to(kind)
        up = (up_size * gaussian((3, width), seed + 1, case.device)).to(kind)
        trial, upstream = tried(swiglu, {"gate": gate, "up": up}, seed=seed + 2)
        wide, given = gate.double(), upstream["out"].double()
        silu = wide * wide.sigmoid()
        where = f"example {index}: width {width}, gate {size:.4g}, up {up_size:.4g}"
        errors.saw(trial.outputs)
        scale = _silu_scale(wide)
        error = element_error(trial.outputs["out"], silu * up.double(), (scale * up.double()).abs())
        errors.note("out", error, where)
        # The gradient of up is silu itself times what comes in: linear in up, whatever up is.
        error = element_error(trial.gradients["up"], given * silu, given.abs() * scale)
        errors.note("up", error, where)
        doubled, _ = tried(swiglu, {"gate": gate, "up": -2.0 * up}, upstream=upstream)
        exact = -2.0 * trial.outputs["out"].double()
        errors.note("linear", element_error(doubled.outputs["out"], exact, exact.abs()), where)
    measured(
        product_error=errors.largest["out"],
        up_gradient_error=errors.largest["up"],
        linear_error=errors.largest["linear"],
        worst=errors.worst(),
        tried=errors.trials,
    )


def falsify_silu_is_bounded_below(subject: Subject, case: Case, measured: Measured) -> None:
    """With an up of one the output reaches silu's minimum, never goes below, and turns there."""
    import torch

    from falsifiers.operator_trials import torch_dtype, tried
    from falsifiers.subject import Execution

    swiglu = subject.operators(Execution(compiled=case.compiled)).swiglu
    near = LOWEST_AT + torch.linspace(-0.25, 0.25, 2001, dtype=torch.float64)
    far = torch.linspace(-80.0, 80.0, 4001, dtype=torch.float64)
    gate = torch.cat((near, far)).to(case.device, torch_dtype(case.dtype))
    trial, _ = tried(
        swiglu,
        {"gate": gate, "up": torch.ones_like(gate)},
        upstream={"out": torch.ones_like(gate)},
    )
    out, slope, wide = trial.outputs["out"].double(), trial.gradients["gate"], gate.double()
    # Half a step of bfloat16 beside the minimum the slope is 0.002 and its sign is certain.
    clear = (wide - LOWEST_AT).abs() > 1e-3
    wrong = (slope.double().sign() != (wide - LOWEST_AT).sign()) & clear & (wide.abs() < 15.0)
    measured(
        lowest=float(out.min()),
        lowest_at=float(wide[out.argmin()]),
        wrong_slopes=int(wrong.sum()),
        slopes=int(clear.sum()),
    )


def falsify_swiglu_is_the_reference(subject: Subject, case: Case, measured: Measured) -> None:
    """Output and both gradients are float64's, at any shape, and with large and tiny numbers."""
    from falsifiers.operator_trials import (
        Errors,
        element_error,
        exactly,
        gaussian,
        torch_dtype,
        tried,
    )
    from falsifiers.subject import Execution

    swiglu = subject.operators(Execution(compiled=case.compiled)).swiglu
    errors, kind = Errors(), torch_dtype(case.dtype)
    for shape in (*SHAPES, (case.rows, case.width)):
        for size, up_size in ((1e-4, 1e4), (1.0, 1.0), (4.0, 1e-4), (25.0, 1.0)):
            seed = 1000 * case.seed + 3 * errors.trials
            gate = (size * gaussian(shape, seed, case.device)).clamp(_LEAST_GATE, 80.0).to(kind)
            up = (up_size * gaussian(shape, seed + 1, case.device)).to(kind)
            arguments = {"gate": gate, "up": up}
            ours, upstream = tried(swiglu, arguments, seed=seed + 2)
            exact = exactly("swiglu", arguments, upstream)
            where = f"{'x'.join(map(str, shape))}, gate {size:g}, up {up_size:g}"
            wide, given = gate.double(), upstream["out"].double()
            scale = _silu_scale(wide)
            errors.saw(ours.outputs)
            for name, value, wanted, unit in (
                ("out", ours.outputs["out"], exact.outputs["out"], scale * up.double().abs()),
                (
                    "gate",
                    ours.gradients["gate"],
                    exact.gradients["gate"],
                    (given * up.double()).abs() * _slope_scale(wide),
                ),
                ("up", ours.gradients["up"], exact.gradients["up"], given.abs() * scale),
            ):
                errors.note(name, element_error(value, wanted, unit), where)
    measured(
        output_error=errors.largest["out"],
        gate_gradient_error=errors.largest["gate"],
        up_gradient_error=errors.largest["up"],
        worst=errors.worst(),
        tried=errors.trials,
        output_dtypes=errors.output_dtypes,
    )


def falsify_swiglu_of_nothing_is_nothing(subject: Subject, case: Case, measured: Measured) -> None:
    """No rows in, no rows out, in the same shape and dtype, and differentiable all the same."""
    from falsifiers.operator_trials import gaussian, torch_dtype, tried
    from falsifiers.subject import Execution

    swiglu = subject.operators(Execution(compiled=case.compiled)).swiglu
    shapes = ((0, 1), (0, 16), (2, 0, 48), (0, 3, 1025), (0, 0, case.width))
    kind = torch_dtype(case.dtype)
    wrong = missing = 0
    for shape in shapes:
        gate, up = (gaussian(shape, i, case.device, kind).requires_grad_() for i in range(2))
        out = swiglu(gate, up)
        wrong += out.shape != gate.shape or out.dtype != kind
        missing += not out.requires_grad
        trial, _ = tried(swiglu, {"gate": gate, "up": up})
        wrong += sum(g.shape != gate.shape or g.dtype != kind for g in trial.gradients.values())
    measured(shapes=len(shapes), wrong=int(wrong), without_gradient=int(missing))


def falsify_swiglu_is_monotone(subject: Subject, case: Case, measured: Measured) -> None:
    """A positive gate that is larger by a twentieth gives more, and the slope is that of growth."""
    import torch
    from hypothesis import strategies as st

    from falsifiers.drawn_inputs import examples, powers_of_ten
    from falsifiers.operator_trials import torch_dtype, tried
    from falsifiers.subject import Execution

    swiglu = subject.operators(Execution(compiled=case.compiled)).swiglu
    kind = torch_dtype(case.dtype)
    # 32 a decade are 7 % apart: no two of them round to the same.
    steps = st.lists(
        st.integers(-191, 127), min_size=case.examples - 2, max_size=case.examples - 2, unique=True
    )
    (drawn,) = examples(steps, 1, case.seed)
    sizes = [10.0 ** (step / 32) for step in sorted([-192, *drawn, 128])]
    gates = torch.tensor(sizes, dtype=torch.float64).to(case.device, kind)
    apart = gates[1:].double() / gates[:-1].double() > 1.05
    stuck = flat = 0
    first = "none"
    for index, size in enumerate(examples(powers_of_ten(-3, 3), 8, case.seed, always=[1e-3, 1e3])):
        up = torch.full_like(gates, size if index % 2 else -size)
        trial, _ = tried(
            swiglu, {"gate": gates, "up": up}, upstream={"out": torch.ones_like(gates)}
        )
        out = trial.outputs["out"].double() * up.double().sign()
        falls = (~(out[1:] > out[:-1]) & apart).nonzero().flatten().tolist()
        stuck += len(falls)
        if falls and first == "none":
            low, high = sizes[falls[0]], sizes[falls[0] + 1]
            first = f"gates {low:.4g} and {high:.4g}, up {float(up[0]):.4g}"
        slope = trial.gradients["gate"].double() * up.double().sign()
        flat += int((~(slope > 0)).sum())
    measured(pairs=int(apart.sum()), not_growing=stuck, without_slope=flat, first=first)


def _silu_scale(gate: Tensor) -> Tensor:
    """|silu| and what rounding the gate adds to it, float64: exp turns an ulp into |gate| ulps.

    Below 1e-30 of the gate nothing is asked for: there exp leaves the range of float32.
    """
    conditioned = 1.0 + gate.abs() * (-gate).sigmoid()
    return (gate * gate.sigmoid()).abs() * conditioned + 1e-30 * gate.abs()


def _slope_scale(gate: Tensor) -> Tensor:
    """The same of the derivative's two terms, which cancel near silu's minimum."""
    rest = (-gate).sigmoid()
    terms = gate.sigmoid() * (1.0 + gate.abs() * rest)
    return terms * (1.0 + gate.abs()) + 1e-30
