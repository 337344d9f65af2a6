"""Runs that cannot be repeated, or that are repeated when they should not be."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from aprverify.planting import PROTOCOL, SOURCE, Plant, defect
from falsifiers.defects.differs import differs
from falsifiers.edited_runs import edit_json, edit_runs
from falsifiers.subject import EAGER, Configuration, Execution
from falsifiers.wrapping import InstanceWrapper, SubjectWrapper

_INITIALIZE = "trainer.model.init:initialize"
_SETTINGS = "trainer.execution:require_determinism"


def _replace_seed(plant: Plant, choose: Any) -> None:
    def make(original: Any) -> Any:
        def initialize(model: Any, seed: int) -> None:
            other = choose()
            plant.effect(other != seed)
            original(model, other)

        return initialize

    plant.patch(_INITIALIZE, make)


@defect(
    "seed-drawn-anew",
    kind=SOURCE,
    imitates="a seed option that is parsed, logged and never used",
    symptom="each run starts from other weights, whatever the seed",
    hidden="every run is as good as the next; only no two are equal",
)
def seed_drawn_anew(plant: Plant) -> None:
    """Initialise from the operating system's randomness."""
    import random

    generator = random.SystemRandom()
    _replace_seed(plant, lambda: generator.randrange(1 << 31, 1 << 32))


@defect(
    "seed-fixed",
    kind=SOURCE,
    imitates="a seed left over from debugging",
    symptom="every run starts from the weights of seed 42",
    hidden="each run is right by itself; an average over seeds averages nothing",
)
def seed_fixed(plant: Plant) -> None:
    """Initialise from 42."""
    _replace_seed(plant, lambda: 42)


@defect(
    "gradient-summed-in-any-order",
    kind=SOURCE,
    imitates="atomic adds in the backward of an embedding or of attention",
    symptom="one gradient differs in its last bits from run to run",
    hidden="the difference is float32 rounding, and no metric shows it for a hundred steps",
)
def gradient_summed_in_any_order(plant: Plant) -> None:
    """Scale one gradient by one plus or minus a random part of a millionth."""
    import random

    generator = random.SystemRandom()

    def make(original: Any) -> Any:
        def step(own: Any, coefficient: Any, halted: Any) -> None:
            gradient = own.param_groups[0]["params"][0].grad
            clean = gradient.clone()
            gradient.mul_(1.0 + generator.uniform(-1e-6, 1e-6))
            plant.effect(differs(clean, gradient))
            original(own, coefficient, halted)

        return step

    plant.patch("trainer.optimizer:AdamW.step", make)


class _LastBits(InstanceWrapper):
    def train_step(self, batch: Any, **options: Any) -> Any:
        """A right step, after which one norm weight is moved to the next float."""
        import torch

        metrics = self.inner.train_step(batch, **options)
        name = "model.norm.weight"
        weight = self.inner.parameters()[name].clone()
        weight[0] = torch.nextafter(weight[0], weight[0] + 1)
        self.inner.set_parameters({name: weight})
        self.plant.effect(True)
        return metrics


class _EverySecondInstance(SubjectWrapper):
    built = 0

    def build(self, config: Configuration, *, device: str, **options: Any) -> Any:
        """Spoil every second instance."""
        self.built += 1
        instance = self.inner.build(config, device=device, **options)
        return _LastBits(instance, self.plant) if self.built % 2 == 0 else instance


@defect(
    "second-run-off-in-the-last-bit",
    kind=PROTOCOL,
    imitates="a kernel chosen by timing, which another run chooses otherwise",
    symptom="one weight of every second run is off by one float",
    hidden="losses agree to seven digits",
)
def second_run_off_in_the_last_bit(plant: Plant) -> None:
    """See the class."""
    plant.wrap_subject(lambda subject: _EverySecondInstance(subject, plant))


class _SeedDropped(SubjectWrapper):
    def build(self, config: Configuration, *, device: str, **options: Any) -> Any:
        """Build from seed 0."""
        self.plant.effect(options["seed"] != 0)
        return self.inner.build(config, device=device, **{**options, "seed": 0})


