"""GGUF files that are read as far as they go."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from aprverify.planting import PROTOCOL, SOURCE, Plant, defect
from falsifiers.subject import SubjectRefused
from falsifiers.wrapping import SubjectWrapper


@defect(
    "gguf-read-past-its-end",
    kind=SOURCE,
    imitates="gguf's own reader, and every unchecked fread: too few bytes are taken as they are",
    symptom="a vocabulary that was cut off ends with half a token",
    hidden="all other ids are right, and so is the size",
)
def gguf_read_past_its_end(plant: Plant) -> None:
    """Read as the library does."""
    library: Any = import_module("gguf").GGUFReader

    def make(original: Any) -> Any:
        def get(reader: Any, *arguments: Any, **options: Any) -> Any:
            try:
                return original(reader, *arguments, **options)
            except ValueError:
                plant.effect(True)
                return library._get(reader, *arguments, **options)

        return get

    plant.patch("trainer.weights.gguf_file:_BoundedReader._get", make)


@defect(
    "damaged-text-replaced",
    kind=SOURCE,
    imitates="decode(errors='replace') in a reader that wants to be kind",
    symptom="a token with a damaged byte becomes a token with a question mark in it",
    hidden="the file loads, and the token is a rare one",
)
def damaged_text_replaced(plant: Plant) -> None:
    """Give texts with the replacement character where they cannot be decoded."""
    refuse: Any = import_module("trainer.errors").WeightsError

    def make(original: Any) -> Any:
        def field(file: Any, key: str) -> Any:
            try:
                return original(file, key)
            except refuse:
                found = file._reader.get_field(key)
                if found is None:
                    raise
                plant.effect(True)
                parts = [bytes(found.parts[at]).decode(errors="replace") for at in found.data]
                return parts if found.types[0].name == "ARRAY" else parts[0]

        return field

    plant.patch("trainer.weights.gguf_file:GgufFile.field", make)


class _NamesNoFile(SubjectWrapper):
    def read_architecture(self, weights: Path) -> Any:
        """The inner subject's; a refusal without its message."""
        return self._unnamed(self.inner.read_architecture, weights)

    def tokenizer(self, path: Path) -> Any:
        """The inner subject's; a refusal without its message."""
        return self._unnamed(self.inner.tokenizer, path)

    def _unnamed(self, read: Any, path: Path) -> Any:
        try:
            return read(path)
        except SubjectRefused as refusal:
            self.plant.effect(True)
            raise SubjectRefused(refusal.kind, "the model cannot be loaded") from None


@defect(
    "damaged-file-not-named",
    kind=PROTOCOL,
    imitates="gpt4all#86 at its end: an error when a broken file is loaded, whichever it is",
    symptom="a refusal does not say which file is damaged",
    hidden="the right files are refused",
)
def damaged_file_not_named(plant: Plant) -> None:
    """See the class."""
    plant.wrap_subject(lambda subject: _NamesNoFile(subject, plant))
