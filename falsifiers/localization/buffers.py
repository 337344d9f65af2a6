"""Buffers: rotary tables against float64, by name, for any subject whose modules can be reached.

A table that is wrong makes every operator that reads it wrong. Judged by itself it is named where
it lies, and down to the position; what reads it answers for the rest.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from falsifiers.localization.findings import Finding
from falsifiers.subject import Configuration

Tensors = Mapping[str, Tensor]
_DEEP = 4
"""Attributes between an adapter's instance and its module: wrappers, a trainer, a model."""
_COS, _SIN, _FREQUENCIES = "cos", "sin", "inverse frequencies"
_MOST = 0.99
_STORED = torch.float32
"""What tables are stored in at least: operators rotate in float32, whatever they compute in."""


def buffers_of(instance: Any) -> dict[str, Tensor]:
    """The buffers of an instance by name, or nothing where it shows none.

    An instance may have a method ``buffers()`` that returns them. Of others, the modules are looked
    for whose parameters are those that the instance lists.
    """
    offered = getattr(instance, "buffers", None)
    if callable(offered):
        return dict(offered())
    own = {parameter.data_ptr() for parameter in instance.parameters().values()}
    found: dict[str, Tensor] = {}
    for module in _modules(instance):
        if any(parameter.data_ptr() in own for parameter in module.parameters()):
            found.update(module.named_buffers(remove_duplicate=False))
    return found


def _modules(instance: Any) -> Iterator[nn.Module]:
    """The outermost modules that an object holds, or what it holds does."""
    seen, level = {id(instance)}, [instance]
    for _ in range(_DEEP):
        held = [value for one in level for value in getattr(one, "__dict__", {}).values()]
        level = []
        for value in held:
            if id(value) in seen or isinstance(value, type | ModuleType | Tensor):
                continue
            seen.add(id(value))
            if isinstance(value, nn.Module):
                yield value
            else:
                level.append(value)


@dataclass(frozen=True)
class _Table:
    """A buffer of known meaning: float64 ``[positions, pairs]``, or frequencies ``[1, pairs]``.

    Attributes:
        module: where it lies.
        name: its own name.
        kind: what it holds.
        values: of each pair once.
        dtype: that it is stored in.
    """

    module: str
    name: str
    kind: str
    values: Tensor
    dtype: torch.dtype

    @property
    def positions(self) -> int:
        """How many it is for."""
        return self.values.shape[0]


