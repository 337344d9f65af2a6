"""Is the furthest checkpoint of a stopped run kept, and gone on from if it is whole?"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from falsifiers.fixtures import Case, Configuration, Measured, Subject

_NEWEST_S = 1_700_000_000
"""A file time, seconds since 1970; which one does not matter."""

_NEWER_SCHEMA, _NEWER_CONTAINER = 0, -1
"""In the place of steps: the last state as a later trainer writes it, or a later file format."""


def falsify_the_furthest_whole_checkpoint_is_resumed(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration, tmp_path: Path
) -> None:
    """In each folder of good and damaged checkpoints, the good one of most steps is chosen.

    The fewer steps a file has, the younger it is: file times tell who copied a run, and when.
    Where none is good, or the furthest one is of a newer version, there is none to go on from.
    """
    from falsifiers.refused_files import Tried
    from falsifiers.training_state import small

    states = _states(subject, case, small(configuration, case.vocabulary, case.layers), tmp_path)
    wrong, refusable, folders = [], {}, _folders(states)
    for label, (files, expected) in folders.items():
        run = tmp_path / label
        _write(run / "ckpt", files)
        if expected is None:
            refusable[label] = partial(subject.checkpoint_to_resume, run)
            continue
        chosen = subject.checkpoint_to_resume(run).relative_to(run / "ckpt")
        wrong += [] if str(chosen) == expected else [f"{label}: {chosen}, not {expected}"]
    tried = Tried().each(refusable.items())
    measured(
        folders=len(folders),
        wrong=len(wrong),
        none_to_find=tried.count,
        accepted=len(tried.accepted),
        crashed=len(tried.crashed),
        faults="; ".join(filter(None, [*wrong, tried.faults()]))[:800],
    )


def falsify_a_run_keeps_what_it_may_have_to_go_on_from(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration
) -> None:
    """Of a run that diverged, each good epoch's file is there, and the last one saved behind it."""
    from falsifiers.run_directory import RunRecord, inspect
    from falsifiers.tiny_runs import tiny_run

    folder = subject.run_directory(tiny_run(subject, case.run, configuration, case.device).folder)
    taken = len(RunRecord(folder).log)
    epochs = taken // case.epoch - 1  # the last one diverged
    multiples = range(case.every, taken, case.every)
    within = [step for step in multiples if step > epochs * case.epoch]
    due = {f"epoch-{number:03d}.apr": (number + 1) * case.epoch for number in range(epochs)}
    due |= {f"step-{step:08d}.apr": step for step in within[-1:]}
    found = sorted(path.name for path in (folder / "ckpt").glob("*.apr"))
    states = {name: inspect(folder / "ckpt" / name) for name in due}
    measured(
        epochs_due=epochs,
        superseded=len(multiples) - len(within),
        within_due=len(within),
        lost=sum(bool(s.fault) or s.training.get("step") != due[n] for n, s in states.items()),
        left_over=len(set(found) - due.keys()),
        found=", ".join(found),
    )


def _states(
    subject: Subject, case: Case, configuration: Configuration, folder: Path
) -> dict[int, bytes]:
    """The file of one training run after each of its first steps, from 1, and newer ones."""
    from falsifiers.apr_edits import taken_apart
    from falsifiers.inputs import random_batch
    from falsifiers.training_state import PROVENANCE

    instance = subject.build(configuration, device=case.device, dtype=case.dtype, seed=case.seed)
    path, states = folder / "saved.apr", {}
    for step in range(1, case.steps + 1):
        instance.train_step(random_batch(configuration, 1, 4, case.seed + step))
        instance.save_checkpoint(path, PROVENANCE)
        states[step] = path.read_bytes()
    parts = taken_apart(path)
    parts.edit_header = _as_version_3
    states[_NEWER_CONTAINER] = parts.packed()
    parts.edit_header = None
    parts.metadata["training"]["schema_version"] += 1
    return states | {_NEWER_SCHEMA: parts.packed()}


def _as_version_3(header: bytearray) -> None:
    header[4] = 3


def _folders(states: Mapping[int, bytes]) -> dict[str, tuple[dict[str, bytes], str | None]]:
    """Files by name, those of fewer steps first, and the one to go on from; None: there is none."""
    one, two, three, four = (states[step] for step in (1, 2, 3, 4))
    newer_schema, newer_container = states[_NEWER_SCHEMA], states[_NEWER_CONTAINER]
    flipped = bytearray(four)
    flipped[len(four) // 2] ^= 1
    damaged, cut = bytes(flipped), four[: len(four) // 2]
    first, second = "epoch-000.apr", "epoch-001.apr"
    between, behind = "step-00000003.apr", "step-00000004.apr"
    return {
        "two epochs": ({first: two, second: four}, second),
        "a step after the last epoch": ({first: one, second: three, behind: four}, behind),
        "a step before the last epoch": ({first: two, between: three, second: four}, second),
        "two steps": ({first: two, between: three, behind: four}, behind),
        "last epoch damaged": ({first: two, second: damaged}, first),
        "last epoch cut off": ({first: two, second: cut}, first),
        "last epoch empty": ({first: two, second: b""}, first),
        "step damaged": ({first: one, second: three, behind: damaged}, second),
        "epoch and step damaged": ({first: one, between: three, second: damaged}, between),
        "all damaged": ({first: cut, second: damaged}, None),
        "no checkpoint": ({}, None),
        "last epoch of a newer schema": ({first: two, second: newer_schema}, None),
        "last epoch in a newer format": ({first: two, second: newer_container}, None),
    }


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    folder.mkdir(parents=True)
    for number, (name, content) in enumerate(files.items()):
        (folder / name).write_bytes(content)
        os.utime(folder / name, (_NEWEST_S - number, _NEWEST_S - number))
