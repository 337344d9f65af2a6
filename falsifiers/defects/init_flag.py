"""Initial weights that are asked for and not taken, or that leave more behind than weights."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from aprverify.planting import PROTOCOL, SOURCE, Plant, defect
from falsifiers.subject import Configuration
from falsifiers.wrapping import InstanceWrapper, SubjectWrapper

_POPULATE = "trainer.weights.populate:populate"


@defect(
    "init-flag-removed",
    kind=SOURCE,
    imitates="an option that went with the file it was defined in",
    symptom="the pretrain command has no --init",
    hidden="every command without it works as before",
)
def init_flag_removed(plant: Plant) -> None:
    """Define every option but this one."""

    def make(original: Any) -> Any:
        def add_model(add: Any) -> None:
            def without(*names: str, **options: Any) -> None:
                plant.effect("--init" in names)
                if "--init" not in names:
                    add(*names, **options)

            original(without)

        return add_model

    plant.patch("trainer.commands.pretrain:_add_model", make)


class _FlagLostOnTheWay(SubjectWrapper):
    def command(self, *arguments: str, processes: int = 1) -> Any:
        """The command line without --init and its value."""
        words = list(arguments)
        self.plant.effect("--init" in words)
        if "--init" in words:
            at = words.index("--init")
            del words[at : at + 2]
        return self.inner.command(*words, processes=processes)


@defect(
    "init-flag-lost-on-the-way",
    kind=PROTOCOL,
    imitates="a launcher script that passes on the options it knows",
    symptom="--init never reaches the trainer",
    hidden="the run starts and its loss falls",
)
def init_flag_lost_on_the_way(plant: Plant) -> None:
    """See the class."""
    plant.wrap_subject(lambda subject: _FlagLostOnTheWay(subject, plant))


@defect(
    "unreadable-init-means-random",
    kind=SOURCE,
    imitates="a loader that logs a warning and leaves the model as it was initialised",
    symptom="a file that cannot be read is passed over and random weights are trained",
    hidden="from random weights the loss also falls",
)
def unreadable_init_means_random(plant: Plant) -> None:
    """Swallow what the reader raises, and populate only what was read."""

    def forgiving(original: Any) -> Any:
        refuse = import_module("trainer.errors").WeightsError

        def attempt(*arguments: Any) -> Any:
            try:
                return original(*arguments)
            except refuse:
                plant.effect(True)
                return {}

        return attempt

    def populate(original: Any) -> Any:
        def fill(model: Any, tensors: Any) -> None:
            if tensors:
                original(model, tensors)

        return fill

    plant.patch("trainer.build:require_declared", forgiving)
    plant.patch("trainer.weights.load:load_init_tensors", forgiving)
    plant.patch(_POPULATE, populate)


@defect(
    "declared-architecture-ignored",
    kind=SOURCE,
    imitates="a check of shapes alone: theta, eps and positions have none",
    symptom="an architecture that differs from the file's is trained with the file's weights",
    hidden="every tensor fits the model that was asked for",
)
def declared_architecture_ignored(plant: Plant) -> None:
    """Take the comparison out."""

    def make(original: Any) -> Any:
        refuse = import_module("trainer.errors").ArchitectureError

        def require_declared(config: Any, path: Any) -> None:
            try:
                original(config, path)
            except refuse:
                plant.effect(True)

        return require_declared

    plant.patch("trainer.build:require_declared", make)


@defect(
    "bogus-fields-accepted",
    kind=SOURCE,
    imitates="a configuration object that validates nothing",
    symptom="negative sizes, NaN and text are taken as they come",
    hidden="published files hold sane values",
)
def bogus_fields_accepted(plant: Plant) -> None:
    """Take the validation out."""

    def make(original: Any) -> Any:
        refuse = import_module("trainer.errors").ArchitectureError

        def post_init(config: Any) -> None:
            try:
                original(config)
            except refuse:
                plant.effect(True)

        return post_init

    plant.patch("trainer.config:ModelConfig.__post_init__", make)


@defect(
    "family-by-model-type-alone",
    kind=SOURCE,
    imitates="a reader that asks model_type, and nothing else, what a file is",
    symptom="an encoder-decoder, or an encoder's class, passes under a decoder's model_type",
    hidden="published files agree with themselves",
)
def family_by_model_type_alone(plant: Plant) -> None:
    """Take the other fields for granted."""

    def make(original: Any) -> Any:
        refuse = import_module("trainer.errors").ArchitectureError

        def refuse_variants(*arguments: Any) -> None:
            try:
                original(*arguments)
            except refuse:
                plant.effect(True)

        return refuse_variants

    plant.patch("trainer.weights.architecture:_refuse_variants", make)


@defect(
    "init-changes-later-models",
    kind=SOURCE,
    imitates="a loader that sets a module's constant to the file's initializer_range and leaves it",
    symptom="models built after one with initial weights start with another deviation",
    hidden="one process rarely builds two models",
)
def init_changes_later_models(plant: Plant) -> None:
    """Change the deviation of later models by a tenth when weights are loaded."""
    init: Any = import_module("trainer.model.init")
    clean: list[float] = []

    def keep(original: Any) -> Any:
        clean.append(original)
        return original

    def make(original: Any) -> Any:
        def populate(model: Any, tensors: Any) -> None:
            original(model, tensors)
            init.STANDARD_DEVIATION = clean[0] * 1.1
            plant.effect(True)

        return populate

    plant.patch("trainer.model.init:STANDARD_DEVIATION", keep)  # restored on leaving
    plant.patch(_POPULATE, make)


class _SeedMovedByInit(SubjectWrapper):
    moved = 0

    def build(self, config: Configuration, *, device: str, **options: Any) -> Any:
        """Build from the seed after those that were used up."""
        seed = options.pop("seed") + self.moved
        return super().build(config, device=device, seed=seed, **options)

    def build_pretrain(self, *, device: str, dtype: str, seed: int, **options: Any) -> Any:
        """Build; a load uses up a seed."""
        self.plant.effect(self.moved > 0)
        built = super().build_pretrain(
            device=device, dtype=dtype, seed=seed + self.moved, **options
        )
        self.moved += options.get("init_path") is not None
        return built


@defect(
    "seed-moved-by-init",
    kind=PROTOCOL,
    imitates="a load that draws from the generator that seeds the next model",
    symptom="a model built after a load has the weights of another seed",
    hidden="another seed is as good a start",
)
def seed_moved_by_init(plant: Plant) -> None:
    """See the class."""
    plant.wrap_subject(lambda subject: _SeedMovedByInit(subject, plant))


@defect(
    "init-leaves-moments",
    kind=SOURCE,
    imitates="a loader that takes the optimizer's state of a checkpoint along with its weights",
    symptom="the first moments of a fresh run are not zero",
    hidden="they decay within tens of steps",
)
def init_leaves_moments(plant: Plant) -> None:
    """Start each first moment at a millionth of its weight."""

    def make(original: Any) -> Any:
        def build(*arguments: Any, **options: Any) -> Any:
            trainer = original(*arguments, **options)
            for parameter, state in trainer.optimizer.state.items():
                state["exp_avg"].copy_(parameter.detach() * 1e-6)
                plant.effect(True)
            return trainer

        return build

    plant.patch("trainer.build:build_shared_trainer_with_init", make)


class _WarmedUp(SubjectWrapper):
    def build_pretrain(self, *, device: str, dtype: str, seed: int, **options: Any) -> Any:
        """Build, then take one step with rate 0, which moves no weight."""
        import torch

        from falsifiers.subject import Batch

        built = super().build_pretrain(device=device, dtype=dtype, seed=seed, **options)
        built.train_step(Batch(torch.arange(9, device=built.device)[None]), lr=0.0)
        self.plant.effect(True)
        return built


@defect(
    "warm-up-step-before-the-run",
    kind=PROTOCOL,
    imitates="a step on made-up tokens to warm caches or to measure memory",
    symptom="moments and step count of a fresh run hold a batch that is no data",
    hidden="with rate 0 no weight has moved",
)
def warm_up_step_before_the_run(plant: Plant) -> None:
    """See the class."""
    plant.wrap_subject(lambda subject: _WarmedUp(subject, plant))


@defect(
    "second-load-off-in-the-last-bit",
    kind=SOURCE,
    imitates="a dequantizer that rounds by whichever path is warm",
    symptom="every second load is off by one float in one weight",
    hidden="no loss shows it",
)
def second_load_off_in_the_last_bit(plant: Plant) -> None:
    """Move the first weight of the final norm to the next float."""
    import torch

    loads: list[int] = []

    def make(original: Any) -> Any:
        def populate(model: Any, tensors: Any) -> None:
            original(model, tensors)
            loads.append(1)
            if len(loads) % 2 == 0:
                weight = dict(model.named_parameters())["model.norm.weight"].data
                weight[0] = torch.nextafter(weight[0], weight[0] + 1)
                plant.effect(True)

        return populate

    plant.patch(_POPULATE, make)


class _Dated(InstanceWrapper):
    def save_checkpoint(self, path: Any, provenance: Any) -> None:
        """A checkpoint whose provenance names a moment."""
        import hashlib
        import time
        from dataclasses import replace

        now = hashlib.sha256(str(time.time_ns()).encode()).hexdigest()
        self.plant.effect(True)
        self.inner.save_checkpoint(path, replace(provenance, dataset_sha256=now))


@defect(
    "checkpoint-names-the-moment",
    kind=PROTOCOL,
    imitates="a creation time in the metadata of a file",
    symptom="two checkpoints of one state differ",
    hidden="both load, to the same weights",
)
def checkpoint_names_the_moment(plant: Plant) -> None:
    """See the class."""
    plant.wrap_subject(lambda subject: SubjectWrapper(subject, plant, _Dated))


@defect(
    "encoder-refusal-renumbered",
    kind=SOURCE,
    imitates="a claim that was renumbered in one place of two",
    symptom="the refusal of an encoder cites ids that stand in no contract",
    hidden="the refusal is right, and so is the text around the id",
)
def encoder_refusal_renumbered(plant: Plant) -> None:
    """Cite INIT-011 and ARCH-017 where INIT-001 and ARCH-007 belong."""

    def make(original: Any) -> Any:
        refuse = import_module("trainer.errors").ArchitectureError

        def require_decoder_family(family: str, source: str) -> None:
            try:
                original(family, source)
            except refuse as error:
                message = str(error).replace("INIT-00", "INIT-01").replace("ARCH-00", "ARCH-01")
                plant.effect(message != str(error))
                raise refuse(message) from None

        return require_decoder_family

    plant.patch("trainer.config:require_decoder_family", make)


class _CitesAnother(SubjectWrapper):
    def build_pretrain(self, **options: Any) -> Any:
        """Refuse under an id that no contract has."""
        from falsifiers.subject import SubjectRefused

        try:
            return self.inner.build_pretrain(**options)
        except SubjectRefused as error:
            message = str(error).replace("-INIT-00", "-INIT-09").replace("-ARCH-00", "-ARCH-09")
            self.plant.effect(message != str(error))
            raise SubjectRefused(error.kind, message) from None


@defect(
    "refusal-cites-an-unknown-claim",
    kind=PROTOCOL,
    imitates="a contract that was renumbered, and messages that were not",
    symptom="refusals cite ids that stand in no contract",
    hidden="the text around the id is right",
)
def refusal_cites_an_unknown_claim(plant: Plant) -> None:
    """See the class."""
    plant.wrap_subject(lambda subject: _CitesAnother(subject, plant))
