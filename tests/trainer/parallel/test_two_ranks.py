"""C-DDP-001: two processes that share a step take the step that one process takes alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.trainer.parallel import two_ranks
from tests.trainer.parallel.conftest import launch
from tests.trainer.parallel.two_ranks import CONFIGS, RANKS, RESUME_AT, STEPS
from trainer.checkpoint.restore import restore
from trainer.parallel.parallelism import Parallelism
from trainer.trainer import PretrainTrainer

NOISE = 1e-6
"""float32 sums in another order differ by some 2⁻²³ of them, and Adam divides what it has of the
first moment by the root of the second: relative errors stay of that size."""


@dataclass(frozen=True)
class Launch:
    """What two ranks left behind, and what one process does with twice the micro-batches.

    Attributes:
        folder: of `two_ranks.main`.
        results: of each rank.
        alone: by architecture, the trainer after all steps, and its log.
    """

    folder: Path
    results: list[dict[str, Any]]
    alone: dict[str, tuple[PretrainTrainer, list[list[float]]]]

    def tensors(self, name: str, way: str, file: str, rank: int = 0) -> dict[str, Tensor]:
        """Tensors that a rank saved."""
        return load_file(self.folder / f"{name}-{way}" / f"{file}-{rank}.safetensors")


def alone(name: str, folder: Path) -> tuple[PretrainTrainer, list[list[float]]]:
    """All steps in one process, which leaves a checkpoint half-way."""
    trainer = two_ranks.build(CONFIGS[name], Parallelism())
    log = two_ranks.take(trainer, RESUME_AT, per_rank=RANKS)
    two_ranks.save(trainer, folder / f"{name}.apr", two_ranks.settings(1, RANKS))
    return trainer, log + two_ranks.take(trainer, STEPS, per_rank=RANKS)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Launch:
    """The one launch that this module looks at."""
    folder = tmp_path_factory.mktemp("ranks")
    single = {name: alone(name, folder) for name in CONFIGS}
    run = launch(two_ranks.__file__, folder)
    assert run.returncode == 0, run.stderr
    results = [json.loads((folder / f"results-{r}.json").read_text()) for r in range(RANKS)]
    return Launch(folder, results, single)


def ways() -> Iterator[Any]:
    for name in CONFIGS:
        yield from (pytest.param(name, way, id=f"{name}-{way}") for way in ("ddp", "fsdp"))


each_way = pytest.mark.parametrize(("name", "way"), list(ways()))
each_model = pytest.mark.parametrize("name", list(CONFIGS))


def assert_same_bits(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert not [name for name in found if not torch.equal(found[name], expected[name])]


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert (found[name] - tensor).norm() <= NOISE * tensor.norm(), name


@each_model
def test_ddp_on_two_ranks_is_accumulation_of_two_bit_for_bit(done: Launch, name: str) -> None:
    """Weights, moments, losses, norms and target counts of four steps, some with masks of unequal
    counts: a sum of two has no order. Tied and untied, with Qwen2's biases, in several buckets."""
    trainer, log = done.alone[name]
    assert done.results[0][f"{name}-ddp"]["log"] == log
    assert_same_bits(done.tensors(name, "ddp", "state"), two_ranks.whole_state(trainer))


@each_model
def test_fsdp_is_one_process_within_rounding(done: Launch, name: str) -> None:
    """Weights and moments after four steps, and each step's numbers; the vocabulary is odd."""
    trainer, log = done.alone[name]
    for seen, expected in zip(done.results[0][f"{name}-fsdp"]["log"], log, strict=True):
        assert seen == pytest.approx(expected, rel=NOISE)
    assert_close(done.tensors(name, "fsdp", "state"), two_ranks.whole_state(trainer))


@each_way
def test_ranks_agree_in_every_bit(done: Launch, name: str, way: str) -> None:
    """No rank drifts away: same log, same weights and moments, same gradients."""
    first, second = (results[f"{name}-{way}"] for results in done.results)
    assert first["log"] == second["log"]
    for file in ("state", "gradients"):
        assert_same_bits(done.tensors(name, way, file, 0), done.tensors(name, way, file, 1))


@each_way
def test_gradients_are_those_of_all_ranks(done: Launch, name: str, way: str) -> None:
    """FALSIFY-DDP-001, -004: the mean over both ranks' targets, and not the gradient of either
    rank's own batch, which is far off."""
    batches = [two_ranks.micro_batch(rank) for rank in range(RANKS)]
    trainer = two_ranks.build(CONFIGS[name], Parallelism())
    own = [trainer.loss_and_gradients(batch)[1] for batch in batches]
    counts = [batch.target_count() for batch in batches]
    shares = [count / sum(counts) for count in counts]
    found = done.tensors(name, way, "gradients")
    assert_close(found, {n: own[0][n] * shares[0] + own[1][n] * shares[1] for n in found})
    for gradients in own:
        apart = [(found[n] - gradients[n]).norm() / gradients[n].norm() for n in found]
        assert min(apart) > 0.1


