"""Architectures that drifted from what the contract freezes, and counts that nobody checks."""

from __future__ import annotations

from dataclasses import replace
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
    from importlib import import_module

    def make(original: Any) -> Any:
        refuse = import_module("trainer.errors").ArchitectureError

        def require_370m(config: Any) -> None:
            problem = ""
            try:
                original(config)
            except refuse as error:
                problem = str(error)
            plant.effect(not __debug__ and bool(problem))
            try:
                assert not problem, problem
            except AssertionError as error:
                raise refuse(str(error)) from None

        return require_370m

    plant.patch("trainer.build:require_370m", make)


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
    from importlib import import_module

    def make(original: Any) -> Any:
        refuse = import_module("trainer.errors").ArchitectureError

        def require_370m(config: Any) -> None:
            try:
                original(config)
                plant.effect(False)
            except refuse:
                plant.effect(True)

        return require_370m

    plant.patch("trainer.build:require_370m", make)
    # What comes next would allocate gigabytes only to show that it is reached.
    plant.patch("trainer.build:PretrainTrainer", lambda _: lambda *a, **k: None)