def judge_buffers(buffers: Tensors, asked: Configuration, factor: float) -> list[Finding]:
    """Each module's rotary tables that are not the float64 ones, in the order of the model.

    Args:
        buffers: by name.
        asked: the configuration that the falsifier asked for.
        factor: how many times the rounding of float64 to float32 an element may be off.
    """
    modules: dict[str, list[_Table]] = {}
    stored: set[tuple[int, torch.Size, torch.dtype]] = set()
    for name, buffer in buffers.items():
        storage = (buffer.data_ptr(), buffer.shape, buffer.dtype)
        if storage not in stored:  # layers that share a table are named once, by the first
            stored.add(storage)
            for table in _tables(name, buffer, asked["head_dim"] // 2):
                modules.setdefault(table.module, []).append(table)
    faults = (_fault(tables, float(asked["rope_theta"]), factor) for tables in modules.values())
    return [fault for fault in faults if fault is not None]


def _tables(name: str, buffer: Tensor, pairs: int) -> Iterator[_Table]:
    """What a buffer holds, told by its name and shape; nothing where that is not known."""
    module, _, own = name.removeprefix("model.").rpartition(".")
    words = set(re.split(r"[_\d]+", own.lower()))
    flat = buffer.detach().squeeze()
    if words & {"freq", "freqs"} and flat.shape == (pairs,) and not flat.is_complex():
        yield _Table(module, own, _FREQUENCIES, flat[None].double(), buffer.dtype)
    if flat.ndim != 2 or flat.shape[1] not in (pairs, 2 * pairs):
        return
    if flat.is_complex():
        for kind, part in ((_COS, flat.real), (_SIN, flat.imag)):
            yield _Table(module, own, kind, part.double(), part.dtype)
    for kind in words & {_COS, _SIN}:
        yield _Table(module, own, kind, _once(flat, pairs).double(), buffer.dtype)


def _once(table: Tensor, pairs: int) -> Tensor:
    """Each pair's column once, of a table that has each twice: side by side, or as two halves."""
    if table.shape[1] == pairs:
        return table
    by_pairs = torch.equal(table[:, 0::2], table[:, 1::2])
    return table[:, 0::2] if by_pairs else table[:, :pairs]


@dataclass(frozen=True)
class _Made:
    """How tables are computed; by default as they should be."""

    theta: float
    first: int = 0
    every: int = 0
    turn: float = 1.0
    angles_in: torch.dtype = torch.float64
    stored_in: torch.dtype = torch.float64
    exchanged: bool = False

    def values(self, table: _Table) -> Tensor:
        """What `table` would hold, float64 in its shape."""
        pairs, device = table.values.shape[1], table.values.device
        frequencies = _frequencies(self.theta, pairs, self.angles_in, device)
        if table.kind == _FREQUENCIES:
            return frequencies[None].to(self.stored_in).double()
        place = torch.arange(table.positions, dtype=torch.float64, device=device) + self.first
        if self.every:
            place = place % self.every
        angle = torch.outer(place.to(self.angles_in), frequencies).double()
        cosine = (table.kind == _COS) != self.exchanged
        exact = angle.cos() if cosine else self.turn * angle.sin()
        return exact.to(self.stored_in).double()


def _frequencies(theta: float, pairs: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    if dtype == torch.float32:  # by division, as most implementations do
        exponent = torch.arange(0, 2 * pairs, 2, dtype=dtype, device=device) / (2 * pairs)
        return 1.0 / theta**exponent
    pair = torch.arange(pairs, dtype=torch.float64, device=device)
    return (theta ** (-pair / pairs)).to(dtype)


def _fault(tables: Sequence[_Table], theta: float, factor: float) -> Finding | None:
    """What is wrong with the tables of one module: the worst, and the first position."""
    right = _Made(theta)
    times = {table.name: _misfit(table, right, right, factor) for table in tables}
    wrong = [table for table in tables if not times[table.name] <= 1.0]
    if not wrong:
        return None
    worst = max(wrong, key=lambda table: times[table.name])
    names = "/".join(dict.fromkeys(table.name for table in wrong))
    said = f"buffer {names}: {_words(wrong, right, factor)}; differs from float64"
    if positions := [p for table in wrong if (p := _first(table, right, factor)) is not None]:
        said += f" first at position {min(positions)}"
    return Finding("buffers", worst.module or "rope", worst.name, times[worst.name], said)


def _error(table: _Table, made: _Made) -> Tensor:
    """Elementwise; relative for frequencies, which range over orders of magnitude."""
    wanted = made.values(table)
    error = (table.values - wanted).abs()
    return error / wanted.abs() if table.kind == _FREQUENCIES else error


def _bound(table: _Table, right: _Made, factor: float) -> float:
    """Of an element: so many roundings to float32; frequencies, of what plain torch makes there."""
    if table.kind == _FREQUENCIES:
        plain = _Made(right.theta, angles_in=torch.float32)
        off = float((plain.values(table) / right.values(table) - 1).abs().max())
        return factor * max(off, torch.finfo(_STORED).eps / 2)
    return factor * torch.finfo(_STORED).eps / 4  # of a number up to 1


def _misfit(table: _Table, made: _Made, right: _Made, factor: float) -> float:
    worst = float(_error(table, made).max())
    return worst / _bound(table, right, factor) if worst == worst else float("inf")


def _first(table: _Table, right: _Made, factor: float) -> int | None:
    if table.kind == _FREQUENCIES:
        return None
    off = ~(_error(table, right).amax(1) <= _bound(table, right, factor))
    return int(off.nonzero()[0])


def _words(wrong: Sequence[_Table], right: _Made, factor: float) -> str:
    for words, made in _alternatives(wrong, right):
        if all(_fits(table, made, right, factor) for table in wrong):
            return words
    if dtypes := {table.dtype for table in wrong if table.dtype != _STORED}:
        return f"stored in {', '.join(_name(dtype) for dtype in dtypes)}"
    if all(not bool(table.values.isfinite().all()) for table in wrong):
        return "not finite"
    rest: dict[str, Callable[[Tensor], Tensor]] = {
        "zero": torch.zeros_like,
        "the last right row repeated": lambda rows: rows[:1].expand_as(rows),
    }
    for words, fill in rest.items():
        if all(_ends_in(table, right, factor, fill) for table in wrong):
            return f"{words} from there on"
    return "no known fault fits"


def _fits(table: _Table, made: _Made, right: _Made, factor: float) -> bool:
    within = _error(table, made) <= _bound(table, right, factor)
    # Rounded twice, a number near the middle goes to the other side: one in a thousand.
    enough = 1.0 if made.stored_in == torch.float64 else _MOST
    return float(within.double().mean()) >= enough


def _ends_in(table: _Table, right: _Made, factor: float, fill: Callable[[Tensor], Tensor]) -> bool:
    """Whether a table is right up to some position and nothing but `fill` from there on."""
    first = _first(table, right, factor) if table.kind != _FREQUENCIES else 0
    rows = table.values[max((first or 0) - 1, 0) :]
    return bool(first) and torch.equal(rows[1:], fill(rows)[1:])


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _alternatives(wrong: Sequence[_Table], right: _Made) -> Iterator[tuple[str, _Made]]:
    theta = right.theta
    for narrow in (torch.bfloat16, torch.float16):
        yield f"tables in {_name(narrow)}", _Made(theta, stored_in=narrow)
        yield f"angles in {_name(narrow)}", _Made(theta, angles_in=narrow)
    yield "angles in float32", _Made(theta, angles_in=torch.float32)
    yield "rotated by one position too many", _Made(theta, first=1)
    yield "rotated by one position too few", _Made(theta, first=-1)
    yield "turned the other way", _Made(theta, turn=-1.0)
    yield "cosines and sines exchanged", _Made(theta, exchanged=True)
    for base in _bases(wrong):
        yield f"theta is {base:g}, not {theta:g}", _Made(base)
        yield (
            f"theta is {base:g}, not {theta:g}, and angles in float32",
            _Made(base, angles_in=torch.float32),
        )
    for every in (512, 1024, 2048, 4096):
        if any(table.positions > every for table in wrong):
            yield f"positions start again after {every}", _Made(theta, every=every)


def _bases(wrong: Sequence[_Table]) -> Iterator[float]:
    """The base that the slowest pair tells: of its frequency, or of its angle at position 1."""
    for table in wrong:
        pairs = table.values.shape[1]
        if pairs < 2 or (table.positions < 2 and table.kind != _FREQUENCIES):
            continue
        value = float(table.values[-1 if table.kind == _FREQUENCIES else 1, -1])
        slowest = {_FREQUENCIES: value, _SIN: _arc(torch.asin, value), _COS: 0.0}[table.kind]
        if slowest > 0.0:
            # Six digits: a base is a number that somebody wrote.
            yield float(f"{slowest ** (-pairs / (pairs - 1)):.5g}")


def _arc(inverse: Callable[[Tensor], Tensor], value: float) -> float:
    angle = float(inverse(torch.tensor(value, dtype=torch.float64)))
    return angle if angle == angle else 0.0