@each_way
def test_accumulation_on_each_rank_adds_up(done: Launch, name: str, way: str) -> None:
    """FALSIFY-DDP-002: two ranks with two micro-batches each are one process with four; nothing is
    summed twice, and no gradient of the step before is left."""
    trainer = two_ranks.build(CONFIGS[name], Parallelism())
    expected = two_ranks.take(trainer, STEPS // 2, per_rank=2 * RANKS)
    found = done.results[0][f"{name}-{way}"]["accumulated"]
    for seen, numbers in zip(found, expected, strict=True):
        assert seen == pytest.approx(numbers, rel=NOISE)


@each_way
def test_nan_on_one_rank_halts_all_at_one_step(done: Launch, name: str, way: str) -> None:
    """FALSIFY-DDP-003: rank 1 alone has a gradient of NaN; both raise NumericalInstability for the
    same step with the same numbers, and no weight or moment of either has moved."""
    first, second = (results[f"{name}-{way}"]["poisoned"] for results in done.results)
    assert first == second
    assert first["step"] == STEPS and first["unmoved"]
    assert f"INV-TRAIN-007: step {STEPS}: " in first["message"]


@each_way
def test_evaluation_is_that_of_one_process(done: Launch, name: str, way: str) -> None:
    """Five batches of unequal counts, dealt out to two ranks, as a sequence and as an iterator:
    the loss is weighted by tokens over all of them, on every rank."""
    folder = done.folder / f"{name}-{way}"
    trainer = two_ranks.build(CONFIGS[name], Parallelism())
    own = two_ranks.build(CONFIGS[name], Parallelism())
    restore(trainer, folder / "checkpoint.apr", two_ranks.settings(1, RANKS))
    two_ranks.take(trainer, STEPS, per_rank=RANKS)
    expected = trainer.evaluate(two_ranks.heldout())
    assert abs(expected - own.evaluate(two_ranks.heldout())) > 1e-3
    for results in done.results:
        assert results[f"{name}-{way}"]["heldout"] == pytest.approx([expected] * 2, rel=NOISE)


@each_way
def test_a_checkpoint_of_two_ranks_goes_on_in_one_process(
    done: Launch, name: str, way: str
) -> None:
    """The file is an ordinary one. From DDP the rest of the run is the uninterrupted one bit for
    bit; FSDP sums in another order."""
    single, log = done.alone[name]
    trainer = two_ranks.build(CONFIGS[name], Parallelism(), seed=99)
    path = done.folder / f"{name}-{way}" / "checkpoint.apr"
    restore(trainer, path, two_ranks.settings(1, RANKS))
    rest = two_ranks.take(trainer, STEPS, per_rank=RANKS)
    found, expected = two_ranks.whole_state(trainer), two_ranks.whole_state(single)
    if way == "ddp":
        assert rest == log[RESUME_AT:]
        assert_same_bits(found, expected)
    else:
        assert_close(found, expected)


@each_way
def test_a_checkpoint_of_one_process_goes_on_on_two_ranks(
    done: Launch, name: str, way: str
) -> None:
    """And back: from the file of one process, two ranks reach what it reaches."""
    trainer, log = done.alone[name]
    found, expected = done.tensors(name, way, "resumed"), two_ranks.whole_state(trainer)
    rest = done.results[0][f"{name}-{way}"]["resumed"]
    if way == "ddp":
        assert rest == log[RESUME_AT:]
        assert_same_bits(found, expected)
    else:
        assert_close(found, expected)


@each_model
def test_fsdp_keeps_a_part_of_every_rank(done: Launch, name: str) -> None:
    """The optimizer of a rank has about half of the elements, and both together have all."""
    total = sum(p.numel() for p in done.alone[name][0].model.parameters())
    parts = [results[f"{name}-fsdp"]["part"] for results in done.results]
    assert sum(parts) == total
    assert max(parts) < 0.51 * total


@each_way
def test_a_failed_checkpoint_stops_every_rank(done: Launch, name: str, way: str) -> None:
    """The leading rank alone writes; both raise its CheckpointError."""
    first, second = (results[f"{name}-{way}"]["failed_write"] for results in done.results)
    assert first.startswith("F-CKPT-009: ")
    assert second == f"rank 0: {first}"[: len(second)] and len(second) > 80


@each_way
def test_ranks_that_begin_apart_are_refused(done: Launch, name: str, way: str) -> None:
    """Other initial weights on one rank would train two models; both ranks refuse."""
    for results in done.results:
        refused = results[f"{name}-{way}"]["unlike_start"]
        # Parts of FSDP are put together to one model, so there is nothing to disagree about.
        assert refused.startswith("the ranks do not begin with the same") == (way == "ddp")


def test_hosts_agree(done: Launch) -> None:
    """Sums and maxima are those of both ranks, and an error of rank 1 alone is raised by rank 0 as
    well, with its kind and who met it, however long; then both go on."""
    for rank, results in enumerate(done.results):
        found = results["agreement"]
        assert (found["total"], found["greatest"], found["afterwards"]) == (3, 1, True)
        assert found["error"].startswith("rank 1: only here – ü" if rank == 0 else "only here – ü")
