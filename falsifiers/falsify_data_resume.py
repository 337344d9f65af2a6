"""Does a resumed run go on with the batch after the last one that it trained on?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from falsifiers.fixtures import Case, Configuration, Measured, Subject

if TYPE_CHECKING:
    from falsifiers.subject import Batch, Instance
    from falsifiers.subject_parts import Provenance

LENGTH = 8
"""Targets of a window."""

Row = tuple[int, ...]


def _steps(
    subject: Subject,
    case: Case,
    dataset: Path,
    first_step: int = 0,
    rank: int | None = None,
    **told: Callable[[int], None],
) -> Iterator[list[Batch]]:
    """The stream of one rank, the last one unless another is named."""
    stream = subject.training_batches(
        dataset,
        length=LENGTH,
        micro_batch=case.micro_batch,
        accumulation=case.accumulation,
        seed=case.seed,
        first_step=first_step,
        rank=case.ranks - 1 if rank is None else rank,
        world_size=case.ranks,
        cycle=True,
        **told,
    )
    return (list(step) for step in stream)


def _rows(steps: list[list[Batch]]) -> list[Row]:
    """The windows of a stream, in its order."""
    return [tuple(row) for step in steps for batch in step for row in batch.tokens.tolist()]


def _corpus(subject: Subject) -> Path:
    """A prepared corpus of one short text whose windows all differ."""
    from falsifiers.forks import run_command
    from falsifiers.made_once import made_once
    from falsifiers.training_state import write_tokenizer

    def make(folder: Path) -> None:
        (folder / "text").mkdir()
        (folder / "text" / "0.txt").write_text(" ".join(map(str, range(100, 188))))
        (folder / "heldout.txt").write_text("something else that is held out")
        write_tokenizer(folder / "tokenizer")
        options = {"heldout": "heldout.txt", "tokenizer": "tokenizer", "out": "data"}
        words = [w for name, at in options.items() for w in (f"--{name}", str(folder / at))]
        command = subject.command("prepare", str(folder / "text"), *words, "--workers", "1")
        if code := run_command(command):
            raise RuntimeError(f"no corpus: the command that prepares it ended with {code}")

    return made_once("numbers", subject.command("prepare"), make) / "data"


def _all_windows(dataset: Path) -> list[Row]:
    """Every window of the corpus by the published layout of shards."""
    from falsifiers.tiny_runs import windows

    (shard,) = sorted(dataset.glob("train-*.bin"))
    tokens, _ = windows(shard, LENGTH, padded=False)
    return [tuple(row) for row in tokens.tolist()]


def _not_once(seen: list[Row], windows: list[Row]) -> int:
    """How many windows are missing, foreign or surplus in what was seen of one epoch."""
    return len(set(seen) ^ set(windows)) + len(seen) - len(set(seen))


def _provenance(case: Case) -> Provenance:
    from falsifiers.subject_parts import Provenance

    return Provenance(dataset_sha256="5a" * 32, accumulation=case.accumulation, seed=case.seed)


def _saved_after(
    subject: Subject, case: Case, configuration: Configuration, steps: list[list[Batch]], path: Path
) -> None:
    instance = subject.build(configuration, device=case.device, dtype=case.dtype, seed=case.seed)
    for step in steps:
        instance.train_step(step)
    instance.save_checkpoint(path, _provenance(case))


def _fresh(subject: Subject, case: Case, configuration: Configuration) -> Instance:
    return subject.build(configuration, device=case.device, dtype=case.dtype, seed=case.seed + 1)


def _position(instance: Instance, path: Path, case: Case) -> int:
    """What a load returns; -1 if the file is refused."""
    from falsifiers.subject import SubjectRefused

    try:
        return instance.load_checkpoint(path, _provenance(case))
    except SubjectRefused:
        return -1


def falsify_first_batch_after_resume_is_the_next_one(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration, tmp_path: Path
) -> None:
    """Resumed after any step, the stream is the rest of the uninterrupted one."""
    corpus = _corpus(subject)
    order = list(islice(_steps(subject, case, corpus), case.stretch))
    path = tmp_path / "saved.apr"
    _saved_after(subject, case, configuration, order[: case.steps], path)
    position = _fresh(subject, case, configuration).load_checkpoint(path, _provenance(case))
    micro_batches = [batch for step in order for batch in step]
    resumed = list(islice(_steps(subject, case, corpus, position // case.accumulation), 1))
    wrong = []
    for first in range(case.stretch):
        rest = list(islice(_steps(subject, case, corpus, first), case.stretch - first))
        wrong += [first] if _rows(rest) != _rows(order[first:]) else []
    ranks = [
        list(islice(_steps(subject, case, corpus, rank=rank), case.stretch))
        for rank in range(case.ranks)
    ]
    dealt = [list(micro) for step in zip(*ranks, strict=True) for micro in zip(*step, strict=True)]
    windows = _all_windows(corpus)
    epoch = _rows(dealt)[: len(windows)]
    measured(
        position=position,
        first_is_next=_rows([[resumed[0][0]]]) == _rows([[micro_batches[position]]]),
        wrong_resumes=len(wrong),
        not_once=_not_once(epoch, windows),
        windows_looked_at=len(epoch),
    )


def falsify_resumed_stream_tells_of_passes_that_begin(
    subject: Subject, case: Case, measured: Measured
) -> None:
    """Resumed at any step, the passes told of are those whose first window is still to come."""
    corpus = _corpus(subject)
    windows, sequences = (
        len(_all_windows(corpus)),
        case.ranks * case.micro_batch * case.accumulation,
    )
    passes = range(case.stretch * sequences // windows + 1)
    due = [(number * windows // sequences, number) for number in passes]
    due = [(step, number) for step, number in due if step < case.stretch]
    wrong = []
    for first in range(case.stretch):
        told = _told(subject, case, corpus, first)
        if told != [(step, number) for step, number in due if step >= first]:
            wrong.append(f"from step {first}: {told}"[:80])
    measured(
        passes_due=len(due),
        within_a_step=sum(number * windows % sequences > 0 for _, number in due),
        wrong_starts=len(wrong),
        faults="; ".join(wrong)[:800],
    )


def _told(subject: Subject, case: Case, corpus: Path, first: int) -> list[tuple[int, int]]:
    """Step and number of each pass that a stream from step `first` on told of."""
    told: list[tuple[int, int]] = []
    step = first
    stream = _steps(
        subject, case, corpus, first, on_pass=lambda number: told.append((step, number))
    )
    for _ in islice(stream, case.stretch - first):
        step += 1
    return told


def falsify_file_holds_the_data_position(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration, tmp_path: Path
) -> None:
    """The metadata holds step × accumulation; a file that says otherwise is refused."""
    from falsifiers.apr_container import AprContainer
    from falsifiers.apr_edits import taken_apart
    from falsifiers.inputs import random_batch
    from falsifiers.refused_files import Tried

    path, edited = tmp_path / "saved.apr", tmp_path / "edited.apr"
    batches = [random_batch(configuration, 1, LENGTH, seed) for seed in range(case.accumulation)]
    _saved_after(subject, case, configuration, [batches] * case.steps, path)
    stored = AprContainer(path).metadata.get("training", {}).get("data_batch_idx", -1)
    reader, tried = _fresh(subject, case, configuration), Tried()
    right = case.steps * case.accumulation
    wrong = {"zero": 0, "the step": case.steps, "one more": right + 1, "one less": right - 1}
    for label, value in wrong.items():
        parts = taken_apart(path)
        parts.metadata["training"]["data_batch_idx"] = value
        edited.write_bytes(parts.packed())
        tried.each([(label, lambda: reader.load_checkpoint(edited, _provenance(case)))])
    measured(
        stored=int(stored),
        returned=reader.load_checkpoint(path, _provenance(case)),
        accepted=len(tried.accepted),
        crashed=len(tried.crashed),
        faults=tried.faults(),
    )


def falsify_incident_is_not_repeated(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration, tmp_path: Path
) -> None:
    """Resumed at step 25,000 with eight micro-batches a step, data goes on at 200,000."""
    from falsifiers.apr_container import AprContainer
    from falsifiers.apr_edits import taken_apart
    from falsifiers.refused_files import Tried

    corpus = _corpus(subject)
    start = list(islice(_steps(subject, case, corpus), 2))
    path = tmp_path / "saved.apr"
    _saved_after(subject, case, configuration, start[:1], path)
    late, restarted = tmp_path / "late.apr", tmp_path / "restarted.apr"
    for target, position in ((late, case.steps * case.accumulation), (restarted, 0)):
        parts = taken_apart(path)
        parts.metadata["training"] |= {"step": case.steps, "data_batch_idx": position}
        target.write_bytes(parts.packed())
    instance = _fresh(subject, case, configuration)
    tried = Tried().each(
        [("position 0", lambda: instance.load_checkpoint(restarted, _provenance(case)))]
    )
    position = _position(instance, late, case)
    windows = _all_windows(corpus)
    sequences = case.accumulation * case.micro_batch
    before = -(-len(windows) // sequences)  # steps that reach back over the start of the epoch
    epoch = list(islice(_steps(subject, case, corpus, case.steps - before), 2 * before + 2))
    resumed = list(
        islice(_steps(subject, case, corpus, max(position, 0) // case.accumulation), before + 2)
    )
    number = case.steps * sequences
    used = number % len(windows)
    seen = _rows(epoch[:before])[before * sequences - used :]
    seen += _rows(resumed)[: len(windows) - used]
    metrics = instance.train_step(resumed[0])
    instance.save_checkpoint(path, _provenance(case))
    measured(
        position=position,
        restarted_accepted=len(tried.accepted) + len(tried.crashed),
        twice_or_never=_not_once(seen, windows),
        goes_on=_rows(resumed) == _rows(epoch[before:]),
        starts_over=_rows(resumed[:1]) == _rows(start[:1]),
        next_step=metrics.step,
        next_position=int(AprContainer(path).metadata["training"]["data_batch_idx"]),
    )


def falsify_metadata_of_another_kind_is_refused(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration, tmp_path: Path
) -> None:
    """Each entry of the training metadata in turn below zero, or of a kind that it cannot have."""
    from falsifiers.apr_edits import taken_apart
    from falsifiers.inputs import random_batch
    from falsifiers.refused_files import Tried
    from falsifiers.training_state import small

    configuration = small(configuration, case.vocabulary, case.layers)
    path, edited = tmp_path / "saved.apr", tmp_path / "edited.apr"
    batches = [random_batch(configuration, 1, LENGTH, seed) for seed in range(case.accumulation)]
    _saved_after(subject, case, configuration, [batches] * case.steps, path)
    reader, tried = _fresh(subject, case, configuration), Tried()
    for label, training in _of_another_kind(taken_apart(path).metadata["training"], "training"):
        parts = taken_apart(path)
        parts.metadata["training"] = training
        edited.write_bytes(parts.packed())
        tried.each([(label, lambda: reader.load_checkpoint(edited, _provenance(case)))])
    measured(
        tried=tried.count,
        accepted=len(tried.accepted),
        crashed=len(tried.crashed),
        faults=tried.faults(),
        returned=reader.load_checkpoint(path, _provenance(case)),
    )


def _of_another_kind(value: Any, where: str) -> Iterator[tuple[str, Any]]:
    """`value` with one thing in it changed, for each thing in it, and where that is."""
    if isinstance(value, dict):
        yield f"{where} is a list", []
        for name, entry in value.items():
            for label, other in _of_another_kind(entry, f"{where}.{name}"):
                yield label, {**value, name: other}
        return
    others: dict[type, list[Any]] = {
        int: [-1 - value, value + 0.5, str(value)] if isinstance(value, int) else [],
        float: ["text", float("nan")],
        str: [7],
        list: ["text", ["text"]],
    }
    for other in others.get(type(value), []):
        yield f"{where} is {other!r}", other
