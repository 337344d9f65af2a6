"""Text files and token shards as batches of windows.

The corpus is one stream of tokens: files in the order given, each text followed by the tokenizer's
end-of-text token. It is cut into windows of seq_length + 1 tokens that do not overlap, so each
token is trained on once an epoch; the last, incomplete window is dropped. The order of windows is a
function of (seed, epoch) alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from trainer.batch import TokenBatch
from trainer.errors import ConfigurationError
from trainer.tokenizer import Tokenizer


def read_tokens(path: Path, tokenizer: Tokenizer) -> Tensor:
    """Token ids of one file, int64: a UTF-8 text, or a ``.bin`` shard of little-endian u32 ids.

    Raises:
        ConfigurationError: missing or empty file, not UTF-8, or not whole ids.
    """
    if not path.is_file():
        raise ConfigurationError(f"{path}: no such file; check --dataset")
    content = path.read_bytes()
    if not content:
        raise ConfigurationError(f"{path}: the file is empty; leave it out of --dataset")
    if path.suffix == ".bin":
        if len(content) % 4:
            raise ConfigurationError(f"{path}: {len(content)} bytes are not whole u32 token ids")
        return torch.from_numpy(np.frombuffer(content, dtype="<u4").astype(np.int64))
    try:
        ids = tokenizer.encode(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path}: not UTF-8 text: {error}") from error
    end = [] if tokenizer.end_of_text is None else [tokenizer.end_of_text]
    return torch.tensor(ids + end, dtype=torch.int64)


def read_windows(
    paths: Sequence[Path], tokenizer: Tokenizer, seq_length: int, vocab_size: int
) -> Tensor:
    """Windows ``[count, seq_length + 1]``, int64, over the concatenation of `paths`.

    Raises:
        ConfigurationError: an id outside the vocabulary, or less text than one window.
    """
    streams = []
    for path in paths:
        tokens = read_tokens(path, tokenizer)
        if int(tokens.max()) >= vocab_size:
            raise ConfigurationError(
                f"{path}: token id {int(tokens.max())} is outside the vocabulary of {vocab_size}"
            )
        streams.append(tokens)
    return cut_windows(torch.cat(streams), seq_length)


def cut_windows(stream: Tensor, seq_length: int) -> Tensor:
    """Consecutive, disjoint windows ``[count, seq_length + 1]`` of a token stream ``[n]``.

    Raises:
        ConfigurationError: the stream is shorter than one window.
    """
    width = seq_length + 1
    count = stream.numel() // width
    if count == 0:
        raise ConfigurationError(
            f"the dataset has {stream.numel()} tokens, one window takes {width}; add text or "
            "shorten --seq-length"
        )
    return stream[: count * width].view(count, width)


def window_order(count: int, seed: int, epoch: int) -> Tensor:
    """The order of `count` windows in `epoch`, int64 ``[count]``."""
    generator = np.random.default_rng([seed, epoch])
    return torch.from_numpy(generator.permutation(count))


def epoch_batches(
    windows: Tensor, batch_size: int, *, seed: int, epoch: int
) -> Iterator[TokenBatch]:
    """Every window once, in batches of `batch_size`; the last batch may be smaller."""
    order = window_order(len(windows), seed, epoch)
    for start in range(0, len(windows), batch_size):
        yield TokenBatch(windows[order[start : start + batch_size]])


def cycle_epochs(
    windows: Tensor, batch_size: int, *, seed: int, on_epoch: Callable[[int], None]
) -> Iterator[TokenBatch]:
    """Batches epoch after epoch, without end; `on_epoch` is told each time a new one begins."""
    epoch = 0
    while True:
        on_epoch(epoch)
        yield from epoch_batches(windows, batch_size, seed=seed, epoch=epoch)
        epoch += 1
