"""Devices that are misread, or silently replaced by the CPU."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aprverify.planting import PROTOCOL, SOURCE, Plant, defect
from falsifiers.subject import SubjectRefused
from falsifiers.wrapping import InstanceWrapper, SubjectWrapper, wrap_instances


def _accept(plant: Plant, accepts: Any) -> None:
    """Let the trainer's grammar also take what `accepts` says, as the CPU."""

    def make(original: Any) -> Any:
        def resolve_device(spec: str) -> str:
            if not accepts(spec):
                return str(original(spec))
            plant.effect(True)
            return "cpu"

        return resolve_device

    plant.patch("trainer.device:resolve_device", make)


@defect(
    "device-prefix-match",
    kind=SOURCE,
    imitates="re.match where re.fullmatch belongs",
    symptom="cuda:07 and cpu:0 pass the grammar",
    hidden="people type correct devices nearly always",
)
def device_prefix_match(plant: Plant) -> None:
    """Accept anything that starts like a device."""
    _accept(plant, lambda spec: spec.startswith(("cpu", "cuda")) and spec not in ("cpu", "cuda"))


@defect(
    "device-trailing-newline",
    kind=SOURCE,
    imitates="a pattern that ends in $, which also matches before a newline",
    symptom="a device read from a file with its newline passes",
    hidden="it works, until the string is used as a key",
)
def device_trailing_newline(plant: Plant) -> None:
    """Accept one newline."""
    _accept(plant, lambda spec: spec.endswith("\n"))


@defect(
    "device-empty-means-cpu",
    kind=SOURCE,
    imitates="`device or 'cpu'` on an unset variable",
    symptom="an empty device is the CPU",
    hidden="the job runs, forty times slower",
)
def device_empty_means_cpu(plant: Plant) -> None:
    """Accept nothing."""
    _accept(plant, lambda spec: spec == "")


@defect(
    "device-stripped",
    kind=SOURCE,
    imitates="argument values that are stripped before they are matched",
    symptom="cpu with a blank after it passes the grammar",
    hidden="the blank is seen in no log",
)
def device_stripped(plant: Plant) -> None:
    """Accept blanks around a device."""
    _accept(plant, lambda spec: spec != spec.strip(" "))


@defect(
    "device-case-ignored",
    kind=SOURCE,
    imitates="re.IGNORECASE, or a lower() before the match",
    symptom="Cuda:0 passes the grammar",
    hidden="it works, until the string is compared with another",
)
def device_case_ignored(plant: Plant) -> None:
    """Accept capitals."""
    _accept(plant, lambda spec: spec != spec.lower())


class _AnyDevice(SubjectWrapper):
    def resolve_device(self, spec: str) -> str:
        """The device, or the CPU where it is malformed."""
        try:
            return str(self.inner.resolve_device(spec))
        except SubjectRefused:
            self.plant.effect(True)
            return "cpu"


@defect(
    "malformed-device-means-cpu",
    kind=PROTOCOL,
    imitates="an except clause around device parsing",
    symptom="every malformed device is the CPU",
    hidden="the job runs, forty times slower",
)
def malformed_device_means_cpu(plant: Plant) -> None:
    """See the class."""
    plant.wrap_subject(lambda subject: _AnyDevice(subject, plant))


class _RefusesCpu(SubjectWrapper):
    def resolve_device(self, spec: str) -> str:
        """Refuse what is well-formed."""
        self.plant.effect(True)
        raise SubjectRefused("USAGE", f"device {spec!r} is malformed")


@defect(
    "device-refused",
    kind=PROTOCOL,
    imitates="a grammar that someone tightened too far",
    symptom="well-formed devices are refused",
    hidden="it is loud where it is used, and untested where it is not",
)
def device_refused(plant: Plant) -> None:
    """See the class."""
    plant.wrap_subject(lambda subject: _RefusesCpu(subject, plant))


@defect(
    "auto-is-cuda",
    kind=SOURCE,
    imitates="auto resolved at import time on another machine",
    symptom="auto and cpu resolve to cuda:0",
    hidden="on a GPU machine auto is right",
)
def auto_is_cuda(plant: Plant) -> None:
    """Resolve everything to the first GPU."""

    def make(original: Any) -> Any:
        def resolve_device(spec: str) -> str:
            clean = original(spec)
            plant.effect(clean != "cuda:0")
            return "cuda:0"

        return resolve_device

    plant.patch("trainer.device:resolve_device", make)


