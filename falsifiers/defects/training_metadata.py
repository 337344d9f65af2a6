"""Training metadata that is read for what it should be, and not for what it is."""

from __future__ import annotations

from typing import Any

from aprverify.planting import SOURCE, Plant, defect


@defect(
    "metadata-taken-as-it-is",
    kind=SOURCE,
    imitates="int(metadata[name]), which takes -1, 2.5 and the text '2' without a word",
    symptom="a run goes on from a step, an epoch or a count of tokens that no run can have",
    hidden="files of one's own trainer have whole numbers there",
)
def metadata_taken_as_it_is(plant: Plant) -> None:
    """Convert instead of checking."""

    def make(original: Any) -> Any:
        def natural(reader: Any, name: str) -> int:
            value = reader.values.get(name)
            if not isinstance(value, (int, float, str)):
                return int(original(reader, name))
            taken = int(value)
            plant.effect(taken < 0 or not isinstance(value, int))
            return taken

        return natural

    plant.patch("trainer.checkpoint.position:_Reader.natural", make)
