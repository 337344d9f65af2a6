"""Windows and their order."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from trainer import data
from trainer.errors import ConfigurationError


class Letters:
    """A tokenizer whose ids are code points, with 0 between documents."""

    end_of_text = 0

    def encode(self, text: str) -> list[int]:
        return [ord(letter) for letter in text]


def windows_of(paths: list[Path], seq_length: int = 3, vocab_size: int = 128) -> torch.Tensor:
    """`data.read_windows` with the letters tokenizer."""
    return data.read_windows(paths, Letters(), seq_length, vocab_size)  # type: ignore[arg-type]


def test_windows_are_disjoint_and_cover_every_token(tmp_path: Path) -> None:
    """Texts in order with a separator after each, cut every 4 tokens; only the tail is dropped."""
    paths = [tmp_path / "a.txt", tmp_path / "b.txt"]
    paths[0].write_text("abcde")
    paths[1].write_text("fgh")
    flat = windows_of(paths).flatten().tolist()
    assert flat == [*map(ord, "abcde"), 0, *map(ord, "fg")]


def test_shard_is_little_endian_u32(tmp_path: Path) -> None:
    """Ids are read as they are, without a separator."""
    shard = tmp_path / "shard.bin"
    shard.write_bytes(np.array([1, 2, 3, 127], dtype="<u4").tobytes())
    assert windows_of([shard]).tolist() == [[1, 2, 3, 127]]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("absent.txt", None, "no such file"),
        ("empty.txt", b"", "is empty"),
        ("latin.txt", b"caf\xe9 au lait", "not UTF-8"),
        ("odd.bin", b"12345", "not whole u32"),
        ("big.bin", np.array([5, 128, 0, 0], dtype="<u4").tobytes(), "128 is outside"),
        ("short.txt", b"ab", "has 3 tokens, one window takes 4"),
    ],
)
def test_unusable_file_is_refused(
    tmp_path: Path, name: str, content: bytes | None, said: str
) -> None:
    """One error that says what is wrong with the file."""
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=said):
        windows_of([path])


def test_order_is_a_function_of_seed_and_epoch() -> None:
    """Repeats for the same pair, differs when either changes, and is always a permutation."""
    orders = {
        (seed, epoch): data.window_order(50, seed, epoch).tolist()
        for seed in (0, 1)
        for epoch in (0, 1)
    }
    assert len({tuple(order) for order in orders.values()}) == 4
    for (seed, epoch), order in orders.items():
        assert data.window_order(50, seed, epoch).tolist() == order
        assert sorted(order) == list(range(50))


def test_epochs_yield_every_window_once_each() -> None:
    """Seven windows in batches of three: 3, 3, 1, then the next epoch in another order."""
    windows = torch.arange(7)[:, None].expand(7, 4)
    epochs: list[int] = []
    batches = list(islice(data.cycle_epochs(windows, 3, seed=5, on_epoch=epochs.append), 6))
    assert [len(batch.tokens) for batch in batches] == [3, 3, 1] * 2
    first, second = (
        [int(row[0]) for batch in half for row in batch.tokens]
        for half in (batches[:3], batches[3:])
    )
    assert sorted(first) == sorted(second) == list(range(7))
    assert first != second
    assert epochs == [0, 1]
