"""What an error looks like when nothing is known of the operator: scaled, shifted, permuted, cut.

Every guess is a float64 tensor made from the exact one; whoever asked decides whether it fits.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

_FRACTIONS = {0.5: "halved", 2.0: "doubled", -1.0: "the sign is reversed"}


def guesses(ours: Tensor, exact: Tensor) -> Iterator[tuple[str, Tensor]]:
    """What `ours` might be instead of `exact`, in words and as a tensor of the shape of `ours`."""
    if ours.shape != exact.shape:
        if ours.ndim > 1 and ours.shape == exact.transpose(-1, -2).shape:
            yield "transposed", exact.transpose(-1, -2)
        return
    value = ours.double()
    power = float(exact.square().sum())
    yield "all zero", torch.zeros_like(exact)
    if exact.ndim == 0:  # a single number is always some multiple of another
        yield from ((words, exact * factor) for factor, words in _FRACTIONS.items())
        return
    if power > 0.0:
        factor = float((value * exact).sum()) / power
        yield scaled_by(factor), exact * factor
    yield "rounded to bfloat16", exact.bfloat16().double()
    if exact.ndim > 1 and exact.shape[-1] == exact.shape[-2]:
        yield "transposed", exact.transpose(-1, -2)
    for axis in range(exact.ndim):
        size = exact.shape[axis]
        if size < 2:
            continue
        if exact.ndim == 4 and axis == 1:
            yield from _permuted(value, exact, axis)
        for by in (1, -1):
            side = "later" if by > 0 else "earlier"
            yield f"shifted one place {side} along axis {axis}", exact.roll(by, axis)
        if size <= 256:
            yield from _permuted(value, exact, axis)
        yield from _parts(value, exact, axis)


def scaled_by(factor: float) -> str:
    """``halved``, or ``scaled by 0.99``."""
    for known, words in _FRACTIONS.items():
        if abs(factor - known) < 2e-3:
            return words
    digits = 3 if abs(factor - 1.0) > 0.005 else 5
    return f"scaled by {factor:.{digits}g}"


def _permuted(value: Tensor, exact: Tensor, axis: int) -> Iterator[tuple[str, Tensor]]:
    """Slices along an axis in another order, each found by what it is nearest to."""
    a, b = (x.transpose(0, axis).flatten(1) if x.ndim > 1 else x[:, None] for x in (value, exact))
    order = torch.cdist(a, b).argmin(-1)
    identity = torch.arange(len(order), device=order.device)
    if torch.equal(order, identity) or len(set(order.tolist())) != len(order):
        return
    moved = (order != identity).nonzero().flatten().tolist()
    what = "heads" if exact.ndim == 4 and axis == 1 else f"places of axis {axis}"
    yield f"{what} permuted ({_ranges(moved)} moved)", exact.index_select(axis, order)


def _parts(value: Tensor, exact: Tensor, axis: int) -> Iterator[tuple[str, Tensor]]:
    """Only some slices wrong, and those zero or scaled alike."""
    wrong = wrong_places(value, exact, axis)
    if not 0 < len(wrong) < exact.shape[axis]:
        return
    index = torch.tensor(wrong, device=exact.device)
    ours, right = value.index_select(axis, index), exact.index_select(axis, index)
    power = float(right.square().sum())
    factor = float((ours * right).sum()) / power if power > 0.0 else 0.0
    where = f"at {_named(exact, axis)} {_ranges(wrong)}"
    zero = abs(factor) < 1e-6
    words = f"zero {where}" if zero else f"{scaled_by(factor)} {where}"
    yield words, exact.index_copy(axis, index, right * (0.0 if zero else factor))


def wrong_places(value: Tensor, exact: Tensor, axis: int) -> list[int]:
    """The slices along an axis that hold nearly all of the error."""
    others = [a for a in range(exact.ndim) if a != axis]
    error = (value - exact).square()
    share = error.sum(others) if others else error
    return (share > share.max() * 1e-4).nonzero().flatten().tolist()


def places_in_words(ours: Tensor, exact: Tensor) -> str:
    """``only at heads 6–7``: where an error stands that nothing explains; empty if everywhere."""
    if ours.shape != exact.shape:
        return f"the shape is {list(ours.shape)}, not {list(exact.shape)}"
    for axis in range(exact.ndim):
        wrong = wrong_places(ours.double(), exact, axis)
        if exact.shape[axis] > 1 and 0 < len(wrong) <= exact.shape[axis] // 2:
            return f"only at {_named(exact, axis)} {_ranges(wrong)}"
    return ""


def _named(exact: Tensor, axis: int) -> str:
    names = {4: ("sequence", "head", "position", "element"), 3: ("sequence", "position", "column")}
    return names[exact.ndim][axis] if exact.ndim in names else f"place of axis {axis},"


def _ranges(places: list[int]) -> str:
    """``0, 3–5``; at most four pieces."""
    pieces: list[list[int]] = []
    for place in places:
        if pieces and place == pieces[-1][1] + 1:
            pieces[-1][1] = place
        else:
            pieces.append([place, place])
    said = [str(a) if a == b else f"{a}–{b}" for a, b in pieces[:4]]
    return ", ".join(said) + (" …" if len(pieces) > 4 else "")
