"""Files that are not written safely, or read without a look at what they say."""

from __future__ import annotations

import os
import shutil
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aprverify.planting import PROTOCOL, SOURCE, Plant, defect
from falsifiers.defects.differs import differs
from falsifiers.subject import SubjectRefused
from falsifiers.wrapping import InstanceWrapper, SubjectWrapper, wrap_instances

_DURABLE = "trainer.weights.durable:durable_path"
_REFUSE = "trainer.weights.apr_layout:refuse"


# --- writing


@defect(
    "written-in-place",
    kind=SOURCE,
    imitates="open(path, 'wb') on the only checkpoint there is",
    symptom="the new file is written over the old one",
    hidden="it matters only when a write is cut short",
)
def written_in_place(plant: Plant) -> None:
    """Yield the target itself."""

    def make(original: Any) -> Any:
        @contextmanager
        def durable_path(path: Any) -> Iterator[Path]:
            plant.effect(True)
            yield Path(path)
            with Path(path).open("rb") as written:
                os.fsync(written.fileno())

        return durable_path

    plant.patch(_DURABLE, make)


@defect(
    "renamed-before-sync",
    kind=SOURCE,
    imitates="a rename over the old file without an fsync of the new one",
    symptom="after a power cut the new name may hold a file of zeros",
    hidden="only a power cut shows it: a killed process loses nothing",
)
def renamed_before_sync(plant: Plant) -> None:
    """Rename first."""

    def make(original: Any) -> Any:
        @contextmanager
        def durable_path(path: Any) -> Iterator[Path]:
            plant.effect(True)
            partial = Path(f"{path}.partial")
            yield partial
            os.replace(partial, path)
            for folder_or_file in (Path(path), Path(path).parent):
                descriptor = os.open(folder_or_file, os.O_RDONLY)
                os.fsync(descriptor)
                os.close(descriptor)

        return durable_path

    plant.patch(_DURABLE, make)


@defect(
    "folder-not-synced",
    kind=SOURCE,
    imitates="an fsync of the file and not of the folder that names it",
    symptom="after a power cut the old name may be back, or none",
    hidden="only a power cut shows it: a killed process loses nothing",
)
def folder_not_synced(plant: Plant) -> None:
    """Sync no folder."""
    for module in ("trainer.weights.durable", "trainer.checkpoint.writer"):
        plant.patch(f"{module}:sync_folder", lambda _: lambda folder: plant.effect(True))


@defect(
    "write-error-printed",
    kind=SOURCE,
    imitates="the seed: a failed checkpoint write is printed and forgotten",
    symptom="a save that failed returns like one that did not",
    hidden="the run goes on, and its last good checkpoint grows old",
)
def write_error_printed(plant: Plant) -> None:
    """Catch the operating system's error."""

    def make(original: Any) -> Any:
        def write_files(*arguments: Any) -> None:
            try:
                original(*arguments)
                plant.effect(False)
            except OSError:
                plant.effect(True)

        return write_files

    plant.patch("trainer.checkpoint.writer:_write_files", make)


class _CopiedOver(InstanceWrapper):
    def save_checkpoint(self, path: Path, provenance: Any) -> None:
        """Save beside the target, then copy over it."""
        beside = path.with_suffix(".tmp")
        self.inner.save_checkpoint(beside, provenance)
        self.plant.effect(True)
        shutil.copyfile(beside, path)
        beside.unlink()


@defect(
    "copied-over-the-old-file",
    kind=PROTOCOL,
    imitates="a write to scratch space and a copy, where a rename would have been atomic",
    symptom="the old file is overwritten byte by byte by a copy",
    hidden="the copy takes a tenth of the time of the write, and so dies a tenth as often",
)
def copied_over_the_old_file(plant: Plant) -> None:
    """See the class."""
    wrap_instances(plant, _CopiedOver)


class _RemovedFirst(InstanceWrapper):
    def save_checkpoint(self, path: Path, provenance: Any) -> None:
        """Make room, then save."""
        self.plant.effect(path.exists())
        path.unlink(missing_ok=True)
        self.inner.save_checkpoint(path, provenance)


