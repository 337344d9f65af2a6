"""Checkpoints that are taken too late, read too early, or waited for.

On a GPU copies are queued behind the step, so the host can be too early; the patches of that
are in force there only.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aprverify.planting import PROTOCOL, SOURCE, Plant, defect
from falsifiers.wrapping import InstanceWrapper, wrap_instances


class _TakenLate(InstanceWrapper):
    @contextmanager
    def saving(self, provenance: Any) -> Iterator[Callable[[Path], None]]:
        """The first save is right; each later one waits for the next, or for the end."""
        waiting: list[Path] = []
        first = True

        with self.inner.saving(provenance) as save:

            def late(path: Path) -> None:
                nonlocal first
                while waiting:
                    save(waiting.pop())
                if first:
                    save(path)
                else:
                    self.plant.effect(True)
                    waiting.append(path)
                first = False

            yield late
            while waiting:
                save(waiting.pop())


@defect(
    "checkpoint-taken-when-there-is-time",
    kind=PROTOCOL,
    imitates="a writer's thread that reads the live weights when its turn comes",
    symptom="a checkpoint holds weights of a later step under the number of its own",
    hidden="the file is whole and finite, and a run that resumes from it goes on well",
)
def checkpoint_taken_when_there_is_time(plant: Plant) -> None:
    """See the class."""
    wrap_instances(plant, _TakenLate)


class _FilledOnce(InstanceWrapper):
    @contextmanager
    def saving(self, provenance: Any) -> Iterator[Callable[[Path], None]]:
        """The first save is right; each later one is that file again."""
        made: list[Path] = []

        with self.inner.saving(provenance) as save:

            def again(path: Path) -> None:
                if made:
                    self.plant.effect(True)
                    shutil.copyfile(made[0], path)
                else:
                    save(path)
                    made.append(path)

            yield again


@defect(
    "checkpoint-memory-filled-once",
    kind=PROTOCOL,
    imitates="memory for copies that is kept, and filled only where it is allocated",
    symptom="every checkpoint after the first holds the state of the first",
    hidden="the first is right, and the others are whole and finite",
)
def checkpoint_memory_filled_once(plant: Plant) -> None:
    """See the class."""
    wrap_instances(plant, _FilledOnce)


@defect(
    "checkpoint-read-while-it-is-copied",
    kind=SOURCE,
    imitates="a non-blocking copy to the host whose event nobody waits for",
    symptom="the file holds what lay in the memory for copies before",
    hidden="with an idle device the copies are done before the writer looks",
)
def checkpoint_read_while_it_is_copied(plant: Plant) -> None:
    """Do not wait for the copies."""

    def make(original: Any) -> Any:
        def wait(snapshot: Any) -> None:
            plant.effect(snapshot.copied is not None and not snapshot.copied.query())

        return wait

    plant.patch("trainer.checkpoint.capture:Snapshot.wait", make)


@defect(
    "checkpoint-memory-not-page-locked",
    kind=SOURCE,
    imitates="non_blocking=True to ordinary memory, which CUDA makes a blocking copy of",
    symptom="each save waits until the device has come to it",
    hidden="the files are right, and a pause a few times an hour is no dent in the throughput",
)
def checkpoint_memory_not_page_locked(plant: Plant) -> None:
    """Leave the memory as it is."""
    plant.patch(
        "trainer.checkpoint.capture:_page_lock", lambda _: lambda memory: plant.effect(True)
    )


class _Waits(InstanceWrapper):
    @contextmanager
    def saving(self, provenance: Any) -> Iterator[Callable[[Path], None]]:
        """Each save comes back when the device has nothing more to do."""
        import torch

        with self.inner.saving(provenance) as save:

            def waiting(path: Path) -> None:
                save(path)
                self.plant.effect(not torch.cuda.current_stream().query())
                torch.cuda.synchronize()

            yield waiting


@defect(
    "saving-waits-for-the-device",
    kind=PROTOCOL,
    imitates="tensor.cpu() of every weight, in the loop",
    symptom="each save waits until the device has come to it",
    hidden="the files are right, and a pause a few times an hour is no dent in the throughput",
)
def saving_waits_for_the_device(plant: Plant) -> None:
    """See the class."""
    wrap_instances(plant, _Waits)
