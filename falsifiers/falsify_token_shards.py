"""Are shards what was written, windows what was asked for, and is every token used once?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from falsifiers.fixtures import Case, Measured, Subject

if TYPE_CHECKING:
    from pathlib import Path

    from falsifiers.shard_corpus import Ids

SOURCES = ("tokens-9.bin", "tokens-10.bin", "tokens-100.bin", "Tokens-2.bin", "tokens-0.bin")
"""Neither written in lexical order nor numbered in it: 10 and 100 come before 9."""


def falsify_shards_hold_the_sources_in_order(
    subject: Subject, case: Case, measured: Measured
) -> None:
    """The shards, read in lexical order as little-endian u32, are the sources in lexical order."""
    import numpy as np

    from falsifiers.shard_corpus import shards

    sources = _sources(case)
    dataset = _dataset(subject, case)
    expected = np.concatenate([sources[name] for name in sorted(sources, key=str.encode)])
    found = shards(dataset)
    stream = np.concatenate(found)
    common = min(len(stream), len(expected))
    measured(
        shard_files=len(found),
        missing_ids=abs(len(expected) - len(stream)),
        wrong_ids=int((stream[:common] != expected[:common]).sum()),
        longest_shard=max(map(len, found)),
    )


def falsify_batches_are_windows(subject: Subject, case: Case, measured: Measured) -> None:
    """Each row is a window of length + 1 ids that begins at a multiple of length."""
    import numpy as np

    from falsifiers.shard_corpus import flat, order, shards, windows_of

    dataset = _dataset(subject, case)
    stream = np.concatenate(shards(dataset))
    known = windows_of(stream, case.length)
    batches = next(iter(subject.training_batches(dataset, **_options(case))))
    numbers = flat(order(subject, dataset, known, case.windows, **_options(case)))
    measured(
        distinct_windows=len(known),
        rows=len(numbers),
        not_windows=sum(number < 0 for number in numbers),
        row_lengths=sum(batch.tokens.shape[1] != case.length + 1 for batch in batches),
        batch_sizes=sum(batch.tokens.shape[0] != case.micro_batch for batch in batches),
        micro_batches=len(batches),
        masked=sum(batch.targets != batch.tokens[:, 1:].numel() for batch in batches),
    )


def falsify_every_token_is_used_once(subject: Subject, case: Case, measured: Measured) -> None:
    """Over all ranks an epoch holds every window once, and the next epoch does so again."""
    from collections import Counter

    import numpy as np

    from falsifiers.shard_corpus import flat, order, shards, windows_of

    dataset = _dataset(subject, case)
    known = windows_of(np.concatenate(shards(dataset)), case.length)
    steps = case.windows // (case.micro_batch * case.accumulation * case.world_size)

    def seen(count: int, cycle: bool) -> Counter[int]:
        shared = _options(case) | {"world_size": case.world_size, "cycle": cycle}
        options = [shared | {"rank": rank} for rank in range(case.world_size)]
        return Counter(
            number for o in options for number in flat(order(subject, dataset, known, count, **o))
        )

    # One step more than there is, so that an epoch that goes on is seen.
    epoch, both = seen(steps + 1, False), seen(2 * steps, True)
    measured(
        windows_missed=len(known) - len(epoch.keys() & set(known.values())),
        windows_repeated=sum(count - 1 for count in epoch.values()),
        not_twice_in_two_epochs=sum(both[number] != 2 for number in known.values()),
        never_targets=sum(map(len, shards(dataset))) - len(epoch) * case.length,
    )


def falsify_order_is_drawn_anew(subject: Subject, case: Case, measured: Measured) -> None:
    """Another seed and another epoch have another order, the same seed the same, ranks agree."""
    import numpy as np

    from falsifiers.shard_corpus import flat, order, shards, windows_of

    dataset = _dataset(subject, case)
    known = windows_of(np.concatenate(shards(dataset)), case.length)
    steps = case.windows // (case.micro_batch * case.accumulation)

    def drawn(**changed: Any) -> list[list[int]]:
        return order(
            subject, dataset, known, 2 * steps, **(_options(case) | {"cycle": True} | changed)
        )

    one = drawn()
    first, second, other = flat(one[:steps]), flat(one[steps:]), flat(drawn(seed=case.seed + 1))
    halves = [drawn(accumulation=1, rank=r, world_size=2) for r in range(2)]
    dealt = [a + b for a, b in zip(*halves, strict=True)]
    measured(
        same_seed_differs=int(drawn() != one),
        places_kept_by_epoch=_kept(first, second),
        places_kept_by_seed=_kept(first, other[: len(first)]),
        places_kept_from_stream=_kept(first, sorted(first)),
        steps_dealt_otherwise=sum(a != b for a, b in zip(dealt, one, strict=True)),
        order_kept=abs(sum(map(_correlation, (first, second, *_epochs(other, len(first))))) / 4),
    )


def _epochs(numbers: list[int], size: int) -> list[list[int]]:
    return [numbers[:size], numbers[size:]]


def _correlation(numbers: list[int]) -> float:
    """Of the places with what stands there: 1 for the order of the stream, 0 on average for none.

    Ranks by Spearman 1904; the numbers are a permutation, and so their own ranks.
    """
    size = len(numbers)
    apart = sum((place - number) ** 2 for place, number in enumerate(numbers))
    return 1 - 6 * apart / (size * (size**2 - 1))


def _kept(one: list[int], other: list[int]) -> float:
    return sum(a == b for a, b in zip(one, other, strict=True)) / len(one)


def _sources(case: Case) -> dict[str, Ids]:
    from falsifiers.shard_corpus import draw_ids

    total = case.windows * case.length + 1 + case.rest
    share = total // len(SOURCES)
    sizes = [share + 7 * number for number in range(-2, 2)]
    sizes.append(total - sum(sizes))
    return {
        name: draw_ids(size, 10 * case.seed + number)
        for number, (name, size) in enumerate(zip(SOURCES, sizes, strict=True))
    }


def _dataset(subject: Subject, case: Case) -> Path:
    from falsifiers.shard_corpus import prepare

    return prepare(subject, _sources(case), shard_tokens=case.shard_tokens)


def _options(case: Case) -> dict[str, Any]:
    return {
        "length": case.length,
        "micro_batch": case.micro_batch,
        "accumulation": case.accumulation,
        "seed": case.seed,
    }


def falsify_unfinished_dataset_is_of_one_plan(
    subject: Subject, case: Case, measured: Measured, tmp_path: Path
) -> None:
    """Begun on a disk that fills up, a preparation goes on with its own sources and no others."""
    from falsifiers.killed_writes import disk_of
    from falsifiers.shard_corpus import write_sources
    from falsifiers.tiny_runs import byte_tokenizer, run_process

    sources, out = _sources(case), tmp_path / "dataset"
    changed = dict(sources)
    first = min(sources, key=str.encode)
    changed[first] = (sources[first] + 1).astype("<u4")

    command = subject.command(
        "prepare", *(str(tmp_path / name) for name in sources),
        "--heldout", str(tmp_path / "heldout" / "heldout.bin"),
        "--tokenizer", str(byte_tokenizer()), "--out", str(out),
        "--workers", "1", "--shard-tokens", str(case.shard_tokens),
    )  # fmt: skip

    def put(content: dict[str, Ids]) -> None:
        write_sources([(name, ids.tobytes()) for name, ids in content.items()], tmp_path)

    put(sources)
    with disk_of(case.room):
        begun = run_process(command, "cpu").returncode
    written = len(list(out.glob("train-*.bin")))
    put(changed)
    others = run_process(command, "cpu").returncode
    mixed = 0 if others else _wrong(out, changed)
    put(sources)
    finished = run_process(command, "cpu").returncode if others else 0
    measured(
        begun_status=begun,
        shards_begun=written,
        ids_of_other_sources=mixed,
        finished_status=finished,
        wrong_ids=_wrong(out, sources) if others else 0,
    )


def _wrong(dataset: Path, sources: dict[str, Ids]) -> int:
    """Places at which the shards are not the sources in lexical order, or too few or too many."""
    import numpy as np

    from falsifiers.shard_corpus import shards

    expected = np.concatenate([sources[name] for name in sorted(sources, key=str.encode)])
    stream = np.concatenate(shards(dataset))
    common = min(len(stream), len(expected))
    return abs(len(stream) - len(expected)) + int((stream[:common] != expected[:common]).sum())