@defect(
    "old-file-removed-first",
    kind=PROTOCOL,
    imitates="an unlink before a save, because a rename would not overwrite on Windows",
    symptom="between two checkpoints there is none",
    hidden="there is one again a second later",
)
def old_file_removed_first(plant: Plant) -> None:
    """See the class."""
    wrap_instances(plant, _RemovedFirst)


class _FailureForgotten(InstanceWrapper):
    def save_checkpoint(self, path: Path, provenance: Any) -> None:
        """Save, or go on."""
        try:
            self.inner.save_checkpoint(path, provenance)
        except SubjectRefused:
            self.plant.effect(True)


@defect(
    "failed-save-forgotten",
    kind=PROTOCOL,
    imitates="the seed: a failed checkpoint write is printed and forgotten",
    symptom="a save that failed returns like one that did not",
    hidden="the run goes on, and its last good checkpoint grows old",
)
def failed_save_forgotten(plant: Plant) -> None:
    """See the class."""
    wrap_instances(plant, _FailureForgotten)


# --- reading


@defect(
    "file-checksum-not-compared",
    kind=SOURCE,
    imitates="a checksum that is written for tools that nobody runs",
    symptom="a bit that flipped on the disk is loaded as a weight",
    hidden="one wrong weight among millions moves no loss",
)
def file_checksum_not_compared(plant: Plant) -> None:
    """Believe the footer."""

    def make(original: Any) -> Any:
        def verified(view: Any, path: Any) -> int:
            try:
                found: int = original(view, path)
                plant.effect(False)
            except Exception:  # whatever was damaged is now whole
                plant.effect(True)
                (found,) = struct.unpack("<I", view[-4:])
            return found

        return verified

    plant.patch("trainer.weights.apr_file:_verified_checksum", make)


@defect(
    "header-checksum-not-compared",
    kind=SOURCE,
    imitates="one of two checksums that is verified, since the other covers it too",
    symptom="a header that does not have its checksum is believed",
    hidden="the footer covers the header as well, unless a tool has rewritten it",
)
def header_checksum_not_compared(plant: Plant) -> None:
    """Make the header's checksum match before it is looked at."""

    def make(original: Any) -> Any:
        def read_header(start: bytes, length: int, path: Any) -> Any:
            if len(start) < 64:
                return original(start, length, path)
            checksum = zlib.crc32(start[44:64], zlib.crc32(start[:40]))
            fixed = start[:40] + struct.pack("<I", checksum) + start[44:]
            plant.effect(fixed != start)
            return original(fixed, length, path)

        return read_header

    plant.patch("trainer.weights.apr_layout:read_header", make)


def _pass_over(plant: Plant, found: Callable[[str, str], bool]) -> None:
    """Let the reader go on where it would refuse, if ``found(field, needed)``."""

    def make(original: Any) -> Any:
        def refuse(path: Any, field: str, value: object, needed: object) -> None:
            if found(field, str(needed)):
                plant.effect(True)
                return
            original(path, field, value, needed)

        return refuse

    plant.patch(_REFUSE, make)


@defect(
    "overlapping-ranges-accepted",
    kind=SOURCE,
    imitates="a reader that checks each range alone",
    symptom="two tensors share their bytes",
    hidden="each of them is inside the file and has the right size",
)
def overlapping_ranges_accepted(plant: Plant) -> None:
    """Pass over ranges that overlap."""
    _pass_over(plant, lambda field, needed: field.startswith("offset of") and " ends at " in needed)


@defect(
    "unsorted-names-accepted",
    kind=SOURCE,
    imitates="a reader that fills a dictionary and lets the last one win",
    symptom="a name that is given twice, or out of order, is taken",
    hidden="no writer of this trainer makes such a file",
)
def unsorted_names_accepted(plant: Plant) -> None:
    """Pass over the order of names."""
    _pass_over(plant, lambda field, needed: field == "tensor index")


# --- in and out of other formats


