"""A prepared dataset as batches, and every way in which it can be unusable."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from trainer.batch import TokenBatch
from trainer.corpus.corpus import Corpus
from trainer.corpus.manifest import Manifest, Shard
from trainer.corpus.synthetic import synthetic_steps
from trainer.errors import DataError

QUICK = settings(derandomize=True, max_examples=40, deadline=None)
VOCAB = 1000
Steps = Callable[..., list[list[TokenBatch]]]


def write_dataset(
    folder: Path,
    train: Sequence[int],
    heldout: Sequence[int] = range(10),
    shard_tokens: int = 16,
    vocab_size: int = VOCAB,
) -> Path:
    """A dataset with these streams, written without the code under test of `prepare`."""
    shards: dict[str, tuple[Shard, ...]] = {}
    for split, ids in (("train", train), ("heldout", heldout)):
        written = []
        for index, start in enumerate(range(0, len(ids), shard_tokens)):
            content = np.array(ids[start : start + shard_tokens], dtype="<u4").tobytes()
            name = f"{split}-{index:05d}.bin"
            (folder / name).write_bytes(content)
            written.append(Shard(name, len(content) // 4, hashlib.sha256(content).hexdigest()))
        shards[split] = tuple(written)
    Manifest("0" * 64, vocab_size, 0, shards, "1" * 64, {}).write(folder)
    return folder


def training_steps(corpus: Corpus, count: int | None = None, **changes: Any) -> list[Any]:
    """The first `count` steps, or all of a stream that ends."""
    options: dict[str, Any] = {
        "seq_length": 3,
        "micro_batch_size": 2,
        "accumulation": 1,
        "seed": 0,
        "cycle": count is not None,
        "on_epoch": lambda epoch: None,
    }
    steps = corpus.training_steps(**(options | changes))
    taken = list(islice(steps, count))
    steps.close()
    return taken


def rows(steps: list[list[TokenBatch]]) -> list[list[int]]:
    """All sequences, in order."""
    return [row for step in steps for batch in step for row in batch.tokens.tolist()]


@QUICK
@given(
    tokens=st.integers(2, 120),
    shard_tokens=st.integers(1, 50),
    seq_length=st.integers(1, 30),
)
def test_an_epoch_is_every_window_once_whatever_the_shards(
    tokens: int, shard_tokens: int, seq_length: int
) -> None:
    """Window i is ids i*L … i*L + L of the stream: neighbours share an id, only the tail is lost.

    The stream counts upwards, so a row tells where it comes from.
    """
    assume(tokens > seq_length)
    with TemporaryDirectory() as folder:
        corpus = Corpus.open(write_dataset(Path(folder), range(tokens), shard_tokens=shard_tokens))
        got = rows(training_steps(corpus, seq_length=seq_length, micro_batch_size=1))
    windows = (tokens - 1) // seq_length
    assert sorted(got) == [
        list(range(i * seq_length, i * seq_length + seq_length + 1)) for i in range(windows)
    ]


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    """100 tokens that count upwards, so 33 windows of 3 targets, in 7 shards."""
    return Corpus.open(write_dataset(tmp_path, range(100)))


def test_batches_are_int64_of_one_more_token_than_targets(corpus: Corpus) -> None:
    """``[micro_batch, L + 1]``, without a mask, `accumulation` a step."""
    (step,) = training_steps(corpus, 1, accumulation=4)
    assert [batch.tokens.shape for batch in step] == [(2, 4)] * 4
    assert {batch.tokens.dtype for batch in step} == {torch.int64}
    assert [batch.target_mask for batch in step] == [None] * 4


def test_epochs_have_different_orders_and_no_window_twice(corpus: Corpus) -> None:
    """66 sequences are two epochs of 33, though a step of 4 straddles their border."""
    sequences = rows(training_steps(corpus, 33, micro_batch_size=2))
    first, second = sequences[:33], sequences[33:]
    assert sorted(first) == sorted(second)
    assert len({row[0] for row in first}) == 33
    assert first != second


@pytest.mark.parametrize(("micro", "accumulation", "world"), [(12, 1, 1), (3, 4, 1), (3, 2, 2)])
def test_a_step_has_the_same_windows_on_any_number_of_ranks(
    corpus: Corpus, micro: int, accumulation: int, world: int
) -> None:
    """A global batch of 12 as one batch, as accumulation, and over ranks."""
    whole = training_steps(corpus, 5, micro_batch_size=12)
    parts = [
        training_steps(
            corpus,
            5,
            micro_batch_size=micro,
            accumulation=accumulation,
            rank=rank,
            world_size=world,
        )
        for rank in range(world)
    ]
    for step in range(5):
        dealt = [row for rank in parts for row in rows([rank[step]])]
        assert sorted(dealt) == sorted(rows([whole[step]]))


@QUICK
@given(first_step=st.integers(0, 60))
def test_starting_at_a_step_equals_getting_there(first_step: int) -> None:
    """A resumed stream is the tail of the uninterrupted one, in any epoch."""
    with TemporaryDirectory() as folder:
        corpus = Corpus.open(write_dataset(Path(folder), range(100)))
        straight = training_steps(corpus, first_step + 3, accumulation=2)
        resumed = training_steps(corpus, 3, accumulation=2, first_step=first_step)
    assert rows(resumed) == rows(straight[first_step:])


def test_a_far_step_is_reached_at_once(corpus: Corpus) -> None:
    """Step 10**12 needs no walk through those before it."""
    assert len(rows(training_steps(corpus, 1, first_step=10**12))) == 2


def test_without_cycling_the_stream_ends_before_an_incomplete_step(corpus: Corpus) -> None:
    """33 windows make 8 steps of 4; the last window is not made up to a step."""
    steps = training_steps(corpus, micro_batch_size=4)
    assert len(steps) == 8
    assert len({tuple(row) for row in rows(steps)}) == 32
    assert corpus.steps_per_epoch(seq_length=3, micro_batch_size=4, accumulation=1) == 8


def test_epochs_are_announced_as_they_begin(corpus: Corpus) -> None:
    """With 33 windows and 10 a step, epochs 1 and 2 begin in steps 3 and 6, for a resume too."""
    seen: list[int] = []
    training_steps(corpus, 7, micro_batch_size=10, on_epoch=seen.append)
    assert seen == [0, 1, 2]
    seen.clear()
    training_steps(corpus, 2, micro_batch_size=10, on_epoch=seen.append, first_step=4)
    assert seen == []


def test_order_follows_the_seed(corpus: Corpus) -> None:
    """Same seed, same batches; another seed, others."""
    assert rows(training_steps(corpus, 8)) == rows(training_steps(corpus, 8))
    assert rows(training_steps(corpus, 8)) != rows(training_steps(corpus, 8, seed=1))


@QUICK
@given(tokens=st.integers(2, 60), seq_length=st.integers(1, 20), batch_size=st.integers(1, 5))
def test_every_heldout_token_is_a_target_once(
    tokens: int, seq_length: int, batch_size: int
) -> None:
    """Unmasked targets are ids 1 … n - 1 of the stream in order, each after its predecessor."""
    with TemporaryDirectory() as folder:
        corpus = Corpus.open(write_dataset(Path(folder), range(50), range(tokens)))
        batches = list(corpus.heldout(seq_length=seq_length, batch_size=batch_size))
    inputs, targets = [], []
    for batch in batches:
        assert batch.tokens.shape == (batch_size, seq_length + 1)
        mask = torch.ones_like(batch.tokens[:, 1:], dtype=torch.bool)
        mask = mask if batch.target_mask is None else batch.target_mask
        inputs += batch.tokens[:, :-1][mask].tolist()
        targets += batch.tokens[:, 1:][mask].tolist()
    assert targets == list(range(1, tokens))
    assert inputs == list(range(tokens - 1))
    assert sum(batch.target_count() for batch in batches) == tokens - 1


@pytest.mark.parametrize(
    ("limit", "starts"),
    [(1, [0]), (6, [0, 30]), (12, [0, 15, 30, 45]), (10**9, [*range(0, 60, 3)])],
)
def test_a_limit_takes_windows_from_everywhere(
    tmp_path: Path, limit: int, starts: list[int]
) -> None:
    """Whole windows at equal distances, never more targets than asked for but for the first."""
    corpus = Corpus.open(write_dataset(tmp_path, range(50), range(61)))
    batches = corpus.heldout(seq_length=3, batch_size=1, limit_tokens=limit)
    assert [int(batch.tokens[0, 0]) for batch in batches] == starts


def test_heldout_is_a_sequence(tmp_path: Path) -> None:
    """It can be read again, indexed from either end and sliced, and ends with IndexError."""
    corpus = Corpus.open(write_dataset(tmp_path, range(50), range(22)))
    batches = corpus.heldout(seq_length=3, batch_size=2)
    starts = [[0, 3], [6, 9], [12, 15], [18, 0]]
    for _ in range(2):
        assert [batch.tokens[:, 0].tolist() for batch in batches] == starts
    assert batches[-1].tokens[:, 0].tolist() == [18, 0]
    assert [batch.tokens[:, 0].tolist() for batch in batches[1:3]] == starts[1:3]
    with pytest.raises(IndexError):
        batches[4]


def test_what_prepare_promises_verifies(corpus: Corpus) -> None:
    """An intact dataset passes, and says how large it is."""
    corpus.verify()
    assert (corpus.manifest.train_tokens, corpus.manifest.heldout_tokens) == (100, 10)


def test_dataset_hash_depends_on_every_shard(tmp_path: Path) -> None:
    """One other id in either stream is another dataset; where it lies on disk is not."""

    def dataset_hash(name: str, train: list[int], heldout: list[int]) -> str:
        (tmp_path / name).mkdir()
        return Corpus.open(write_dataset(tmp_path / name, train, heldout)).manifest.sha256

    base = dataset_hash("a", [1, 2, 3], [4, 5])
    assert dataset_hash("b", [1, 2, 3], [4, 5]) == base
    assert len({base, dataset_hash("c", [1, 2, 4], [4, 5]), dataset_hash("d", [1, 2, 3], [4])}) == 3


def change_manifest(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Edit manifest.json in place."""
    path = folder / "manifest.json"
    fields = json.loads(path.read_text())
    change(fields)
    path.write_text(json.dumps(fields))


