"""How others compare tensors, quirks included."""

from __future__ import annotations

import re

import torch
from torch import Tensor

from benchmarks.compared.upstream import Limit, Tolerance

_TEMPORARY = re.compile(r"/\S*compared-[^\s/]*")
_LONGEST = 160


class Red(Exception):
    """A test failed, as pytest would show it."""


def told(error: Exception) -> str:
    """An error's message on one line, without the names of temporary folders."""
    return _TEMPORARY.sub("…", " ".join(str(error).split()))[:_LONGEST]


def liger_close(what: str, expected: Tensor, actual: Tensor, tolerance: Tolerance) -> None:
    """Liger's ``assert_verbose_allclose``: two NaN at one place are equal.

    Raises:
        Red: they are not close.
    """
    if expected.shape != actual.shape:
        raise Red(f"{what}: shape {list(actual.shape)}, not {list(expected.shape)}")
    expected, actual = expected.detach().float(), actual.detach().float()
    far = (expected - actual).abs() > tolerance.atol + tolerance.rtol * actual.abs()
    for only in (torch.isnan, torch.isposinf, torch.isneginf):
        far |= only(expected) ^ only(actual)
    if far.any():
        raise Red(f"{what}: {int(far.sum())} of {far.numel()} elements differ")


def torch_close(what: str, actual: Tensor, expected: Tensor, tolerance: Tolerance) -> None:
    """``torch.allclose(actual, expected)``.

    Raises:
        Red: they are not close.
    """
    if actual.shape != expected.shape:
        raise Red(f"{what}: shape {list(actual.shape)}, not {list(expected.shape)}")
    actual, expected = actual.detach().float(), expected.detach().float()
    if not torch.allclose(actual, expected, atol=tolerance.atol, rtol=tolerance.rtol):
        worst = (actual - expected).abs().max().item()
        raise Red(f"{what}: differs by up to {worst:.3g}")


def within(what: str, actual: float, expected: float, limit: Limit) -> None:
    """``|actual - expected| <= limit``, false for NaN.

    Raises:
        Red: it is not.
    """
    if not abs(actual - expected) <= limit.value:
        raise Red(f"{what}: {actual:.9g}, not {expected:.9g} ± {limit.value:g}")


def equal(what: str, actual: object, expected: object) -> None:
    """``assertEqual``.

    Raises:
        Red: they differ.
    """
    if actual != expected:
        raise Red(f"{what}: {str(actual)[:60]}, not {str(expected)[:60]}")
