"""Is a checkpoint written while the run goes on of its own step, and in nobody's way?"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from falsifiers.fixtures import Case, Configuration, Measured, Subject

if TYPE_CHECKING:
    from torch import Tensor

_PATIENCE_S = 5.0


def falsify_checkpoint_behind_the_run_is_of_its_step(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration, tmp_path: Path
) -> None:
    """Weights change before and after a save, on a GPU behind seconds of other work of its own.

    The file holds those in between, and the host was back before the device came to them. It is
    the second save of two, as all but one of a run are: the memory for copies is there already.
    """
    from falsifiers.device_work import DeviceWork
    from falsifiers.subject import SubjectRefused
    from falsifiers.training_state import PROVENANCE, small, state_of, window

    configuration = small(configuration, case.vocabulary, case.layers)
    instance = subject.build(configuration, device=case.device, dtype=case.dtype, seed=case.seed)
    instance.train_step(window(configuration, case.seed, 0, 16))
    first = {name: p.clone() for name, p in instance.parameters().items()}
    second, third = ({name: p + by for name, p in first.items()} for by in (1.0, 2.0))
    moments = {n: t for n, t in state_of(instance).items() if n not in first}
    work, refusal, waited = DeviceWork(case.device), "", False
    try:
        with instance.saving(PROVENANCE) as save:
            save(tmp_path / "first.apr")
            _until_there(tmp_path / "first.apr")
            work.begin()
            instance.set_parameters(second)
            save(tmp_path / "second.apr")
            waited = work.is_over()
            instance.set_parameters(third)
            work.wait()  # a subject that forgets about its copies may take their memory away
    except SubjectRefused as refused:
        refusal = str(refused)
    measured(
        tensors=len(moments),
        differing_in_first=_differing(tmp_path / "first.apr", first | moments),
        differing_in_second=_differing(tmp_path / "second.apr", second | moments),
        refusal=refusal,
        waited=waited,
    )


def _until_there(path: Path) -> None:
    """Wait until a file is whole: it gets its name then. One that never is shows by its absence."""
    deadline = time.monotonic() + _PATIENCE_S
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.001)


def _differing(path: Path, expected: dict[str, Tensor]) -> int:
    """Weights and moments that the file lacks or holds otherwise; all if it cannot be read."""
    import torch

    from falsifiers.apr_container import AprContainer, AprDamaged
    from falsifiers.training_state import differing

    tensors = {name: t for name, t in expected.items() if not name.endswith(".step")}
    try:
        file = AprContainer(path)
    except (OSError, AprDamaged):
        return len(tensors)
    held = {name: torch.from_numpy(file.tensor(name).copy()) for name in file.names}
    return len(differing(held, {name: t.cpu() for name, t in tensors.items()}))