@defect(
    "silent-cpu-fallback",
    kind=SOURCE,
    imitates="the seed: asked for CUDA, ran on the CPU",
    symptom="the command takes the CPU when CUDA is absent",
    hidden="the job runs, forty times slower, and its losses are right",
)
def silent_cpu_fallback(plant: Plant) -> None:
    """Resolve to the CPU where a device is refused."""

    def make(original: Any) -> Any:
        def resolve_device(spec: str) -> str:
            try:
                return str(original(spec))
            except Exception:  # whatever is refused runs on the CPU
                plant.effect(True)
                return "cpu"

        return resolve_device

    plant.patch("trainer.device:resolve_device", make)


@defect(
    "device-checked-late",
    kind=SOURCE,
    imitates="a device check behind the imports and the creation of the run directory",
    symptom="the refusal comes after the run directory was made",
    hidden="the exit code is right",
)
def device_checked_late(plant: Plant) -> None:
    """Make the run directory first."""
    _make_first(plant, lambda run_dir: run_dir)


@defect(
    "device-checked-after-mkdir",
    kind=SOURCE,
    imitates="a refusal that removes the run directory and not what was made above it",
    symptom="the refusal leaves the folder above the run directory",
    hidden="the exit code is right and there is no run directory",
)
def device_checked_after_mkdir(plant: Plant) -> None:
    """Make the folder above the run directory first."""
    _make_first(plant, lambda run_dir: run_dir.parent)


def _make_first(plant: Plant, folder: Callable[[Path], Path]) -> None:
    def make(original: Any) -> Any:
        def resolve_device(spec: str) -> str:
            runs = "--run-dir" in sys.argv  # a run, and nobody who only asks for a device
            plant.effect(runs)
            if runs:
                folder(Path(sys.argv[sys.argv.index("--run-dir") + 1])).mkdir(parents=True)
            return str(original(spec))

        return resolve_device

    plant.patch("trainer.device:resolve_device", make)


class _CommandOnCpu(SubjectWrapper):
    def command(self, *arguments: str, processes: int = 1) -> list[str]:
        """The command with its device replaced."""
        spoiled = ["cpu" if a.startswith(("cuda", "gpu")) else a for a in arguments]
        self.plant.effect(spoiled != list(arguments))
        command: list[str] = self.inner.command(*spoiled, processes=processes)
        return command


@defect(
    "command-runs-on-cpu",
    kind=PROTOCOL,
    imitates="a launcher that rewrites the device it was given",
    symptom="the command is started with --device cpu",
    hidden="the job runs, forty times slower, and its losses are right",
)
def command_runs_on_cpu(plant: Plant) -> None:
    """See the class."""
    plant.wrap_subject(lambda subject: _CommandOnCpu(subject, plant))


class _BuildsOnCpu(SubjectWrapper):
    def build(self, config: Any, *, device: str, **options: Any) -> Any:
        """Build on the CPU whatever was asked for."""
        self.plant.effect(device != "cpu")
        return self.inner.build(config, device="cpu", **options)


@defect(
    "built-on-cpu",
    kind=PROTOCOL,
    imitates="the seed: asked for CUDA, ran on the CPU",
    symptom="the model lies on the CPU though CUDA was asked for",
    hidden="its losses are right",
)
def built_on_cpu(plant: Plant) -> None:
    """See the class."""
    plant.wrap_subject(lambda subject: _BuildsOnCpu(subject, plant))


class _ParametersOnCpu(InstanceWrapper):
    def parameters(self) -> Any:
        """Host copies of the parameters."""
        clean = self.inner.parameters()
        self.plant.effect(any(p.device.type != "cpu" for p in clean.values()))
        return {n: p.cpu() for n, p in clean.items()}


@defect(
    "weights-offloaded",
    kind=PROTOCOL,
    imitates="weights kept on the host and copied for every step",
    symptom="parameters lie on the CPU while the instance says CUDA",
    hidden="its losses are right; only the transfer shows",
)
def weights_offloaded(plant: Plant) -> None:
    """See the class."""
    wrap_instances(plant, _ParametersOnCpu)
