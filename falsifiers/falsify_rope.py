"""Are queries and keys turned by their positions, all of them, and nothing else done to them?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

from falsifiers.fixtures import Case, Measured, Subject

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy
    from torch import Tensor

    from falsifiers.operator_trials import Shape, Trial

# Batch, query heads, key heads, positions, head size: one pair, odd counts, one token, no token.
SHAPES = (
    (1, 1, 1, 1, 2),
    (2, 3, 1, 7, 6),
    (1, 7, 1, 33, 10),
    (2, 6, 3, 9, 8),
    (2, 14, 2, 5, 64),
    (1, 2, 1, 0, 8),
)
THETAS = (1e4, 1e6)


def falsify_rope_preserves_norms(subject: Subject, case: Case, measured: Measured) -> None:
    """Each pair (i, i + D/2) keeps its length, and so does the gradient of each pair."""
    from falsifiers.operator_trials import Errors, element_error

    errors = Errors()
    long = (1, 3, 1, case.positions, case.head_dim)
    for where, given, upstream, ours in _rotations(subject, case, (*SHAPES, long)):
        errors.saw(ours.outputs)
        for name in given:
            norms = _pair_norms(given[name])
            error = element_error(_pair_norms(ours.outputs[name]), norms, norms)
            errors.note("norm", error, f"{name} {where}")
            norms = _pair_norms(upstream[name])
            error = element_error(_pair_norms(ours.gradients[name]), norms, norms)
            errors.note("gradient", error, f"{name} {where}")
    measured(
        norm_error=errors.largest["norm"],
        gradient_norm_error=errors.largest["gradient"],
        worst=errors.worst(),
        tried=errors.trials,
    )


def falsify_rope_is_relative(subject: Subject, case: Case, measured: Measured) -> None:
    """⟨q at m, k at n⟩ and its gradients are those at m + d and n + d, up to the last position."""
    import torch

    from falsifiers.drawn_inputs import examples
    from falsifiers.operator_trials import Errors, gaussian, torch_dtype
    from falsifiers.subject import Execution

    rope = subject.operators(Execution(compiled=case.compiled)).rope
    errors, turned = Errors(), []
    last = case.positions - 1
    drawn = examples(
        _positions(last),
        case.examples,
        case.seed,
        always=[(0, 0, last), (0, 1, last - 1), (1, 0, last - 1), (last, 0, 0)],
    )
    m, n, shift = (torch.tensor(x, device=case.device) for x in zip(*drawn, strict=True))
    for index, (size, theta) in enumerate((d, t) for d in (2, 8, case.head_dim) for t in THETAS):
        seed = 100 * case.seed + 4 * index
        q, k = (gaussian((size,), seed + i, case.device) for i in range(2))
        stretched = [
            x.expand(1, 1, case.positions, size).to(torch_dtype(case.dtype)).clone()
            for x in (q / q.norm(), k / k.norm())
        ]
        q, k = (x.requires_grad_() for x in stretched)
        at = rope(q, k, theta=theta)
        turned_q, turned_k = (x[0, 0].double() for x in at)
        here = (turned_q[m] * turned_k[n]).sum(-1)
        there = (turned_q[m + shift] * turned_k[n + shift]).sum(-1)
        where = f"head size {size}, theta {theta:g}"
        errors.saw({"q": at[0], "k": at[1]})
        change = (here - there).detach().abs()
        worst = int(change.argmax())  # of NaN too
        at_worst = "q at {}, k at {}, both {} on".format(*drawn[worst])
        errors.note("dot", float(change[worst]), f"{where}, example {worst}: {at_worst}")
        turned.append(float((here - (turned_q[n] * turned_k[n]).sum(-1)).detach().abs().max()))
        for first, second in zip(
            torch.autograd.grad(here.sum(), (q, k), retain_graph=True),
            torch.autograd.grad(there.sum(), (q, k)),
            strict=True,
        ):
            change = (first.double() - second.double()).sum((0, 1, 2)).abs().max()
            errors.note("gradient", float(change) / len(drawn), f"{where}, all examples")
    measured(
        dot_error=errors.largest["dot"],
        gradient_error=errors.largest["gradient"],
        least_turn=min(turned),
        worst=errors.worst(),
        tried=errors.trials,
    )


def falsify_rope_is_the_reference(subject: Subject, case: Case, measured: Measured) -> None:
    """Rotated queries and keys and their gradients are float64's, up to the last position."""
    from falsifiers.operator_trials import Errors, element_error, exactly

    errors = Errors()
    long = (1, 3, 1, case.positions, case.head_dim)
    for where, given, upstream, ours in _rotations(subject, case, (*SHAPES, long)):
        exact = exactly("rope", given, upstream, settings={"theta": where.theta})
        errors.saw(ours.outputs)
        for name in given:
            scale = _both(_pair_norms(given[name]))
            error = element_error(ours.outputs[name], exact.outputs[name], scale)
            errors.note("out", error, f"{name} {where}")
            scale = _both(_pair_norms(upstream[name]))
            error = element_error(ours.gradients[name], exact.gradients[name], scale)
            errors.note("gradient", error, f"{name} {where}")
    measured(
        output_error=errors.largest["out"],
        gradient_error=errors.largest["gradient"],
        worst=errors.worst(),
        tried=errors.trials,
        output_dtypes=errors.output_dtypes,
    )


