"""Is RMSNorm the function that it is said to be, where its eps matters and where it does not?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from falsifiers.fixtures import Case, Measured, Subject

if TYPE_CHECKING:
    from torch import Tensor

SHAPES = ((1, 1), (1, 7), (3, 5, 33), (2, 1, 64), (0, 16), (2, 0, 48), (5, 129))
EPS = (1e-6, 1e-5)


def falsify_rmsnorm_is_finite(subject: Subject, case: Case, measured: Measured) -> None:
    """From zeros to the largest number, nothing finite becomes infinite or NaN."""
    import torch

    from falsifiers.operator_trials import gaussian, torch_dtype, tried

    norm = subject.operators().rmsnorm
    largest = torch.finfo(torch_dtype(case.dtype)).max
    seen = bad = bad_gradients = 0
    for size in (0.0, 1e-38, 1e-30, 1e-15, 1.0, 1e15, 1e30, largest):
        for index, eps in enumerate((*EPS, 1e-12)):
            x = size * gaussian((3, 33), index, case.device).clamp(-1.0, 1.0)
            x[1] = 0.0
            x[2, 5:] = 0.0
            weight = 1.0 + 0.5 * gaussian((33,), 10 + index, case.device)
            arguments = {"x": x.to(torch_dtype(case.dtype)), "weight": weight}
            trial, _ = tried(lambda x, w, eps=eps: norm(x, w, eps=eps), arguments)
            seen += int(torch.isfinite(arguments["x"]).sum())
            bad += int((~torch.isfinite(trial.outputs["out"])).sum())
            if size < largest:  # an upstream gradient times the largest number is not finite itself
                bad_gradients += sum(
                    int((~torch.isfinite(g)).sum()) for g in trial.gradients.values()
                )
    measured(finite_inputs=seen, bad_outputs=bad, bad_gradients=bad_gradients)


def falsify_rmsnorm_is_scale_invariant(subject: Subject, case: Case, measured: Measured) -> None:
    """Where eps is negligible, the input times a is the output times the sign of a."""
    from hypothesis import strategies as st

    from falsifiers.drawn_inputs import examples, integers, widths
    from falsifiers.operator_trials import Errors, element_error, gaussian, torch_dtype, tried

    norm, errors, eps = subject.operators().rmsnorm, Errors(), 1e-6
    drawn = examples(
        st.tuples(widths(1), integers(-7, 20), st.sampled_from([-1.0, 1.0])),
        case.examples,
        case.seed,
        always=[(1, 20, -1.0), (257, -7, 1.0), (257, 20, -1.0)],
    )
    for index, (width, exponent, sign) in enumerate(drawn):
        x = gaussian((2, width), 100 * case.seed + index, case.device)
        x = (1e3 * x / x.square().mean(-1, keepdim=True).sqrt()).to(torch_dtype(case.dtype))
        weight = 1.0 + 0.5 * gaussian((width,), 1000 + index, case.device)
        factor = sign * 2.0**exponent  # exact in any dtype

        def run(x: Tensor, w: Tensor) -> Tensor:
            return norm(x, w, eps=eps)

        plain, upstream = tried(run, {"x": x, "weight": weight}, seed=index)
        scaled, _ = tried(run, {"x": factor * x, "weight": weight}, upstream=upstream)
        scale = _scales(x, weight, upstream["out"], eps)
        where = f"example {index}: width {width}, factor {factor:g}"
        out = plain.outputs["out"].double()
        errors.saw(scaled.outputs)
        error = element_error(scaled.outputs["out"], sign * out, out.abs())
        errors.note("out", error, where)
        ours = factor * scaled.gradients["x"].double()
        wanted = sign * plain.gradients["x"].double()
        errors.note("gradient", element_error(ours, wanted, scale["x"]), where)
        wide, gradient = x.double(), plain.gradients["x"].double()
        along = ((wide * gradient).sum(-1).abs() / (wide.abs() * scale["x"]).sum(-1)).max()
        errors.note("along", float(along), where)
    measured(
        output_error=errors.largest["out"],
        gradient_error=errors.largest["gradient"],
        gradient_along_input=errors.largest["along"],
        worst=errors.worst(),
        tried=errors.trials,
    )


def falsify_rmsnorm_is_the_reference(subject: Subject, case: Case, measured: Measured) -> None:
    """Output and gradients are float64's, at any shape, and where the mean square is about eps."""
    from falsifiers.operator_trials import (
        Errors,
        element_error,
        exactly,
        gaussian,
        torch_dtype,
        tried,
    )
    from falsifiers.subject import Execution

    norm, errors = subject.operators(Execution(compiled=case.compiled)).rmsnorm, Errors()
    for shape in (*SHAPES, (case.rows, case.width)):
        for eps in EPS:
            for size in (1e-6, 1e-1 * eps**0.5, eps**0.5, 1.0, 1e6):
                seed = 1000 * case.seed + 3 * errors.trials
                x = (size * gaussian(shape, seed, case.device)).to(torch_dtype(case.dtype))
                weight = 1.0 + 0.5 * gaussian(shape[-1:], seed + 1, case.device)
                arguments = {"x": x, "weight": weight}
                ours, upstream = tried(
                    lambda x, w, eps=eps: norm(x, w, eps=eps), arguments, seed=seed + 2
                )
                exact = exactly(
                    "rmsnorm",
                    {"x": x},
                    upstream,
                    parameters={"weight": weight},
                    settings={"eps": eps},
                )
                scale = _scales(x, weight, upstream["out"], eps)
                where = f"{'x'.join(map(str, shape))} of size {size:.1e}, eps {eps:g}"
                errors.saw(ours.outputs)
                error = element_error(ours.outputs["out"], exact.outputs["out"], scale["out"])
                errors.note("out", error, where)
                for name in ("x", "weight"):
                    error = element_error(ours.gradients[name], exact.gradients[name], scale[name])
                    errors.note(name, error, where)
    measured(
        output_error=errors.largest["out"],
        input_gradient_error=errors.largest["x"],
        weight_gradient_error=errors.largest["weight"],
        worst=errors.worst(),
        tried=errors.trials,
        output_dtypes=errors.output_dtypes,
    )


