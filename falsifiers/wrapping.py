"""Wrappers that stand between a falsifier and a subject, for protocol defects to override.

Each passes everything on unchanged; a defect subclasses `InstanceWrapper` or `SubjectWrapper` and
overrides the one method that it spoils. So it works on anybody's trainer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aprverify.planting import Plant
from falsifiers.subject import Configuration, Instance, Subject


class InstanceWrapper:
    """An instance that passes everything on. `inner` is the clean one."""

    def __init__(self, inner: Instance, plant: Plant) -> None:
        self.inner = inner
        self.plant = plant

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


class SubjectWrapper:
    """A subject that passes everything on, wrapping the instances that it builds."""

    def __init__(
        self, inner: Subject, plant: Plant, instance: type[InstanceWrapper] = InstanceWrapper
    ) -> None:
        self.inner = inner
        self.plant = plant
        self._instance = instance

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def build(self, config: Configuration, *, device: str, **options: Any) -> Any:
        """Build, then wrap."""
        return self._instance(self.inner.build(config, device=device, **options), self.plant)

    def build_pretrain(self, *, device: str, dtype: str, seed: int, **options: Any) -> Any:
        """Build, then wrap."""
        built = self.inner.build_pretrain(device=device, dtype=dtype, seed=seed, **options)
        return self._instance(built, self.plant)


def wrap_instances(plant: Plant, instance: type[InstanceWrapper]) -> None:
    """Let every instance that the subject builds be an `instance`."""
    plant.wrap_subject(lambda subject: SubjectWrapper(subject, plant, instance))


def wrap_configuration(plant: Plant, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Let the subject build `change(configuration)` while the falsifier asked for another."""

    class Changed(SubjectWrapper):
        def build(self, config: Configuration, **options: Any) -> Any:
            other = change(dict(config))
            plant.effect(other != dict(config))
            return self.inner.build(other, **options)

    plant.wrap_subject(lambda subject: Changed(subject, plant))
