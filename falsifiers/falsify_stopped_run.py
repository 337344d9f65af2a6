"""Does a run that is told to stop finish its step, save, and go on as if nothing had been?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from falsifiers.fixtures import Case, Configuration, Measured, Subject

if TYPE_CHECKING:
    from collections.abc import Mapping

    from falsifiers.run_directory import RunRecord
    from falsifiers.stopped_runs import Stopped


def falsify_a_signal_finishes_the_step_and_saves(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration
) -> None:
    """Signalled in a step, the run takes it, saves, and its own words lead to the same end."""
    from falsifiers.run_directory import inspect

    stopped = _stopped(subject, case, configuration)
    saved = inspect(subject.checkpoint_to_resume(stopped.left.root))
    told = stopped.left.outcome.get("resume_command") or "no command"
    pairs = zip(stopped.whole.log, stopped.resumed.log, strict=False)
    last = [run.epochs[-1].checkpoint.optimizer_sha for run in (stopped.whole, stopped.resumed)]
    measured(
        exit_code=stopped.process.exit_code,
        status=stopped.left.outcome.get("status", ""),
        steps_logged=len(stopped.left.log),
        step_saved=int(saved.training.get("step", 0)),
        resume_is_told=told in stopped.process.messages,
        resumed_status=stopped.resumed.outcome.get("status", ""),
        resumed_lines=len(stopped.resumed.log),
        different_lines=sum(_decided(a) != _decided(b) for a, b in pairs),
        same_end=last[0] == last[1],
    )


def falsify_an_epoch_counts_what_was_before_the_stop(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration
) -> None:
    """Stopped and resumed within an epoch, it comes to the nine fields of the run left alone.

    The seconds, which no two runs share, are at least those of the epoch's steps.
    """
    from falsifiers.run_rules import EPOCH_FIELDS

    stopped = _stopped(subject, case, configuration)
    within = len(stopped.left.log) - case.epoch * len(stopped.left.epochs)
    decided = [name for name in EPOCH_FIELDS if name != "wall_seconds"]
    pairs = list(zip(stopped.whole.epochs, stopped.resumed.epochs, strict=False))
    different = [
        f"{name} of epoch {one.number}"
        for one, other in pairs
        for name in decided
        if one.metadata[name] != other.metadata.get(name)
    ]
    measured(
        steps_before=within,
        steps_after=case.epoch - within,
        fields_compared=len(pairs) * len(decided),
        different=len(different),
        which=", ".join(different),
        seconds_missing=max(_seconds_missing(stopped.resumed)),
    )


def falsify_a_signal_as_ranks_agree_is_not_lost(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration, tmp_path: Path
) -> None:
    """A rank that is signalled while the ranks agree on something stops all of them, in time."""
    from falsifiers.run_directory import RunRecord
    from falsifiers.stopped_runs import Settings, pretrain, stopped_ranks

    folder, settings = tmp_path / "run", Settings(case.steps, case.epoch)
    command = pretrain(subject, configuration, settings, folder, "--parallel", "ddp")
    ranks = stopped_ranks(command, tmp_path, case.signalled, case.agreement)
    run = RunRecord(subject.run_directory(folder))
    measured(
        exit_codes=", ".join(str(rank.exit_code) for rank in ranks),
        status=run.outcome.get("status", ""),
        steps_taken=run.outcome.get("steps", -1),
        lines=len(run.log),
        ranks=run.identity.get("world_size", 0),
        said=" | ".join(rank.messages[-200:] for rank in ranks),
    )


def falsify_a_run_has_one_process(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration, tmp_path: Path
) -> None:
    """While a process is in a step, another one is refused in its directory; afterwards none is.

    It resumes a run that was stopped, as the other one tries to, so that nothing but its being
    there is in the other's way.
    """
    from falsifiers.run_directory import RunRecord
    from falsifiers.stopped_runs import Settings, ended, in_backward, pretrain, resume, signalled

    run, said, found = tmp_path / "run", tmp_path / "said", tmp_path / "found.json"
    start = pretrain(subject, configuration, Settings(case.steps, case.epoch), run)
    ended(start, said, signalled("SIGTERM", case.stopped_in))
    command = resume(subject, run)
    found.write_text(json.dumps([-1, "the first one was never in a step", 0]))

    def try_as_well() -> None:
        before = _files(run)
        other = ended(command, tmp_path / "said-by-the-other")
        changed = [name for name, content in _files(run).items() if before.get(name) != content]
        found.write_text(json.dumps([other.exit_code, other.messages, len(changed)]))

    first = ended(command, said, lambda: in_backward(0, try_as_well))
    exit_code, message, changed = json.loads(found.read_text())
    record = RunRecord(subject.run_directory(run))
    measured(
        exit_code=exit_code,
        message=message,
        names_the_run=str(run) in message,
        changed_files=changed,
        first_exit_code=first.exit_code,
        lines=len(record.log),
        out_of_order=sum(line.get("step") != step for step, line in enumerate(record.log)),
        exit_code_afterwards=ended(command, said).exit_code,
    )


def _stopped(subject: Subject, case: Case, configuration: Configuration) -> Stopped:
    from falsifiers.stopped_runs import Settings, stopped_run

    settings = Settings(case.steps, case.epoch)
    return stopped_run(subject, configuration, settings, case.signal, case.stopped_in)


def _decided(line: Mapping[str, Any]) -> list[Any]:
    """What the settings decide of a line of the log; a clock decides the rest."""
    return [line.get(name) for name in ("step", "train_loss", "grad_norm", "lr")]


def _seconds_missing(run: RunRecord) -> list[float]:
    """By how many seconds each epoch is shorter than its steps together; below 0 if it is not."""
    return [
        sum(run.step_tokens / line["tokens_per_sec"] for line in run.epoch_lines(index))
        - epoch.metadata["wall_seconds"]
        for index, epoch in enumerate(run.epochs)
    ]


def _files(run: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in run.rglob("*") if path.is_file()}