def first_shard(fields: dict[str, Any]) -> Any:
    """The entry of the first training shard."""
    return fields["shards"]["train"][0]


UNOPENABLE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no manifest": (lambda d: (d / "manifest.json").unlink(), "no such file"),
    "not JSON": (lambda d: (d / "manifest.json").write_text("{"), "unreadable"),
    "binary": (lambda d: (d / "manifest.json").write_bytes(b"\xff\xfe"), "unreadable"),
    "another format": (
        lambda d: (d / "manifest.json").write_text('{"format": "x"}'),
        "not the manifest of a dataset",
    ),
    "not an object": (lambda d: (d / "manifest.json").write_text("[]"), "not the manifest"),
    "newer version": (
        lambda d: change_manifest(d, lambda f: f.update(format_version=2)),
        "format_version 2, this aprtrain reads up to 1",
    ),
    "a field is missing": (
        lambda d: change_manifest(d, lambda f: f.pop("tokenizer")),
        "damaged: KeyError: 'tokenizer'",
    ),
    "a count is no number": (
        lambda d: change_manifest(d, lambda f: first_shard(f).update(tokens="16")),
        "damaged: ValueError: '16' is not an integer",
    ),
    "a count is negative": (
        lambda d: change_manifest(d, lambda f: first_shard(f).update(tokens=-1)),
        "damaged: ValueError: -1",
    ),
    "a shard outside the folder": (
        lambda d: change_manifest(d, lambda f: first_shard(f).update(file="../train-00000.bin")),
        "damaged: ValueError: '../train-00000.bin'",
    ),
    "another vocabulary": (
        lambda d: change_manifest(d, lambda f: f["tokenizer"].update(vocab_size=7)),
        "the manifest was changed",
    ),
    "a shard was left out": (
        lambda d: change_manifest(d, lambda f: f["shards"]["train"].pop()),
        "the manifest was changed",
    ),
    "missing shard": (lambda d: (d / "train-00001.bin").unlink(), "train-00001.bin: No such file"),
    "truncated shard": (
        lambda d: (d / "train-00001.bin").write_bytes(b"\0" * 60),
        "train-00001.bin: 60 bytes, the manifest says 64",
    ),
    "longer shard": (
        lambda d: (d / "heldout-00000.bin").write_bytes(b"\0" * 44),
        "44 bytes, the manifest says 40",
    ),
}


