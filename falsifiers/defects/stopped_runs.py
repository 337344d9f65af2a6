"""Runs that miss a signal, forget at a resume, or share their directory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from aprverify.planting import PROTOCOL, SOURCE, Plant, defect
from falsifiers.edited_runs import edit_json, edit_runs, metadata_files


@defect(
    "signal-overwritten-by-the-answer",
    kind=SOURCE,
    imitates="received = all_reduce(received), where a handler writes to it while that waits",
    symptom="a signal that comes while the ranks agree is lost, and the run goes on",
    hidden="it takes a fraction of a millisecond in each step",
)
def signal_overwritten_by_the_answer(plant: Plant) -> None:
    """Assign the answer, also where it is none."""

    def requested(signals: Any) -> bool:
        agreed = signals._ranks.greatest(signals.received or 0)
        plant.effect(signals.received is not None and not agreed)
        signals.received = agreed or None
        return bool(agreed)

    plant.patch("trainer.run.signals:StopSignals.requested", lambda _: requested)


@defect(
    "termination-ends-the-process",
    kind=SOURCE,
    imitates="signal.signal(SIGTERM, lambda *_: sys.exit(143))",
    symptom="the step and all since the last checkpoint are lost",
    hidden="the exit code is the one that is documented",
)
def termination_ends_the_process(plant: Plant) -> None:
    """Leave from within the handler."""

    def note(signals: Any, number: int, frame: Any) -> NoReturn:
        plant.effect(True)
        raise SystemExit(128 + number)

    plant.patch("trainer.run.signals:StopSignals._note", lambda _: note)


@defect(
    "stopped-run-not-saved",
    kind=SOURCE,
    imitates="a loop that breaks when it is told to stop, and saves at epochs' ends alone",
    symptom="a stopped run goes on from the epoch before",
    hidden="it ends by the right status, and resumes without a word",
)
def stopped_run_not_saved(plant: Plant) -> None:
    """Save no checkpoint within an epoch."""

    def make(original: Any) -> Any:
        def save(session: Any, writer: Any, log: Any, epoch: Any = None) -> None:
            plant.effect(epoch is None)
            if epoch is not None:
                original(session, writer, log, epoch)

        return save

    plant.patch("trainer.run.session:Session._save", make)


@defect(
    "stopped-run-exits-with-zero",
    kind=SOURCE,
    imitates="a handler that sets a flag, and a main function that returns nothing",
    symptom="a script takes a run that was stopped for one that is finished",
    hidden="checkpoint and message are right",
)
def stopped_run_exits_with_zero(plant: Plant) -> None:
    """Give every outcome the exit code 0."""

    def make(original: Any) -> Any:
        def outcome_of(session: Any, status: str, message: str) -> Any:
            outcome = original(session, status, message)
            plant.effect(outcome.exit_code != 0)
            return replace(outcome, exit_code=0)

        return outcome_of

    plant.patch("trainer.run.session:Session._outcome", make)


@defect(
    "resume-command-without-its-options",
    kind=SOURCE,
    imitates="a hint that was written before the command had options that must be repeated",
    symptom="the command that a stopped run names does not work",
    hidden="whoever knows the command types the rest",
)
def resume_command_without_its_options(plant: Plant) -> None:
    """Name the subcommand and the flag alone."""

    def resume_command(*_: Any, **__: Any) -> str:
        plant.effect(True)
        return "aprtrain pretrain --resume"

    plant.patch("trainer.run.launch:resume_command", lambda _: resume_command)


def _says_ok(run: Path) -> None:
    edit_json(run / "outcome.json", lambda outcome: outcome.update(status="OK"))


@defect(
    "stopped-run-says-ok",
    kind=PROTOCOL,
    imitates="an outcome that is written in a finally block, whatever was on its way",
    symptom="a run that was stopped is recorded as finished",
    hidden="the exit code tells, to whoever was there",
)
def stopped_run_says_ok(plant: Plant) -> None:
    """Record the status OK."""
    edit_runs(plant, _says_ok)


def _forgets(plant: Plant, **forgotten: Any) -> None:
    """Let a session begin with attributes of its tally, or of itself, as a new run has them."""

    def make(original: Any) -> Any:
        def post_init(session: Any) -> None:
            original(session)
            for name, value in forgotten.items():
                owner = session if hasattr(session, name) else session._tally
                plant.effect(getattr(owner, name) != value)
                setattr(owner, name, value)

        return post_init

    plant.patch("trainer.run.session:Session.__post_init__", make)


@defect(
    "epoch-begun-anew-by-a-resume",
    kind=SOURCE,
    imitates="sums of an epoch in local variables of the loop, which no checkpoint has",
    symptom="an epoch's mean loss is that of its steps after the resume",
    hidden="it is a plausible loss; only the epoch that was stopped has it",
)
def epoch_begun_anew_by_a_resume(plant: Plant) -> None:
    """Drop what the epoch had come to."""
    _forgets(plant, loss_sum=0.0, targets=0, grad_norm_max=0.0, seconds=0.0)


@defect(
    "tokens-counted-from-the-resume",
    kind=SOURCE,
    imitates="a counter of tokens that begins with the process",
    symptom="curves by tokens begin again at zero",
    hidden="steps and losses are right",
)
def tokens_counted_from_the_resume(plant: Plant) -> None:
    """Drop the tokens seen before."""
    _forgets(plant, _tokens=0)


@defect(
    "seconds-of-the-last-start",
    kind=SOURCE,
    imitates="time.time() - epoch_start, with an epoch_start of this process",
    symptom="an epoch that was stopped late took hardly any time",
    hidden="all other numbers of the epoch are right",
)
def seconds_of_the_last_start(plant: Plant) -> None:
    """Drop the seconds before."""
    _forgets(plant, seconds=0.0)


def _means_of_what_was_left(run: Path) -> None:
    resumed = json.loads((run / "run.json").read_text())["resumed"]
    if not resumed:
        return
    lines = [json.loads(line) for line in (run / "train.jsonl").read_text().splitlines()]
    left = [line["train_loss"] for line in lines[resumed[-1]["first_step"] :]]
    edit_json(metadata_files(run)[-1], lambda e: e.update(train_loss=sum(left) / len(left)))


@defect(
    "resumed-epoch-is-what-was-left",
    kind=PROTOCOL,
    imitates="a mean over the lines that this process has logged",
    symptom="the loss of an epoch that was stopped is that of its last steps",
    hidden="it is nearer to the next epoch's than the right one, and so looks better",
)
def resumed_epoch_is_what_was_left(plant: Plant) -> None:
    """Average the steps after the last resume."""
    edit_runs(plant, _means_of_what_was_left)


@defect(
    "run-lock-not-taken",
    kind=SOURCE,
    imitates="huggingface/transformers: output_dir is nobody's, and two runs write to it in turn",
    symptom="two processes resume one run, and each overwrites what the other saves",
    hidden="both train, and both losses fall",
)
def run_lock_not_taken(plant: Plant) -> None:
    """Hold nothing."""

    @contextmanager
    def run_lock(root: Path) -> Iterator[None]:
        plant.effect(True)
        yield

    plant.patch("trainer.run.launch:run_lock", lambda _: run_lock)


@defect(
    "run-lock-outlives-its-process",
    kind=SOURCE,
    imitates="a lock that is a file with a process number in it, removed by a normal end alone",
    symptom="a run that was stopped is refused as if its process were still there",
    hidden="runs that nobody stops are not affected",
)
def run_lock_outlives_its_process(plant: Plant) -> None:
    """Find the lock taken where its file is."""

    def make(original: Any) -> Any:
        @contextmanager
        def run_lock(root: Path) -> Iterator[None]:
            left_over = (root / "run.lock").exists()
            plant.effect(left_over)
            with original(root) if left_over else nullcontext(), original(root):
                yield

        return run_lock

    plant.patch("trainer.run.launch:run_lock", make)
