"""Runs that go on from another checkpoint than the furthest whole one."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from aprverify.planting import PROTOCOL, Plant, defect
from falsifiers.subject import SubjectRefused
from falsifiers.wrapping import SubjectWrapper


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
        for path in sorted((run / "ckpt").iterdir(), key=lambda path: -path.stat().st_mtime):
            with tempfile.TemporaryDirectory() as alone:
                (Path(alone) / "ckpt").mkdir()
                shutil.copyfile(path, Path(alone) / "ckpt" / path.name)
                try:
                    self.inner.checkpoint_to_resume(Path(alone))
                except SubjectRefused:
                    continue
            self.plant.effect(path != chosen)
            return path
        raise AssertionError("one of them was chosen")


@defect(
    "checkpoint-chosen-by-file-time",
    kind=PROTOCOL,
    imitates="max(files, key=os.path.getmtime)",
    symptom="a run that was copied goes on from an old epoch",
    hidden="where the run was made, times and steps rise together",
)
def checkpoint_chosen_by_file_time(plant: Plant) -> None:
    """See the class."""
    plant.wrap_subject(lambda subject: _ByFileTime(subject, plant))


class _EpochsAlone(SubjectWrapper):
    def checkpoint_to_resume(self, run: Path) -> Path:
        """What the inner subject chooses where there are no files of steps."""
        with tempfile.TemporaryDirectory() as other:
            copy = Path(other) / "run"
            shutil.copytree(run, copy, ignore=shutil.ignore_patterns("step-*"))
            self.plant.effect(any((run / "ckpt").glob("step-*")))
            chosen: Path = self.inner.checkpoint_to_resume(copy)
            return run / chosen.relative_to(copy)


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