@pytest.mark.parametrize("name", UNOPENABLE)
def test_unusable_dataset_is_not_opened(tmp_path: Path, name: str) -> None:
    """One DataError that says what is wrong and where."""
    spoil, said = UNOPENABLE[name]
    spoil(write_dataset(tmp_path, range(100)))
    with pytest.raises(DataError, match=said) as caught:
        Corpus.open(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["absent", "file"])
def test_a_path_that_is_no_folder_is_refused(tmp_path: Path, name: str) -> None:
    """It names the command that makes a dataset."""
    (tmp_path / "file").write_text("text")
    with pytest.raises(DataError, match="aprtrain prepare"):
        Corpus.open(tmp_path / name)


@pytest.mark.parametrize("name", ["train-00000.bin", "train-00006.bin", "heldout-00000.bin"])
def test_one_flipped_bit_anywhere_is_found(corpus: Corpus, name: str) -> None:
    """Sizes are right, so opening cannot see it; `verify` names the shard."""
    path = corpus.path / name
    content = bytearray(path.read_bytes())
    content[-4] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"{name}: sha256 is"):
        Corpus.open(corpus.path).verify()


def test_id_outside_the_vocabulary_is_found(tmp_path: Path) -> None:
    """A dataset whose hashes hold can still have been made with another vocabulary."""
    corpus = Corpus.open(write_dataset(tmp_path, [*range(50), 90], vocab_size=90))
    with pytest.raises(DataError, match="token id 90 is outside the manifest's vocab_size of 90"):
        corpus.verify()


