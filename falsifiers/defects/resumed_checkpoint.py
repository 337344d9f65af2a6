"""Runs that go on from another checkpoint than the furthest whole one, or do not keep it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

from aprverify.planting import PROTOCOL, Plant, defect
from falsifiers.edited_runs import checkpoints, edit_runs
from falsifiers.subject import SubjectRefused
from falsifiers.wrapping import SubjectWrapper


def _chosen_without(subject: Any, run: Path, left_out: Collection[str]) -> Path:
    """What `subject` chooses if `run` has no files of the names `left_out`."""
    with tempfile.TemporaryDirectory() as other:
        copy = Path(other) / "run"
        shutil.copytree(run, copy, ignore=lambda folder, names: left_out)
        chosen: Path = subject.checkpoint_to_resume(copy)
        return run / chosen.relative_to(copy)


def _step_files(run: Path) -> list[Path]:
    return sorted((run / "ckpt").glob("step-*.apr"))


class _Unread(SubjectWrapper):
    def checkpoint_to_resume(self, run: Path) -> Path:
        """The last epoch's file, or that of a later step, by their names; nobody reads it."""
        chosen: Path = self.inner.checkpoint_to_resume(run)
        kind = "step" if chosen.name.startswith("step") else "epoch"
        last = max((run / "ckpt").glob(f"{kind}-*.apr"))
        self.plant.effect(last != chosen)
        return last


@defect(
    "last-checkpoint-resumed-unread",
    kind=PROTOCOL,
    imitates="max(glob('epoch-*.apr')), and a load that finds out too late",
    symptom="a run whose last file is damaged does not go on, although the one before is good",
    hidden="files are whole after every kill; disks and copies damage them",
)
def last_checkpoint_resumed_unread(plant: Plant) -> None:
    """See the class."""
    plant.wrap_subject(lambda subject: _Unread(subject, plant))


class _ByFileTime(SubjectWrapper):
    def checkpoint_to_resume(self, run: Path) -> Path:
        """The good checkpoint that was changed last."""
        chosen: Path = self.inner.checkpoint_to_resume(run)
        names = {path.name for path in (run / "ckpt").iterdir()}
        for path in sorted((run / "ckpt").iterdir(), key=lambda path: -path.stat().st_mtime):
            try:
                _chosen_without(self.inner, run, names - {path.name})
            except SubjectRefused:
                continue
            self.plant.effect(path != chosen)
            return path
        raise AssertionError("one of them was chosen")


@defect(
    "checkpoint-chosen-by-file-time",
    kind=PROTOCOL,
    imitates="a resume from max(files, key=os.path.getmtime)",
    symptom="a run that was copied goes on from an old epoch",
    hidden="where the run was made, times and steps rise together",
)
def checkpoint_chosen_by_file_time(plant: Plant) -> None:
    """See the class."""
    plant.wrap_subject(lambda subject: _ByFileTime(subject, plant))


class _EpochsAlone(SubjectWrapper):
    def checkpoint_to_resume(self, run: Path) -> Path:
        """What the inner subject chooses where there are no files of steps."""
        steps = [path.name for path in _step_files(run)]
        self.plant.effect(bool(steps))
        return _chosen_without(self.inner, run, steps)


@defect(
    "step-checkpoints-passed-over",
    kind=PROTOCOL,
    imitates="a resume that was written before there were checkpoints within an epoch",
    symptom="hours behind the last epoch's end are trained again",
    hidden="the run goes on well, and its log is cut back without a word",
)
def step_checkpoints_passed_over(plant: Plant) -> None:
    """See the class."""
    plant.wrap_subject(lambda subject: _EpochsAlone(subject, plant))


class _GoesOnRegardless(SubjectWrapper):
    def checkpoint_to_resume(self, run: Path) -> Path:
        """The inner subject's choice; the first epoch's file where it refuses."""
        try:
            chosen: Path = self.inner.checkpoint_to_resume(run)
        except SubjectRefused:
            self.plant.effect(True)
            chosen = run / "ckpt" / "epoch-000.apr"
        return chosen


@defect(
    "refused-run-goes-on-from-its-start",
    kind=PROTOCOL,
    imitates="an except around each file, whatever was wrong with it",
    symptom="steps that a newer trainer took are quietly lost",
    hidden="the run goes on, and its losses are plausible for its step",
)
def refused_run_goes_on_from_its_start(plant: Plant) -> None:
    """See the class."""
    plant.wrap_subject(lambda subject: _GoesOnRegardless(subject, plant))


class _NewerFormatPassedOver(SubjectWrapper):
    def checkpoint_to_resume(self, run: Path) -> Path:
        """What the inner subject chooses where there are only files of its own format."""
        newer = [path.name for path in checkpoints(run) if path.read_bytes()[4:5] == b"\3"]
        self.plant.effect(bool(newer))
        return _chosen_without(self.inner, run, newer)


@defect(
    "newer-format-called-damaged",
    kind=PROTOCOL,
    imitates="one exception for whatever is wrong with a file, as in an early trainer",
    symptom="a file that only a later version can read is passed over, and its steps are lost",
    hidden="the notice speaks of damage, and the run goes on from the epoch before",
)
def newer_format_called_damaged(plant: Plant) -> None:
    """See the class."""
    plant.wrap_subject(lambda subject: _NewerFormatPassedOver(subject, plant))


@defect(
    "saved-at-epochs-alone",
    kind=PROTOCOL,
    imitates="an interval that is parsed and passed to nobody",
    symptom="there is no checkpoint within an epoch",
    hidden="nobody looks for one before the machine is taken away",
)
def saved_at_epochs_alone(plant: Plant) -> None:
    """Remove them."""

    def edit(run: Path) -> None:
        for path in _step_files(run):
            path.unlink()

    edit_runs(plant, edit)


@defect(
    "epochs-superseded-by-steps",
    kind=PROTOCOL,
    imitates="save_total_limit=1: every older file goes, whatever it was kept for",
    symptom="the checkpoint of an epoch goes as soon as a later one stands",
    hidden="a resume takes the last one anyway; the best epoch is asked for at the end",
)
def epochs_superseded_by_steps(plant: Plant) -> None:
    """Remove those of epochs where there is one of a step."""

    def edit(run: Path) -> None:
        for path in checkpoints(run) if _step_files(run) else ():
            path.unlink()

    edit_runs(plant, edit)


@defect(
    "superseded-steps-kept",
    kind=PROTOCOL,
    imitates="a clean-up that looks at epochs only",
    symptom="each interval leaves a file, until the disk is full",
    hidden="small models never fill one",
)
def superseded_steps_kept(plant: Plant) -> None:
    """Leave one of before the first epoch's end."""

    def edit(run: Path) -> None:
        shutil.copyfile(checkpoints(run)[0], run / "ckpt" / "step-00000002.apr")

    edit_runs(plant, edit)


@defect(
    "saved-a-step-late",
    kind=PROTOCOL,
    imitates="steps counted from 0 in the loop and from 1 in the file's name",
    symptom="a file's name is one step ahead of what is in it",
    hidden="a resume goes by what is in the file",
)
def saved_a_step_late(plant: Plant) -> None:
    """Name each file of a step by the step behind it."""

    def edit(run: Path) -> None:
        for path in _step_files(run):
            path.rename(path.with_name(f"step-{int(path.stem.removeprefix('step-')) + 1:08d}.apr"))

    edit_runs(plant, edit)