def falsify_rmsnorm_of_zero_is_zero(subject: Subject, case: Case, measured: Measured) -> None:
    """Zeros give zeros, and the gradient there is that of division by the root of eps."""
    import torch

    from falsifiers.operator_trials import Errors, element_error, gaussian, torch_dtype, tried

    norm, errors = subject.operators().rmsnorm, Errors()
    nonzero = seen = 0
    for shape in (*SHAPES, (3, 130)):
        for eps in EPS:
            x = torch.zeros(shape, dtype=torch_dtype(case.dtype), device=case.device)
            if x.dim() > 1:
                x[: len(x) // 2] *= -1.0  # minus zero is zero
            weight = 1.0 + 0.5 * gaussian(shape[-1:], 100 * case.seed + errors.trials, case.device)
            trial, upstream = tried(
                lambda x, w, eps=eps: norm(x, w, eps=eps),
                {"x": x, "weight": weight},
                seed=case.seed,
            )
            seen += x.numel()
            nonzero += int((trial.outputs["out"] != 0).sum())
            nonzero += int((trial.gradients["weight"] != 0).sum())
            exact = upstream["out"].double() * weight.double() / eps**0.5
            errors.saw(trial.outputs)
            error = element_error(trial.gradients["x"], exact, exact.abs())
            errors.note("x", error, f"{'x'.join(map(str, shape))}, eps {eps:g}")
    measured(
        zeros=seen,
        nonzero=nonzero,
        gradient_error=errors.largest["x"],
        worst=errors.worst(),
    )


def falsify_unit_weights_give_the_known_rms(
    subject: Subject, case: Case, measured: Measured
) -> None:
    """With weights of one the RMS of the output is √(m / (m + eps)), m the mean square."""
    import torch
    from hypothesis import strategies as st

    from falsifiers.drawn_inputs import examples, powers_of_ten, widths
    from falsifiers.operator_trials import Errors, gaussian, torch_dtype

    norm, errors = subject.operators().rmsnorm, Errors()
    drawn = examples(
        st.tuples(widths(2), powers_of_ten(-3, 6), st.sampled_from(EPS)),
        case.examples,
        case.seed,
        always=[(2, 1e-3, EPS[0]), (257, 1e6, EPS[1])],
    )
    for index, (width, ratio, eps) in enumerate(drawn):
        direction = gaussian((width,), 100 * case.seed + index, case.device).double()
        direction = direction / direction.square().mean().sqrt()
        x = (direction * (ratio * eps) ** 0.5).to(torch_dtype(case.dtype)).requires_grad_()
        out = norm(x, torch.ones(width, device=case.device), eps=eps)
        ours = out.double().square().mean().sqrt()
        (gradient,) = torch.autograd.grad(ours, x)
        wide = x.detach().double()
        m = wide.square().mean()
        expected = (m / (m + eps)).sqrt()
        where = f"example {index}: width {width}, m {ratio:.4g} of eps {eps:g}"
        errors.saw({"out": out})
        errors.note("rms", float((ours.detach() - expected).abs() / expected), where)
        growth = m.sqrt() * eps / (m + eps) ** 1.5
        change = ((gradient.double() * wide).sum() - growth).abs() / expected
        errors.note("growth", float(change), where)
    measured(
        rms_error=errors.largest["rms"],
        growth_error=errors.largest["growth"],
        worst=errors.worst(),
        tried=errors.trials,
    )


def _scales(x: Tensor, weight: Tensor, upstream: Tensor, eps: float) -> dict[str, Tensor]:
    """Size of the terms that each element of output and gradients is summed from, float64."""
    x, weight, upstream = x.double(), weight.double(), upstream.double()
    inverse = (x.square().mean(-1, keepdim=True) + eps).rsqrt()
    pulled = (upstream * weight).abs()
    through_mean = (pulled * x.abs()).mean(-1, keepdim=True)
    return {
        "out": (x * inverse * weight).abs(),
        "x": inverse * pulled + inverse**3 * x.abs() * through_mean,
        "weight": (upstream * x * inverse).abs().flatten(0, -2).sum(0),
    }