@pytest.mark.parametrize("heldout", [[], [5]])
def test_heldout_set_without_a_target_is_refused(tmp_path: Path, heldout: list[int]) -> None:
    """One token has nothing to be predicted from."""
    corpus = Corpus.open(write_dataset(tmp_path, range(50), heldout))
    with pytest.raises(DataError, match=f"held-out set has {len(heldout)} tokens"):
        corpus.heldout(seq_length=3, batch_size=1)


def test_fewer_tokens_than_a_window_are_refused_before_any_step(corpus: Corpus) -> None:
    """100 tokens are a window of 99 targets, but not of 100."""
    assert corpus.windows(99) == 1
    with pytest.raises(DataError, match="100 training tokens, one window takes 101"):
        corpus.training_steps(
            seq_length=100,
            micro_batch_size=1,
            accumulation=1,
            seed=0,
            cycle=True,
            on_epoch=lambda epoch: None,
        )


def synthetic(count: int, **changes: Any) -> list[Any]:
    """The first steps of random tokens."""
    options: dict[str, Any] = {
        "seq_length": 5,
        "micro_batch_size": 6,
        "accumulation": 1,
        "seed": 0,
        "cycle": False,
        "on_epoch": lambda epoch: None,
    }
    return list(islice(synthetic_steps(50, **(options | changes)), count))


def test_synthetic_tokens_do_not_depend_on_how_they_are_dealt_out() -> None:
    """Six sequences a step, as one batch, by accumulation and ranks, and after a jump."""
    whole = synthetic(4)
    dealt = [
        synthetic(4, micro_batch_size=1, accumulation=3, rank=rank, world_size=2) for rank in (0, 1)
    ]
    for step in range(4):
        assert sorted(rows([whole[step]])) == sorted(r for d in dealt for r in rows([d[step]]))
    assert rows(synthetic(1, first_step=3)) == rows(whole[3:])


def test_synthetic_tokens_are_spread_over_the_vocabulary() -> None:
    """All 50 ids occur in 60 sequences."""
    assert {token for row in rows(synthetic(10)) for token in row} == set(range(50))


def test_synthetic_sequences_share_no_piece() -> None:
    """No 8 tokens in a row occur twice in 60 sequences, as they would in overlapping streams."""
    sequences = rows(synthetic(10, seq_length=40))
    pieces = [tuple(row[i : i + 8]) for row in sequences for i in range(len(row) - 7)]
    assert len(set(pieces)) == len(pieces)
