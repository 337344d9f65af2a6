"""A keyed pseudo-random permutation, evaluated one index at a time.

The order of an epoch is never stored: a Feistel network permutes the smallest power of four that
holds all indices, and values outside are sent through it again until they fall inside ("cycle
walking", Black and Rogaway 2002). A resumed run so finds its place at once, however large the data.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

ROUNDS = 8

Indices = NDArray[np.int64]
_U64 = NDArray[np.uint64]


def permute(indices: Indices, count: int, seed: int, epoch: int) -> Indices:
    """Where the permutation of ``[0, count)`` for (`seed`, `epoch`) sends each of `indices`.

    Args:
        indices: int64, each in ``[0, count)``.
        count: at least 1, below 2**62.
    """
    half_bits = np.uint64(max(1, ((count - 1).bit_length() + 1) // 2))
    keys = np.frombuffer(
        hashlib.blake2b(f"{seed} {epoch}".encode(), digest_size=8 * ROUNDS).digest(), "<u8"
    )
    values = _feistel(indices.astype(np.uint64), half_bits, keys)
    while (outside := values >= count).any():
        values[outside] = _feistel(values[outside], half_bits, keys)
    return values.astype(np.int64)


def _feistel(values: _U64, half_bits: np.uint64, keys: _U64) -> _U64:
    mask = (np.uint64(1) << half_bits) - np.uint64(1)
    left, right = values >> half_bits, values & mask
    for key in keys:
        left, right = right, left ^ (_mix(right ^ key) & mask)
    return (left << half_bits) | right


def _mix(values: _U64) -> _U64:
    # The finalizer of SplitMix64 (Steele, Lea and Flood 2014): every input bit reaches every other.
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
