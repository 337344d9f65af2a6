"""Is a dataset that is not whole, or a step that it cannot give, refused before the first batch?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from falsifiers.fixtures import Case, Measured, Subject

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_POSSIBLE: dict[str, Any] = {"length": 8, "micro_batch": 1, "accumulation": 1, "seed": 0}
_IMPOSSIBLE: tuple[dict[str, int], ...] = (
    {"length": 0},
    {"length": -1},
    {"micro_batch": 0},
    {"accumulation": 0},
    {"world_size": 0},
    {"rank": 1, "world_size": 1},
    {"rank": -1},
)


def falsify_impossible_batches_are_refused(
    subject: Subject, case: Case, measured: Measured, tmp_path: Path
) -> None:
    """Each damage to a copy of a dataset, and each impossible size, is refused by its name."""
    from falsifiers.refused_files import Tried
    from falsifiers.shard_corpus import draw_ids, prepare

    sources = {"tokens.bin": draw_ids(case.ids, case.seed)}
    dataset = prepare(subject, sources, shard_tokens=case.shard_tokens)
    attempts: dict[str, Callable[[], object]] = {}
    needles = {}
    for damage, copy, shard in _damaged(dataset, tmp_path):
        label = f"{shard} {damage}"
        attempts[label] = lambda copy=copy: _steps(subject, copy, **_POSSIBLE)  # type: ignore[misc]
        needles[label] = shard
    for changed in ({"length": case.ids}, *_IMPOSSIBLE):
        label = str(changed)
        options = _POSSIBLE | changed
        attempts[label] = lambda o=options: _steps(subject, dataset, **o)  # type: ignore[misc]
        needles[label] = str(next(iter(changed.values())))
    tried = Tried().each(attempts.items())
    measured(
        whole=_steps(subject, dataset, **_POSSIBLE | {"length": case.ids - 1}),
        tried=tried.count,
        accepted=len(tried.accepted),
        crashed=len(tried.crashed),
        unnamed=len(tried.unnamed(needles)),
        faults=tried.faults(),
    )


def falsify_shards_are_read_before_a_run(
    subject: Subject, case: Case, measured: Measured, tmp_path: Path
) -> None:
    """One id of a shard changed, against its hash or beyond the vocabulary, is refused by name.

    The largest id that there is, under a hash that fits, is taken.
    """
    from falsifiers.refused_files import Tried
    from falsifiers.shard_corpus import IDS, draw_ids, prepare, seal
    from falsifiers.subject import SubjectRefused

    sources = {"tokens.bin": draw_ids(case.ids, case.seed)}
    dataset = prepare(subject, sources, shard_tokens=case.shard_tokens)
    attempts: dict[str, Callable[[], object]] = {}
    needles, refused = {}, []
    for shard in sorted(path.name for path in dataset.glob("*.bin")):
        folder = tmp_path / Path(shard).stem  # a message that names the folder names no shard
        copies = {
            "changed": _with_id(dataset, folder / "changed", shard, 1, IDS),
            "first": _with_id(dataset, folder / "first", shard, 0, case.vocabulary),
            "last": _with_id(dataset, folder / "last", shard, -1, case.vocabulary),
            "edge": _with_id(dataset, folder / "edge", shard, 1, case.vocabulary - 1),
        }
        for label in ("first", "last", "edge"):
            seal(copies[label])
        try:
            subject.require_whole_dataset(copies.pop("edge"))
        except SubjectRefused as refusal:
            refused.append(f"{shard}: {refusal}")
        for label, copy in copies.items():
            needles[f"{label} of {shard}"] = shard
            attempts[f"{label} of {shard}"] = lambda copy=copy: subject.require_whole_dataset(copy)  # type: ignore[misc]
    tried = Tried().each(attempts.items())
    measured(
        tried=tried.count,
        accepted=len(tried.accepted),
        crashed=len(tried.crashed),
        unnamed=len(tried.unnamed(needles)),
        faults=tried.faults(),
        refused_at_the_edge=len(refused),
    )


def _with_id(dataset: Path, copy: Path, shard: str, place: int, value: int) -> Path:
    """A copy of the dataset in which one id of one shard is another."""
    import shutil

    import numpy as np

    shutil.copytree(dataset, copy)
    ids = np.fromfile(copy / shard, dtype="<u4")
    ids[place] = value
    ids.tofile(copy / shard)
    return copy


def _steps(subject: Subject, dataset: Path, **options: Any) -> int:
    """How many steps an epoch has, at most two."""
    from itertools import islice

    batches = subject.training_batches(dataset, **options)
    count = len(list(islice(batches, 2)))
    batches.close()  # type: ignore[attr-defined]
    return count


def _damaged(dataset: Path, folder: Path) -> Iterator[tuple[str, Path, str]]:
    """Copies of a dataset, each with one shard missing or cut off: what, where, and which shard."""
    import shutil

    for shard in sorted(path.name for path in dataset.glob("*.bin")):
        for damage in ("missing", "cut off"):
            copy = folder / f"{damage} {shard}"
            shutil.copytree(dataset, copy)
            if damage == "missing":
                (copy / shard).unlink()
            else:
                (copy / shard).write_bytes((dataset / shard).read_bytes()[:-4])
            yield damage, copy, shard
