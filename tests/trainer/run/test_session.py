"""Runs through the command line: what they leave behind, and every way in which they end."""

from __future__ import annotations

import errno
import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch

from trainer import cli
from trainer.build import build_shared_trainer_with_init
from trainer.checkpoint import writer
from trainer.checkpoint.checkpoint_file import CheckpointFile
from trainer.checkpoint.epoch_metadata import EpochSummary, write_epoch_metadata
from trainer.corpus.corpus import Corpus
from trainer.run import loop
from trainer.run.metrics import MetricsLog, StepMetrics
from trainer.trainer import PretrainTrainer
from trainer.weights.apr_writer import write_apr
from trainer.weights.architecture import read_architecture

Command = Callable[..., list[str]]

NINE_FIELDS = {
    "epoch",
    "train_loss",
    "val_loss",
    "train_ppl",
    "val_ppl",
    "optimizer_state_sha",
    "wall_seconds",
    "tokens_seen",
    "grad_norm_max",
}


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """Where `command` lets the run go."""
    return tmp_path / "run"


def read(path: Path) -> dict[str, Any]:
    """A JSON object."""
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def steps(run_dir: Path) -> list[dict[str, Any]]:
    """The log of a run."""
    return [json.loads(line) for line in (run_dir / "train.jsonl").read_text().splitlines()]


def checkpoints(run_dir: Path) -> list[str]:
    """Names of the files in ckpt/, metadata left out."""
    return sorted(path.name for path in (run_dir / "ckpt").iterdir() if path.suffix != ".json")


def heldout_losses(monkeypatch: pytest.MonkeyPatch, losses: Sequence[float]) -> None:
    """Let validation find `losses`, one an epoch."""
    found: Iterator[float] = iter(losses)
    monkeypatch.setattr(PretrainTrainer, "evaluate", lambda trainer, batches: next(found))