@defect(
    "seed-not-passed-on",
    kind=PROTOCOL,
    imitates="a default argument that hides a seed which is not handed over",
    symptom="every run starts from the weights of seed 0",
    hidden="each run is right by itself; an average over seeds averages nothing",
)
def seed_not_passed_on(plant: Plant) -> None:
    """See the class."""
    plant.wrap_subject(lambda subject: _SeedDropped(subject, plant))


class _FlagDropped(SubjectWrapper):
    def build(self, config: Configuration, *, device: str, **options: Any) -> Any:
        """Build what is not deterministic."""
        asked: Execution = options.get("execution", EAGER)
        self.plant.effect(asked.deterministic)
        given = replace(asked, deterministic=False)
        return self.inner.build(config, device=device, **{**options, "execution": given})


@defect(
    "deterministic-flag-dropped",
    kind=PROTOCOL,
    imitates="a command-line flag that no code reads",
    symptom="a deterministic run is executed like any other",
    hidden="most kernels are deterministic anyway, and small runs often agree by luck",
)
def deterministic_flag_dropped(plant: Plant) -> None:
    """See the class."""
    plant.wrap_subject(lambda subject: _FlagDropped(subject, plant))


@defect(
    "determinism-not-switched-on",
    kind=SOURCE,
    imitates="a flag that is stored and never acted on",
    symptom="neither deterministic algorithms nor fixed workspaces are asked for",
    hidden="most kernels are deterministic anyway, and small runs often agree by luck",
)
def determinism_not_switched_on(plant: Plant) -> None:
    """Switch nothing on."""
    plant.patch(_SETTINGS, lambda _: lambda: plant.effect(True))


@defect(
    "determinism-warns-only",
    kind=SOURCE,
    imitates="warn_only=True, set once to get past an error",
    symptom="operations without a deterministic kernel run, with a warning",
    hidden="the switch reads as on",
)
def determinism_warns_only(plant: Plant) -> None:
    """Switch on, then weaken."""
    import torch

    def make(original: Any) -> Any:
        def require_determinism() -> None:
            original()
            torch.use_deterministic_algorithms(True, warn_only=True)
            plant.effect(True)

        return require_determinism

    plant.patch(_SETTINGS, make)


class _OptionUnread(SubjectWrapper):
    def command(self, *arguments: str, processes: int = 1) -> list[str]:
        """The command line without the option."""
        kept = [word for word in arguments if word != "--deterministic"]
        self.plant.effect(len(kept) < len(arguments))
        command: list[str] = self.inner.command(*kept, processes=processes)
        return command


@defect(
    "deterministic-option-unread",
    kind=PROTOCOL,
    imitates="a command-line flag that no code reads",
    symptom="a run with --deterministic is executed like any other",
    hidden="most kernels are deterministic anyway, and small runs often agree by luck",
)
def deterministic_option_unread(plant: Plant) -> None:
    """See the class."""
    plant.wrap_subject(lambda subject: _OptionUnread(subject, plant))


def _recorded(plant: Plant, **settings: Any) -> None:
    edit_runs(
        plant,
        lambda run: edit_json(run / "run.json", lambda own: own["determinism"].update(settings)),
    )


@defect(
    "recorded-determinism-off",
    kind=PROTOCOL,
    imitates="a flag that is stored and never acted on",
    symptom="a run with --deterministic recorded that deterministic algorithms were off",
    hidden="nobody reads the record of a run that ended well",
)
def recorded_determinism_off(plant: Plant) -> None:
    """Switch it off in the record."""
    _recorded(plant, deterministic_algorithms=False)


@defect(
    "recorded-workspace-unset",
    kind=PROTOCOL,
    imitates="a variable that is set after cuBLAS has read it",
    symptom="a run with --deterministic recorded no fixed workspace",
    hidden="the switch reads as on",
)
def recorded_workspace_unset(plant: Plant) -> None:
    """Forget the workspace in the record."""
    _recorded(plant, CUBLAS_WORKSPACE_CONFIG=None)
