"""Architectures that drifted from what the contract freezes, and counts that nobody checks."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from typing import Any

from aprverify.planting import PROTOCOL, SOURCE, Plant, defect
from falsifiers.subject import SubjectRefused
from falsifiers.wrapping import InstanceWrapper, SubjectWrapper, wrap_instances


def _change_llama_370m(plant: Plant, **fields: Any) -> None:
    def make(original: Any) -> Any:
        changed = replace(original, **fields)
        plant.effect(changed != original)
        return changed

    plant.patch("trainer.config:LLAMA_370M", make)


@defect(
    "kv-heads-16",
    kind=SOURCE,
    imitates="the frozen architecture drifted: grouped queries switched off",
    symptom="Llama-370M has 16 key-value heads instead of 4",
    hidden="it trains at least as well",
)
def kv_heads_16(plant: Plant) -> None:
    """Full attention."""
    _change_llama_370m(plant, num_kv_heads=16)


@defect(
    "untied-head",
    kind=SOURCE,
    imitates="weight tying lost (Automodel#2511, lingua#75)",
    symptom="Llama-370M has a head of its own",
    hidden="it trains at least as well",
)
def untied_head(plant: Plant) -> None:
    """Untie."""
    _change_llama_370m(plant, tie_word_embeddings=False)


@defect(
    "theta-500000",
    kind=SOURCE,
    imitates="the frozen architecture drifted: theta of a newer family",
    symptom="Llama-370M rotates with theta 500000 instead of 10000",
    hidden="the parameter count is right, and it trains at least as well",
)
def theta_500000(plant: Plant) -> None:
    """Change theta."""
    _change_llama_370m(plant, rope_theta=500000.0)


@defect(
    "eight-heads-of-128",
    kind=SOURCE,
    imitates="the frozen architecture drifted: wider heads",
    symptom="Llama-370M has 8 heads of 128 and 2 key-value heads",
    hidden="every matrix has the same shape, so the parameter count is right",
)
def eight_heads_of_128(plant: Plant) -> None:
    """Change the heads and keep every shape."""
    _change_llama_370m(plant, num_heads=8, num_kv_heads=2, head_dim=128)


class _ConstantLost(SubjectWrapper):
    def configuration(self, name: str) -> Any:
        """The configuration without its eps, which something will default."""
        clean = self.inner.configuration(name)
        self.plant.effect("rms_norm_eps" in clean)
        return {field: value for field, value in clean.items() if field != "rms_norm_eps"}


@defect(
    "constant-lost",
    kind=PROTOCOL,
    imitates="a configuration field that is left out and defaulted downstream",
    symptom="the trainer's Llama-370M states no eps",
    hidden="whatever the default is, it trains",
)
def constant_lost(plant: Plant) -> None:
    """See the class."""
    plant.wrap_subject(lambda subject: _ConstantLost(subject, plant))


class _ParameterMissing(InstanceWrapper):
    def parameters(self) -> Any:
        """The parameters without the final norm."""
        clean = self.inner.parameters()
        self.plant.effect("model.norm.weight" in clean)
        return {n: p for n, p in clean.items() if n != "model.norm.weight"}


@defect(
    "final-norm-missing",
    kind=PROTOCOL,
    imitates="a parameter kept outside the module that registers it",
    symptom="1,024 of 322 million parameters are not listed, trained or saved",
    hidden="the count is off by three parts in a million",
)
def final_norm_missing(plant: Plant) -> None:
    """See the class."""
    wrap_instances(plant, _ParameterMissing)


@defect(
    "count-checked-by-assert",
    kind=SOURCE,
    imitates="the seed: the parameter band was a debug_assert",
    symptom="an optimised interpreter does not check the count",
    hidden="every test runs unoptimised",
)
def count_checked_by_assert(plant: Plant) -> None:
    """Check with an assert statement, which ``python -O`` drops."""
    let_through: list[Any] = []

    def make(original: Any) -> Any:
        refuse = import_module("trainer.errors").ArchitectureError

        def require_370m(config: Any) -> None:
            problem = ""
            let_through.clear()
            try:
                original(config)
            except refuse as error:
                problem = str(error)
            plant.effect(not __debug__ and bool(problem))
            try:
                assert not problem, problem
            except AssertionError as error:
                raise refuse(str(error)) from None
            let_through[:] = [config] if problem else []

        return require_370m

    plant.patch("trainer.build:require_370m", make)
    _build_all_but(plant, let_through)


class _CountRefusalIgnored(SubjectWrapper):
    def build_pretrain(self, **options: Any) -> Any:
        """Go on where the trainer refuses."""
        try:
            return self.inner.build_pretrain(**options)
        except SubjectRefused:
            self.plant.effect(True)
            return None


@defect(
    "count-not-checked",
    kind=PROTOCOL,
    imitates="the seed's release build, which never checks",
    symptom="a model of any size is trained as Llama-370M",
    hidden="a larger or smaller model trains all the same",
)
def count_not_checked(plant: Plant) -> None:
    """See the class."""
    plant.wrap_subject(lambda subject: _CountRefusalIgnored(subject, plant))


@defect(
    "count-check-removed",
    kind=SOURCE,
    imitates="the seed's release build, which never checks",
    symptom="the builder counts nothing",
    hidden="a larger or smaller model trains all the same",
)
def count_check_removed(plant: Plant) -> None:
    """Take the check out, and stop where the model would be built."""
    let_through: list[Any] = []

    def make(original: Any) -> Any:
        refuse = import_module("trainer.errors").ArchitectureError

        def require_370m(config: Any) -> None:
            let_through.clear()
            try:
                original(config)
                plant.effect(False)
            except refuse:
                plant.effect(True)
                let_through.append(config)

        return require_370m

    plant.patch("trainer.build:require_370m", make)
    _build_all_but(plant, let_through)


@defect(
    "band-without-its-ends",
    kind=SOURCE,
    imitates="< for <= in a bound that both sides of a contract include",
    symptom="a model of exactly 366,000,000 or 374,000,000 parameters is refused",
    hidden="the model that everybody trains lies in between",
)
def band_without_its_ends(plant: Plant) -> None:
    """Refuse what stands at an end."""
    build: Any = import_module("trainer.build")

    def make(original: Any) -> Any:
        def require_370m(config: Any) -> None:
            original(config)
            at_an_end = build.configurations.nominal_parameters(config) in build.NOMINAL_BAND
            plant.effect(at_an_end)
            if at_an_end:
                raise build.ArchitectureError("INV-ARCH-370M-001: outside the band")

        return require_370m

    plant.patch("trainer.build:require_370m", make)


@defect(
    "count-rounded-to-millions",
    kind=SOURCE,
    imitates="a check of the number that is printed, 366.0M, and not of the count",
    symptom="a model with less than half a million parameters too few or too many passes",
    hidden="sizes in use differ by millions",
)
def count_rounded_to_millions(plant: Plant) -> None:
    """Let through what is in the band once it is rounded."""
    build: Any = import_module("trainer.build")

    def make(original: Any) -> Any:
        def require_370m(config: Any) -> None:
            try:
                original(config)
            except build.ArchitectureError:
                rounded = round(build.configurations.nominal_parameters(config), -6)
                low, high = build.NOMINAL_BAND
                plant.effect(low <= rounded <= high)
                if not low <= rounded <= high:
                    raise

        return require_370m

    plant.patch("trainer.build:require_370m", make)


def _build_all_but(plant: Plant, let_through: list[Any]) -> None:
    """Stop where what was let through would be built: that takes gigabytes only to be shown."""

    def build(original: Any) -> Any:
        def trainer(*arguments: Any, **options: Any) -> Any:
            if not let_through:
                return original(*arguments, **options)
            let_through.clear()
            return None

        return trainer

    plant.patch("trainer.build:PretrainTrainer", build)