@defect(
    "safetensors-header-not-read",
    kind=SOURCE,
    imitates="a format whose checks are left to whatever library reads it next",
    symptom="a spoiled header is refused by a library that names neither tensor nor numbers",
    hidden="whole files are read as before",
)
def safetensors_header_not_read(plant: Plant) -> None:
    """Check nothing before the library does."""

    def make(original: Any) -> Any:
        def read_header(path: Any) -> dict[str, Any]:
            try:
                original(path)
                plant.effect(False)
            except Exception:  # whatever it found is left to the library
                plant.effect(True)
            return {}

        return read_header

    plant.patch("trainer.weights.safetensors_header:read_header", make)


@defect(
    "training-state-taken-for-weights",
    kind=SOURCE,
    imitates="a loader that takes every tensor of the file for a weight",
    symptom="moments are offered to the model as weights",
    hidden="files for inference alone load as before",
)
def training_state_taken_for_weights(plant: Plant) -> None:
    """Name every tensor."""

    def make(original: Any) -> Any:
        def model_names(file: Any) -> list[str]:
            names = list(file.entries)
            plant.effect(names != original(file))
            return names

        return model_names

    plant.patch("trainer.weights.apr_file:AprFile.model_names", make)


@defect(
    "export-rounds-norms",
    kind=SOURCE,
    imitates="a dtype chosen for matrices and applied to every tensor on its way through",
    symptom="norms in the exported file have the bits of bfloat16",
    hidden="a norm near one loses less than half a percent",
)
def export_rounds_norms(plant: Plant) -> None:
    """Round norms before they are written."""
    import torch

    def make(original: Any) -> Any:
        def save_file(tensors: Any, path: Any, metadata: Any) -> None:
            rounded = {
                n: t.to(torch.bfloat16).float() if n.endswith("norm.weight") else t
                for n, t in tensors.items()
            }
            plant.effect(any(differs(t, rounded[n]) for n, t in tensors.items()))
            original(rounded, path, metadata=metadata)

        return save_file

    plant.patch("trainer.weights.export_safetensors:save_file", make)


def _exported(plant: Plant, change: Callable[[list[str]], list[str]]) -> None:
    """Let the export command get ``change(arguments)``."""

    class Changed(SubjectWrapper):
        def command(self, *arguments: str, **options: Any) -> list[str]:
            """The command line, changed if it exports."""
            given = list(arguments)
            asked = change(given) if given[0] == "export" else given
            self.plant.effect(asked != given)
            command: list[str] = self.inner.command(*asked, **options)
            return command

    plant.wrap_subject(lambda subject: Changed(subject, plant))


@defect(
    "exported-in-bfloat16",
    kind=PROTOCOL,
    imitates="a default dtype of an export that loses two bytes of each value",
    symptom="the exported weights are rounded to eight bits",
    hidden="the model answers as before, to three digits",
)
def exported_in_bfloat16(plant: Plant) -> None:
    """Ask for bfloat16."""
    _exported(plant, lambda words: [*words, "--dtype", "bfloat16"])


@defect(
    "tokenizer-request-unread",
    kind=PROTOCOL,
    imitates="an option that is parsed and never acted on",
    symptom="a file that was to hold its tokenizer holds none",
    hidden="whoever has the tokenizer beside the file misses nothing",
)
def tokenizer_request_unread(plant: Plant) -> None:
    """Leave the option out."""
    _exported(plant, lambda words: words[:3])


@defect(
    "merges-embedded-in-reverse",
    kind=SOURCE,
    imitates="merges collected from a dictionary in the order of its own",
    symptom="the embedded tokenizer applies merges in another order",
    hidden="the vocabulary is right, and text decodes to itself",
)
def merges_embedded_in_reverse(plant: Plant) -> None:
    """Turn the merges round."""

    def make(original: Any) -> Any:
        def metadata_of(*arguments: Any) -> dict[str, Any]:
            own: dict[str, Any] = original(*arguments)
            merges = own["tokenizer.merges"]
            plant.effect(merges[::-1] != merges)
            return {**own, "tokenizer.merges": merges[::-1]}

        return metadata_of

    plant.patch("trainer.weights.apr_tokenizer:metadata_of", make)
