"""Does a checkpoint survive a kill at any byte, and is damage at any place found?"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from falsifiers.fixtures import Case, Configuration, Measured, Subject

if TYPE_CHECKING:
    from falsifiers.apr_edits import AprParts, Entry
    from falsifiers.subject import Instance


def _instance(subject: Subject, case: Case, configuration: Configuration, seed: int) -> Instance:
    from falsifiers.training_state import small, window

    config = small(configuration, case.vocabulary, case.layers)
    instance = subject.build(config, device=case.device, dtype=case.dtype, seed=seed)
    instance.train_step(window(config, seed, 0, 16), lr=1e-2)
    return instance


def falsify_kill_leaves_a_whole_file(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration, tmp_path: Path
) -> None:
    """Killed at any byte and before any call, a save leaves the old file or the new one, whole."""
    from falsifiers.apr_edits import section_bounds
    from falsifiers.killed_writes import (
        killed_at_byte,
        killed_before_call,
        recorded_calls,
        syncs_in_order,
    )
    from falsifiers.training_state import PROVENANCE, window

    instance = _instance(subject, case, configuration, case.seed)
    folder = tmp_path / "ckpt"
    path = folder / "epoch-000.apr"
    folder.mkdir()
    instance.save_checkpoint(path, PROVENANCE)
    old = path.read_bytes()
    instance.train_step(window(instance.config, case.seed, 1, 16), lr=1e-2)
    instance.save_checkpoint(folder / "new.apr", PROVENANCE)
    new = (folder / "new.apr").read_bytes()
    (folder / "new.apr").unlink()

    def save() -> None:
        instance.save_checkpoint(path, PROVENANCE)

    bounds = section_bounds(new)
    limits = [0, bounds[0], bounds[2], len(new) // 2, len(new) - 1]
    found, killed = [], 0
    for limit in limits:
        killed += killed_at_byte(save, limit)
        found.append((f"at byte {limit}", path.read_bytes() if path.exists() else b""))
    calls = recorded_calls(save)
    path.write_bytes(old)
    for call in range(len(calls)):
        killed += killed_before_call(save, call)
        found.append((f"before call {call}", path.read_bytes() if path.exists() else b""))
        path.write_bytes(old)
    bad = [label for label, content in found if content not in (old, new)]
    save()
    bytes_first, name_after = syncs_in_order(calls, path, len(new))
    measured(
        kills=killed,
        planned=len(limits) + len(calls),
        old_stood=sum(content == old for _, content in found),
        new_stood=sum(content == new for _, content in found),
        damaged=len(bad),
        damaged_when=", ".join(bad)[:400],
        bytes_synced_first=bytes_first,
        name_synced_after=name_after,
        saved_at_last=path.read_bytes() == new,
        left_over=sum(p != path for p in folder.iterdir()),
    )


def falsify_full_disk_is_reported(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration, tmp_path: Path
) -> None:
    """A save that finds no room is refused, leaves the old file, and leaves nothing else."""
    from falsifiers.killed_writes import disk_of
    from falsifiers.refused_files import Tried
    from falsifiers.training_state import PROVENANCE, window

    instance = _instance(subject, case, configuration, case.seed)
    path = tmp_path / "epoch-000.apr"
    instance.save_checkpoint(path, PROVENANCE)
    old = path.read_bytes()
    instance.train_step(window(instance.config, case.seed, 1, 16), lr=1e-2)
    tried = Tried()
    for room in (0, 100, len(old) // 2, len(old) - 1):
        with disk_of(room):
            attempt = (f"{room} bytes", lambda: instance.save_checkpoint(path, PROVENANCE))
            tried.each([attempt])
    kept = path.exists() and path.read_bytes() == old
    left_over = sum(p != path for p in tmp_path.iterdir())
    instance.save_checkpoint(path, PROVENANCE)
    measured(
        tried=tried.count,
        reported=len(tried.refused),
        kinds=tried.kinds(),
        unnamed=len(tried.unnamed(dict.fromkeys(tried.refused, path.name))),
        old_kept=kept,
        left_over=left_over,
        saved_at_last=path.read_bytes() != old,
    )


def falsify_damage_is_found(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration, tmp_path: Path
) -> None:
    """One bit flipped anywhere, or the file cut anywhere, is refused, and changes nothing."""
    import numpy as np

    from falsifiers.apr_edits import section_bounds, with_footer
    from falsifiers.refused_files import Tried
    from falsifiers.training_state import PROVENANCE, differing, state_of

    path = tmp_path / "damaged.apr"
    _instance(subject, case, configuration, case.seed).save_checkpoint(path, PROVENANCE)
    whole = path.read_bytes()
    reader = _instance(subject, case, configuration, case.seed + 1)
    before, tried = state_of(reader), Tried()
    draw = np.random.default_rng(case.seed)

    def attempt(label: str, content: bytes) -> None:
        path.write_bytes(content)
        tried.each([(label, lambda: reader.load_checkpoint(path, PROVENANCE))])

    def flipped(at: int, bit: int) -> bytes:
        return whole[:at] + bytes([whole[at] ^ (1 << bit)]) + whole[at + 1 :]

    bounds = [0, *section_bounds(whole)]
    for start, end in pairwise(bounds):
        for at in draw.integers(start, end, case.flips).tolist():
            attempt(f"bit of byte {at}", flipped(at, int(draw.integers(8))))
    for at in range(bounds[1]):  # the header's own checksum has to find these
        if 40 <= at < 44:
            continue
        # Of the flags, some change nothing that is read: only the checksum sees them.
        for bit in range(8) if at in (6, 7) else [int(draw.integers(8))]:
            attempt(f"bit of byte {at}, footer made to match", with_footer(flipped(at, bit)))
    cuts = {b + d for b in bounds for d in (-1, 0, 1)} | set(draw.integers(len(whole), size=16))
    for length in sorted(int(cut) for cut in cuts if 0 <= cut < len(whole)):
        attempt(f"cut to {length} bytes", whole[:length])
    attempt("one byte more", whole + b"\0")
    attempt("a block more", whole + bytes(64))
    changed = len(differing(before, state_of(reader)))
    path.write_bytes(whole)
    reader.load_checkpoint(path, PROVENANCE)
    measured(
        tried=tried.count,
        accepted=len(tried.accepted),
        crashed=len(tried.crashed),
        faults=tried.faults(),
        kinds=tried.kinds(),
        changed=changed,
        control=bool(differing(before, state_of(reader))),
    )


def falsify_impossible_index_is_refused(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration, tmp_path: Path
) -> None:
    """Headers and indexes that contradict the file are refused, though checksums match."""
    import struct

    from falsifiers.apr_edits import taken_apart
    from falsifiers.refused_files import Tried
    from falsifiers.training_state import PROVENANCE, differing, state_of

    saved, path = tmp_path / "saved.apr", tmp_path / "edited.apr"
    _instance(subject, case, configuration, case.seed).save_checkpoint(saved, PROVENANCE)
    reader = _instance(subject, case, configuration, case.seed + 1)
    before, tried = state_of(reader), Tried()

    def attempt(label: str, parts: AprParts) -> None:
        path.write_bytes(parts.packed())
        tried.each([(label, lambda: reader.load_checkpoint(path, PROVENANCE))])

    def first(**fields: int) -> object:
        def edit(entries: list[Entry]) -> None:
            for field, value in fields.items():
                setattr(entries[0], field, value)

        return edit

    def overlapping(entries: list[Entry]) -> None:
        twin = next(e for e in entries[1:] if e.size == entries[0].size)
        twin.offset = entries[0].offset

    def twice(entries: list[Entry]) -> None:
        entries.insert(1, entries[0])

    index = {
        "ranges that overlap": overlapping,
        "a range past the end": first(offset=1 << 40),
        "a range beyond u64": first(offset=2**64 - 64),
        "an offset between blocks": first(offset=4),
        "a size that is not the shape's": first(size=8),
        "an unknown dtype": first(dtype=77),
        "a name twice": twice,
        "names unsorted": lambda entries: entries.reverse(),
        "a shape beyond any memory": lambda entries: setattr(entries[0], "shape", (2**40, 2**40)),
        "nine dimensions": lambda entries: setattr(entries[0], "shape", (1,) * 9),
    }
    for label, edit in index.items():
        parts = taken_apart(saved)
        parts.edit_index = edit  # type: ignore[assignment]
        attempt(label, parts)
    header = {
        "a metadata size of 4 GiB": ("<I", 20, 2**32 - 1),
        "a metadata size past the end": ("<I", 20, 1 << 24),
        "an index past the end": ("<Q", 24, 1 << 40),
        "an index between blocks": ("<Q", 24, 65),
        "data past the end": ("<Q", 32, 2**64 - 64),
        "four billion tensors": ("<I", 8, 2**32 - 1),
        "column-major": ("<H", 6, 0x800),
        "compressed": ("<H", 6, 0x401),
        "encrypted": ("<H", 6, 0x404),
        "sharded": ("<H", 6, 0x410),
    }
    for label, (form, at, value) in header.items():
        parts = taken_apart(saved)
        parts.edit_header = lambda own, form=form, at=at, value=value: struct.pack_into(
            form, own, at, value
        )
        attempt(label, parts)
    changed = len(differing(before, state_of(reader)))
    path.write_bytes(taken_apart(saved).packed())
    reader.load_checkpoint(path, PROVENANCE)
    measured(
        tried=tried.count,
        accepted=len(tried.accepted),
        crashed=len(tried.crashed),
        faults=tried.faults(),
        kinds=tried.kinds(),
        changed=changed,
        control=bool(differing(before, state_of(reader))),
    )