def falsify_rope_leaves_the_first_position(
    subject: Subject, case: Case, measured: Measured
) -> None:
    """At position 0 output and gradient are what came in, bit for bit; at position 1 not."""
    seen = changed = changed_gradients = still = 0
    for _, given, upstream, ours in _rotations(subject, case, SHAPES):
        for name, x in given.items():
            out, gradient = ours.outputs[name], ours.gradients[name]
            seen += x[:, :, :1].numel()
            changed += int((out[:, :, :1] != x[:, :, :1]).sum())
            changed_gradients += int((gradient[:, :, :1] != upstream[name][:, :, :1]).sum())
            still += int((out[:, :, 1:2] == x[:, :, 1:2]).all(-1).sum())
    measured(
        elements=seen,
        changed=changed,
        changed_gradients=changed_gradients,
        unturned_rows=still,
    )


def _positions(last: int) -> SearchStrategy[tuple[int, int, int]]:
    """Where q and k are, either before the other, and how far both can move up to `last`."""
    from hypothesis import strategies as st

    from falsifiers.drawn_inputs import integers

    @st.composite
    def positions(draw: st.DrawFn) -> tuple[int, int, int]:
        later = draw(st.integers(0, last))
        earlier = draw(integers(0, later))
        m, n = draw(st.permutations((earlier, later)))
        return m, n, draw(integers(0, last - later))

    return positions()


class _Where(NamedTuple):
    shape: Shape
    theta: float
    size: float

    def __str__(self) -> str:
        shape = "x".join(map(str, self.shape))
        return f"{shape}, theta {self.theta:g}, size {self.size:.4g}"


def _rotations(
    subject: Subject, case: Case, shapes: Sequence[Shape]
) -> Iterator[tuple[_Where, dict[str, Tensor], Mapping[str, Tensor], Trial]]:
    """Where, queries and keys, upstream gradients, and what became of them, at any size."""
    from falsifiers.drawn_inputs import examples, powers_of_ten
    from falsifiers.operator_trials import gaussian, torch_dtype, tried
    from falsifiers.subject import Execution

    rope = subject.operators(Execution(compiled=case.compiled)).rope
    places = list(product(shapes, THETAS))
    sizes = examples(powers_of_ten(-6, 6), len(places), case.seed, always=[1e-6, 1e6])
    for index, ((shape, theta), size) in enumerate(zip(places, sizes, strict=True)):
        seed = 1000 * case.seed + 4 * index
        batch, heads, key_heads, length, head_dim = shape
        given = {
            name: (size * gaussian((batch, n, length, head_dim), seed + i, case.device)).to(
                torch_dtype(case.dtype)
            )
            for i, (name, n) in enumerate((("q", heads), ("k", key_heads)))
        }
        ours, upstream = tried(
            lambda q, k, theta=theta: rope(q, k, theta=theta), given, ("q", "k"), seed=seed + 2
        )
        yield _Where(shape, theta, size), given, upstream, ours


def _pair_norms(x: Tensor) -> Tensor:
    """Lengths of the half-split pairs, float64 ``[..., D / 2]``."""
    first, second = x.double().chunk(2, dim=-1)
    return first.hypot(second)


def _both(per_pair: Tensor) -> Tensor:
    """The same number for both elements of each pair."""
    import torch

    return torch.cat((per_pair, per_pair), -1)
