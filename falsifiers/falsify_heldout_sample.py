"""Is a limited held-out set a sample of the whole stream, and an unlimited one all of it?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from falsifiers.fixtures import Case, Measured, Subject

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from falsifiers.subject import Batch


def falsify_limited_heldout_set_is_spread_over_the_stream(
    subject: Subject, case: Case, measured: Measured
) -> None:
    """Under every limit: whole windows, each once, no more than fit, and no long stretch without.

    A stretch is long if it has more windows than there would be for each one that is scored.
    """
    import numpy as np

    from falsifiers.shard_corpus import draw_ids, heldout_ids, prepare

    sources = {"tokens.bin": draw_ids(case.ids, case.seed)}
    dataset = prepare(subject, sources, shard_tokens=case.shard_tokens)
    stream, length = heldout_ids(dataset), int(case.length)
    windows = {row.tobytes(): n for n, row in enumerate(_rows(stream.astype(np.int64), length))}
    targets = len(stream) - 1
    limits = range(1, targets + length)
    too_many, too_few, gathered, strange = [], [], [], 0
    for limit in limits:
        batches = subject.heldout_batches(dataset, length=length, batch=case.batch, tokens=limit)
        chosen = [windows.get(row, -1) for row in _scored(batches)]
        strange += chosen.count(-1) + len(chosen) - len(set(chosen))
        due = min(len(windows), max(1, limit // length))
        too_many += [limit] if len(chosen) > due else []
        too_few += [limit] if len(chosen) < due else []
        ends = [*sorted(chosen), len(windows)]
        stretch = max(b - a for a, b in zip([-1, *ends], ends, strict=False))
        gathered += [limit] if stretch > -(-len(windows) // due) else []
    whole = subject.heldout_batches(dataset, length=length, batch=case.batch)
    everything = [windows.get(row, -1) for row in _scored(whole)]
    measured(
        limits=len(limits),
        strange=strange,
        too_many=len(too_many),
        too_few=len(too_few),
        gathered=len(gathered),
        windows=len(windows),
        left_out=len(windows) - len(set(everything) - {-1}),
        targets_off=abs(sum(batch.targets for batch in whole) - targets),
    )


def _rows(ids: NDArray[np.int64], length: int) -> Iterator[NDArray[np.int64]]:
    """Window i is ids ``[i*L, i*L + L]``; the last one may be shorter."""
    for start in range(0, len(ids) - 1, length):
        yield ids[start : start + length + 1]


def _scored(batches: Sequence[Batch]) -> Iterator[bytes]:
    """The int64 bytes of each row with a target, up to its last one."""
    for batch in batches:
        for number, row in enumerate(batch.tokens):
            mask = None if batch.target_mask is None else batch.target_mask[number]
            count = len(row) - 1 if mask is None else int(mask.sum())
            if count:
                yield row[: count + 1].numpy().tobytes()