def test_run_leaves_every_artifact(
    command: Command, run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """INV-TRAIN-001, -002: six metrics a step, a checkpoint and nine fields an epoch, records."""
    assert cli.main(command(json=True)) == 0
    assert [line["step"] for line in steps(run_dir)] == list(range(12))
    assert checkpoints(run_dir) == ["epoch-000.apr", "epoch-001.apr", "epoch-002.apr"]
    for epoch in range(3):
        assert read(run_dir / f"ckpt/epoch-{epoch:03d}.metadata.json").keys() >= NINE_FIELDS
    outcome = read(run_dir / "outcome.json")
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == outcome
    assert (outcome["status"], outcome["exit_code"], outcome["steps"]) == ("OK", 0, 12)
    assert (outcome["epochs"], outcome["tokens_seen"]) == (3, 12 * 2 * 16)
    assert 0 < outcome["startup_seconds"] < outcome["wall_seconds"]
    assert outcome["peak_memory_bytes"] > 0 and outcome["resume_command"] is None
    run = read(run_dir / "run.json")
    assert run["parameters"] == {"stored": 23744, "nominal": 23744 + 257 * 32}
    assert all(len(digest) == 64 for digest in run["sha256"].values())
    assert len(ElementTree.parse(run_dir / "curves.svg").findall("{*}g")) == 4


def test_epoch_metadata_is_what_log_and_checkpoint_say(
    command: Command, inputs: Path, run_dir: Path
) -> None:
    """Recomputed from outside: loss and norm from the log, held-out loss from the weights."""
    assert cli.main(command()) == 0
    found = read(run_dir / "ckpt/epoch-001.metadata.json")
    lines = steps(run_dir)[4:8]
    assert found["train_loss"] == pytest.approx(sum(x["train_loss"] for x in lines) / 4, rel=1e-12)
    assert found["grad_norm_max"] == max(line["grad_norm"] for line in lines)
    assert found["tokens_seen"] == 8 * 2 * 16
    assert found["val_ppl"] == math.exp(found["val_loss"])
    heldout = Corpus.open(inputs / "dataset").heldout(seq_length=16, batch_size=2)
    path = run_dir / "ckpt/epoch-001.apr"
    trainer = build_shared_trainer_with_init(0.0, 16, 0, read_architecture(path), path)
    assert found["val_loss"] == trainer.evaluate(heldout)
    with CheckpointFile(path) as file:
        assert found["optimizer_state_sha"] == file.optimizer_state_sha()
        assert (file.position.step, file.position.tokens_seen) == (8, 8 * 2 * 16)
        assert file.position.history == tuple(
            read(run_dir / f"ckpt/epoch-{epoch:03d}.metadata.json")["val_loss"] for epoch in (0, 1)
        )


def test_last_epoch_may_be_shorter(command: Command, run_dir: Path) -> None:
    """Ten steps in epochs of four: the third has two steps, and is validated and kept as well."""
    assert cli.main(command(num_steps=10)) == 0
    assert checkpoints(run_dir) == ["epoch-000.apr", "epoch-001.apr", "epoch-002.apr"]
    lines = steps(run_dir)[8:]
    found = read(run_dir / "ckpt/epoch-002.metadata.json")["train_loss"]
    assert found == pytest.approx(sum(line["train_loss"] for line in lines) / 2, rel=1e-12)


def test_same_seed_same_numbers_and_another_seed_others(command: Command, tmp_path: Path) -> None:
    """INV-TRAIN-006 on a CPU: bitwise equal losses and norms; seed 1 differs within ten steps."""
    logs = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        assert cli.main(command(run_dir=tmp_path / name, seed=seed)) == 0
        logs.append([(x["train_loss"], x["grad_norm"], x["lr"]) for x in steps(tmp_path / name)])
    assert logs[0] == logs[1]
    assert any(abs(a[0] - c[0]) > 1e-4 for a, c in zip(logs[0][:10], logs[2][:10], strict=True))


def test_used_up_data_begins_again_with_one_notice(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    """INV-TRAIN-011: far more steps than the data has, three passes, one notice."""
    assert cli.main(command(num_steps=60, batch_size=8, steps_per_epoch=None)) == 0
    assert capsys.readouterr().err.count("INV-TRAIN-011") == 1


def test_used_up_data_halts_by_name_and_can_be_resumed(
    command: Command, run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """INV-TRAIN-011 with --data-end halt: exit 13, nothing made up, the steps done are kept."""
    halting = command(num_steps=600, batch_size=8, steps_per_epoch=500, data_end="halt")
    assert cli.main(halting) == 13
    outcome, done = read(run_dir / "outcome.json"), len(steps(run_dir))
    assert outcome["status"] == "STREAM_EXHAUSTED" and outcome["steps"] == done < 60
    assert checkpoints(run_dir) == [f"step-{done:08d}.apr"]
    error = capsys.readouterr().err
    assert f"no batch for step {done} of 600" in error and outcome["resume_command"] in error


def test_synthetic_data_needs_no_dataset(
    command: Command, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """INV-TRAIN-010: random tokens on request, and validation on sequences not trained on."""
    trained: set[tuple[int, ...]] = set()
    scored: set[tuple[int, ...]] = set()
    step, evaluate = PretrainTrainer.launch_step, PretrainTrainer.eval_batch

    def launch_step(trainer: PretrainTrainer, batches: Any, lr: float) -> Any:
        trained.update(tuple(row) for batch in batches for row in batch.tokens.tolist())
        return step(trainer, batches, lr)

    def eval_batch(trainer: PretrainTrainer, batch: Any) -> Any:
        scored.update(map(tuple, batch.tokens.tolist()))
        return evaluate(trainer, batch)

    monkeypatch.setattr(PretrainTrainer, "launch_step", launch_step)
    monkeypatch.setattr(PretrainTrainer, "eval_batch", eval_batch)
    assert cli.main(command(synthetic=True, dataset=None, tokenizer=None)) == 0
    assert len(trained) == 12 * 2 and len(scored) == 4 * 2 and not trained & scored
    run = read(run_dir / "run.json")
    assert run["sha256"]["dataset"] is None and run["identity"]["synthetic"] is True


def test_first_held_out_loss_above_the_ceiling_is_divergence(
    command: Command, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """INV-TRAIN-005: 10.1 after epoch 0 of fine-tuning ends the run; no checkpoint is left."""
    heldout_losses(monkeypatch, [10.1])
    assert cli.main(command()) == 10
    outcome = read(run_dir / "outcome.json")
    assert outcome["status"] == "DIVERGENCE" and "INV-TRAIN-005" in outcome["message"]
    assert outcome["resume_command"] is None  # it would only diverge again
    assert outcome["final_val_loss"] == 10.1
    assert checkpoints(run_dir) == [] and len(steps(run_dir)) == 4


def test_doubled_held_out_loss_is_divergence(
    command: Command, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """INV-TRAIN-005: 3.0 then 6.1: the epoch before stays the newest checkpoint."""
    heldout_losses(monkeypatch, [3.0, 6.1])
    assert cli.main(command()) == 10
    assert checkpoints(run_dir) == ["epoch-000.apr"]


def test_held_out_loss_that_is_no_number_ends_the_run(
    command: Command, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """INV-TRAIN-007 for validation: exit 11, and records that are still JSON."""
    heldout_losses(monkeypatch, [3.0, math.nan])
    assert cli.main(command()) == 11
    assert "INV-TRAIN-007" in read(run_dir / "outcome.json")["message"]


def test_instability_ends_the_run_within_one_step(
    command: Command, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """INV-TRAIN-007: weights poisoned before step 6: exit 11, six lines, epoch 0 kept."""
    original = PretrainTrainer.launch_step

    def poisoned(trainer: PretrainTrainer, *arguments: Any) -> Any:
        if trainer.step == 6:
            with torch.no_grad():
                trainer.model.model.norm.weight[0] = math.nan
        return original(trainer, *arguments)

    monkeypatch.setattr(PretrainTrainer, "launch_step", poisoned)
    assert cli.main(command()) == 11
    outcome = read(run_dir / "outcome.json")
    assert "INV-TRAIN-007: step 6" in outcome["message"]
    assert outcome["steps"] == len(steps(run_dir)) == 6
    assert checkpoints(run_dir) == ["epoch-000.apr"]


def test_slow_training_ends_by_name(command: Command, run_dir: Path) -> None:
    """THROUGHPUT_OUT_OF_RANGE after the twentieth step, whose checkpoint is kept."""
    slow = command(num_steps=40, steps_per_epoch=40, min_tokens_per_sec="1e12")
    assert cli.main(slow) == 12
    assert len(steps(run_dir)) == 20 and checkpoints(run_dir) == ["step-00000020.apr"]


def test_no_better_for_two_epochs_is_an_early_stop(
    command: Command, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """INV-TRAIN-004: best in epoch 1, not in 2 and 3: EARLY_STOP, exit 0, everything kept."""
    heldout_losses(monkeypatch, [3.0, 2.0, 2.5, 2.4, 1.0, 1.0])
    assert cli.main(command(num_steps=24)) == 0
    outcome = read(run_dir / "outcome.json")
    assert (outcome["status"], outcome["epochs"]) == ("EARLY_STOP", 4)
    assert outcome["best_val_loss"] == 2.0 and outcome["resume_command"] is None
    assert checkpoints(run_dir)[-1] == "epoch-003.apr"
    assert cli.main(command(num_steps=24, resume=True)) == 0
    assert read(run_dir / "outcome.json")["status"] == "EARLY_STOP"
    assert len(steps(run_dir)) == 16


def test_reaching_the_target_stops_nothing(
    command: Command, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Target 2.2 reached in epoch 0: it is said, and all three epochs are trained."""
    heldout_losses(monkeypatch, [2.1, 2.3, 2.4])
    assert cli.main(command()) == 0
    outcome = read(run_dir / "outcome.json")
    assert outcome["target_reached"] is True and outcome["epochs"] == 3
    assert read(run_dir / "ckpt/epoch-001.metadata.json")["target_reached"] is False


def test_failed_checkpoint_write_stops_the_run(
    command: Command, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk at epoch 1: exit 8 with the path, and the checkpoint before is still good."""
    original = write_apr

    def full(path: Path, *arguments: Any) -> None:
        if path.name == "epoch-001.apr":
            raise OSError(errno.ENOSPC, "No space left on device")
        original(path, *arguments)

    monkeypatch.setattr(writer, "write_apr", full)
    assert cli.main(command()) == 8
    outcome = read(run_dir / "outcome.json")
    assert outcome["status"] == "CHECKPOINT" and "epoch-001.apr" in outcome["message"]
    monkeypatch.undo()
    assert cli.main(command(resume=True)) == 0
    assert [line["step"] for line in steps(run_dir)] == list(range(12))


def test_log_that_cannot_be_written_stops_the_run(
    command: Command, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is full at step 5: exit 8, five lines, the epoch before is kept."""
    original = MetricsLog.write

    def full(log: MetricsLog, metrics: StepMetrics) -> None:
        if metrics.step == 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        original(log, metrics)

    monkeypatch.setattr(MetricsLog, "write", full)
    assert cli.main(command()) == 8
    assert "No space left" in read(run_dir / "outcome.json")["message"]
    assert len(steps(run_dir)) == 5 and checkpoints(run_dir) == ["epoch-000.apr"]


def test_exhausted_memory_says_what_to_lower(
    command: Command, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch's error at step 2 becomes OUT_OF_MEMORY, exit 9, with the option to lower."""
    original = PretrainTrainer.launch_step

    def exhausted(trainer: PretrainTrainer, *arguments: Any) -> Any:
        if trainer.step == 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(trainer, *arguments)

    monkeypatch.setattr(PretrainTrainer, "launch_step", exhausted)
    assert cli.main(command()) == 9
    message = read(run_dir / "outcome.json")["message"]
    assert "--batch-size" in message and "--accumulation" in message


def test_memory_exhausted_while_building_leaves_nothing(
    command: Command, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No run directory of a model that did not fit."""

    def exhausted(*arguments: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(PretrainTrainer, "__init__", exhausted)
    assert cli.main(command()) == 9
    assert not run_dir.exists()


def test_periodic_checkpoints_are_superseded(
    command: Command, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every third step one, the older ones go, and an epoch's end needs no second file."""
    written: list[str] = []
    original = write_apr

    def record(path: Path, *arguments: Any) -> None:
        original(path, *arguments)
        written.append(path.name)

    monkeypatch.setattr(writer, "write_apr", record)
    assert cli.main(command(checkpoint_every=3)) == 0
    assert written == [
        "step-00000003.apr",
        "epoch-000.apr",
        "step-00000006.apr",
        "epoch-001.apr",
        "step-00000009.apr",
        "epoch-002.apr",
    ]
    assert checkpoints(run_dir) == ["epoch-000.apr", "epoch-001.apr", "epoch-002.apr"]


def test_log_is_on_the_disk_before_a_checkpoint_is(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a power cut could leave a checkpoint that is ahead of its log, and no resume."""
    happened: list[str] = []
    sync, write = MetricsLog.sync, write_apr

    def recorded_sync(log: MetricsLog) -> None:
        sync(log)
        happened.append("log")

    def recorded_write(path: Path, *arguments: Any) -> None:
        happened.append("checkpoint")
        write(path, *arguments)

    monkeypatch.setattr(MetricsLog, "sync", recorded_sync)
    monkeypatch.setattr(writer, "write_apr", recorded_write)
    assert cli.main(command()) == 0
    assert happened == ["log", "checkpoint"] * 3


def test_embedded_tokenizer_makes_a_checkpoint_complete(
    command: Command, run_dir: Path, tmp_path: Path
) -> None:
    """A run from a checkpoint with its tokenizer in it needs no --tokenizer."""
    assert cli.main(command(embed_tokenizer=True)) == 0
    again = command(
        init=run_dir / "ckpt/epoch-002.apr", tokenizer=None, run_dir=tmp_path / "second"
    )
    assert cli.main(again) == 0
    first = steps(tmp_path / "second")[0]["train_loss"]
    assert first < steps(run_dir)[0]["train_loss"] - 0.5


def test_accumulated_run_sees_the_same_tokens(command: Command, tmp_path: Path) -> None:
    """Four micro-batches of one sequence are the step that one batch of four is, to rounding."""
    assert cli.main(command(batch_size=4, run_dir=tmp_path / "a")) == 0
    assert cli.main(command(batch_size=1, accumulation=4, run_dir=tmp_path / "b")) == 0
    whole, parts = steps(tmp_path / "a"), steps(tmp_path / "b")
    for one, other in zip(whole, parts, strict=True):
        # Sums of float32 in another order, over twelve steps; another token differs by 1e-2.
        assert one["train_loss"] == pytest.approx(other["train_loss"], rel=1e-4)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"seed": 1}, "seed"),
        ({"lr": 0.02}, "schedule"),
        ({"num_steps": 13}, "schedule"),
        ({"batch_size": 4}, "micro_batch_size"),
        ({"accumulation": 2}, "accumulation"),
        ({"data_end": "halt"}, "data_end"),
        ({"target_loss": 1.0}, "target_loss"),
        ({"dtype": "bfloat16"}, "compute_dtype"),
    ],
)
def test_resume_refuses_changed_settings(
    command: Command,
    run_dir: Path,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, Any],
    field: str,
) -> None:
    """Exit 8, one line that names the field, and nothing in the run directory has changed."""
    assert cli.main(command(num_steps=4)) == 0
    before = {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}
    capsys.readouterr()
    assert cli.main(command(**{"num_steps": 4, **changes}, resume=True)) == 8
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and f"{field}: was" in error
    assert {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()} == before


def test_finished_run_resumed_has_nothing_left_to_do(command: Command, run_dir: Path) -> None:
    """Exit 0, no step taken, the same log, and run.json knows of the second start."""
    assert cli.main(command()) == 0
    log = (run_dir / "train.jsonl").read_bytes()
    assert cli.main(command(resume=True)) == 0
    assert (run_dir / "train.jsonl").read_bytes() == log
    assert [start["first_step"] for start in read(run_dir / "run.json")["resumed"]] == [12]


def test_damaged_newest_checkpoint_falls_back_with_a_notice(
    command: Command, run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Epoch 2's file torn: the run goes on from epoch 1 and ends with the very same file."""
    assert cli.main(command()) == 0
    newest = run_dir / "ckpt/epoch-002.apr"
    content = newest.read_bytes()
    newest.write_bytes(content[:-1])
    capsys.readouterr()
    assert cli.main(command(resume=True)) == 0
    assert "epoch-002.apr" in capsys.readouterr().err
    assert newest.read_bytes() == content


def test_death_between_checkpoints_is_resumed_bitwise(
    command: Command, run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Checkpoint after step 6, death at step 8: the log is cut back, and the end is the same."""
    options: dict[str, Any] = {"checkpoint_every": 6, "steps_per_epoch": 12, "accumulation": 3}
    assert cli.main(command(run_dir=tmp_path / "whole", **options)) == 0
    original = loop.next_batch

    def die(stream: Any, step: int, planned: int) -> Any:
        if step == 8:
            raise SystemError("power cut")
        return original(stream, step, planned)

    monkeypatch.setattr(loop, "next_batch", die)
    with pytest.raises(SystemError):
        cli.main(command(**options))
    assert len(steps(run_dir)) == 8
    monkeypatch.undo()
    assert cli.main(command(resume=True, **options)) == 0
    assert timeless(steps(run_dir)) == timeless(steps(tmp_path / "whole"))
    name = "ckpt/epoch-000.apr"
    assert (run_dir / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def timeless(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Log lines without the one metric that a clock decides."""
    return [{k: v for k, v in line.items() if k != "tokens_per_sec"} for line in lines]


@pytest.mark.parametrize("left", [None, "epoch-000.metadata.json", "epoch-000.apr.partial"])
def test_run_killed_before_its_first_checkpoint_begins_again(
    command: Command,
    run_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    left: str | None,
) -> None:
    """Nothing but a log of two steps is lost: --resume takes all twelve, and says so."""
    original = loop.next_batch

    def die(stream: Any, step: int, planned: int) -> Any:
        if step == 2:
            raise SystemError("power cut")
        return original(stream, step, planned)

    monkeypatch.setattr(loop, "next_batch", die)
    with pytest.raises(SystemError):
        cli.main(command())
    monkeypatch.undo()
    if left is not None:
        (run_dir / "ckpt" / left).write_text("{}")
    assert cli.main(command(resume=True)) == 0
    assert "begins again at step 0" in capsys.readouterr().err
    assert [line["step"] for line in steps(run_dir)] == list(range(12))
    assert checkpoints(run_dir) == ["epoch-000.apr", "epoch-001.apr", "epoch-002.apr"]


def test_run_that_lost_its_checkpoints_does_not_begin_again(
    command: Command, run_dir: Path
) -> None:
    """Two epochs were done: exit 8, and the log of them stays."""
    assert cli.main(command(num_steps=8)) == 0
    for path in (run_dir / "ckpt").glob("*.apr"):
        path.unlink()
    assert cli.main(command(num_steps=8, resume=True)) == 8
    assert len(steps(run_dir)) == 8


def test_outcome_of_a_resumed_run_names_the_checkpoint_it_came_from(
    command: Command, run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A finished run resumed writes nothing new; its last checkpoint is still its checkpoint."""
    assert cli.main(command()) == 0
    first = read(run_dir / "outcome.json")["checkpoint"]
    assert first.endswith("epoch-002.apr")
    assert cli.main(command(resume=True)) == 0
    assert read(run_dir / "outcome.json")["checkpoint"] == first


def test_damaged_log_is_refused_by_name_and_recorded(command: Command, run_dir: Path) -> None:
    """A line that is no JSON before the checkpoint: exit 8 in outcome.json, and no traceback."""
    assert cli.main(command()) == 0
    log = run_dir / "train.jsonl"
    log.write_bytes(log.read_bytes().replace(b"lr", b"\xff\xfe", 1))
    assert cli.main(command(resume=True)) == 8
    assert "INV-TRAIN-001" in read(run_dir / "outcome.json")["message"]


def test_log_line_with_a_foreign_field_costs_the_picture_only(
    command: Command, run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Curves cannot be drawn of it; the run itself ends as it would."""
    assert cli.main(command()) == 0
    log = run_dir / "train.jsonl"
    log.write_text(log.read_text().replace("grad_norm", "grad_nor_", 1))
    assert cli.main(command(resume=True)) == 0
    assert "not written" in capsys.readouterr().err


def test_batch_that_no_memory_holds_is_named(command: Command, run_dir: Path) -> None:
    """numpy's MemoryError in the reading thread: OUT_OF_MEMORY with what to lower, exit 9."""
    assert cli.main(command(batch_size=10**13)) == 9
    assert "--batch-size" in read(run_dir / "outcome.json")["message"]


def test_perplexity_of_a_very_high_loss_is_still_a_json_number(tmp_path: Path) -> None:
    """exp(800) overflows: the greatest float stands for it."""
    summary = EpochSummary(0, 800.0, 5.0, 1.0, 1, 1.0)
    write_epoch_metadata(tmp_path / "m.json", summary, "0" * 64)
    assert read(tmp_path / "m.json")["train_ppl"] == sys.float_info.max
