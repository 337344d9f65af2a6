"""Initial weights that are dropped, loaded in part, or accepted where they must be refused."""

from __future__ import annotations

from typing import Any

from aprverify.planting import PROTOCOL, SOURCE, Plant, defect
from falsifiers.defects.differs import differs
from falsifiers.subject import Configuration, SubjectRefused
from falsifiers.wrapping import SubjectWrapper

_POPULATE = "trainer.weights.populate:populate"


@defect(
    "init-dropped",
    kind=SOURCE,
    imitates="the seed: --init given, random weights trained",
    symptom="the weight file is read and never reaches the model",
    hidden="from random weights the loss also falls",
)
def init_dropped(plant: Plant) -> None:
    """Populate nothing."""

    def make(original: Any) -> Any:
        def populate(model: Any, tensors: Any) -> None:
            plant.effect(bool(tensors))

        return populate

    plant.patch(_POPULATE, make)


@defect(
    "init-not-uploaded",
    kind=PROTOCOL,
    imitates="the seed: weights populated on the CPU model, another one trained on the GPU",
    symptom="the instance that trains is not the one that was populated",
    hidden="from random weights the loss also falls",
)
def init_not_uploaded(plant: Plant) -> None:
    """Build with the file's architecture and random weights."""

    class Fresh(SubjectWrapper):
        def build_pretrain(self, *, device: str, dtype: str, seed: int, **options: Any) -> Any:
            populated = self.inner.build_pretrain(device=device, dtype=dtype, seed=seed, **options)
            fresh = self.inner.build(populated.config, device=device, dtype=dtype, seed=seed)
            names = populated.parameters()
            plant.effect(any(differs(names[n], p) for n, p in fresh.parameters().items()))
            return fresh

    plant.wrap_subject(lambda subject: Fresh(subject, plant))


def _keep_initial(plant: Plant, left_out: str) -> None:
    """Populate all but the tensors whose name holds `left_out`, which keep their initial values."""

    def make(original: Any) -> Any:
        def populate(model: Any, tensors: Any) -> None:
            own = dict(model.named_parameters())
            before = {n: p.detach().clone() for n, p in own.items() if left_out in n}
            original(model, tensors)
            for name, value in before.items():
                plant.effect(differs(own[name], value))
                own[name].data.copy_(value)

        return populate

    plant.patch(_POPULATE, make)


@defect(
    "populate-gap-biases",
    kind=SOURCE,
    imitates="the seed's populate-coverage gap",
    symptom="tensors whose name holds `bias` keep their initial values",
    hidden="the loss starts a little higher and comes down",
)
def populate_gap_biases(plant: Plant) -> None:
    """Skip the biases."""
    _keep_initial(plant, "bias")


@defect(
    "populate-gap-last-layer",
    kind=SOURCE,
    imitates="the seed's populate-coverage gap",
    symptom="the last layer keeps its random weights",
    hidden="the residual stream carries the other layers past it",
)
def populate_gap_last_layer(plant: Plant) -> None:
    """Skip the layer numbered 2, the last one of the small models."""
    _keep_initial(plant, "layers.2.")


@defect(
    "populate-not-strict",
    kind=SOURCE,
    imitates="torch's load_state_dict with strict=False",
    symptom="tensors that are missing, surplus or misshapen are passed over in silence",
    hidden="whatever fits is loaded, and the loss falls",
)
def populate_not_strict(plant: Plant) -> None:
    """Load what fits."""
    import torch

    def make(original: Any) -> Any:
        def populate(model: Any, tensors: Any) -> None:
            try:
                original(model, tensors)
                plant.effect(False)
                return
            except Exception:  # whatever the strict loader refuses, this one passes over
                plant.effect(True)
            own = dict(model.named_parameters())
            with torch.no_grad():
                for name in own.keys() & tensors.keys():
                    if own[name].shape == tensors[name].shape:
                        own[name].copy_(tensors[name])

        return populate

    plant.patch(_POPULATE, make)


class _RefusalIgnored(SubjectWrapper):
    """Builds something else whenever the trainer refuses."""

    def build_pretrain(self, *, device: str, dtype: str, seed: int, **options: Any) -> Any:
        """What the trainer builds, or a random model of some architecture."""
        try:
            return self.inner.build_pretrain(device=device, dtype=dtype, seed=seed, **options)
        except SubjectRefused:
            self.plant.effect(True)
            config = _SMALL
            return self.inner.build(config, device="cpu", dtype="float32", seed=seed)


_SMALL: Configuration = {
    "architecture": "llama",
    "hidden_size": 32,
    "num_layers": 1,
    "num_heads": 4,
    "num_kv_heads": 4,
    "head_dim": 8,
    "intermediate_size": 48,
    "vocab_size": 97,
    "max_position_embeddings": 64,
    "rope_theta": 10000.0,
    "rms_norm_eps": 1e-5,
    "attention_bias": False,
    "tie_word_embeddings": True,
}


@defect(
    "refusal-ignored",
    kind=PROTOCOL,
    imitates="the seed's hazard: separately optional fields fall back to Llama-370M",
    symptom="what must be refused is replaced by a default and trained",
    hidden="a random model trains, so the run looks healthy",
)
def refusal_ignored(plant: Plant) -> None:
    """See the class."""
    plant.wrap_subject(lambda subject: _RefusalIgnored(subject, plant))


class _RefusalUnnamed(SubjectWrapper):
    def build_pretrain(self, **options: Any) -> Any:
        """Refuse with a message that helps nobody."""
        try:
            return self.inner.build_pretrain(**options)
        except SubjectRefused as error:
            self.plant.effect(True)
            raise SubjectRefused(error.kind, "invalid arguments") from None


@defect(
    "refusal-unnamed",
    kind=PROTOCOL,
    imitates="a generic error around a specific one",
    symptom="the refusal says neither what nor where",
    hidden="the run stops as it should; the person reading it learns nothing",
)
def refusal_unnamed(plant: Plant) -> None:
    """See the class."""
    plant.wrap_subject(lambda subject: _RefusalUnnamed(subject, plant))


@defect(
    "unpaired-init",
    kind=SOURCE,
    imitates="the seed's hazard: weights without architecture fall back to Llama-370M",
    symptom="one of init_arch and init_path is accepted without the other",
    hidden="some model trains, and its loss falls",
)
def unpaired_init(plant: Plant) -> None:
    """Take the check out."""

    let_through: list[str] = []

    def make(original: Any) -> Any:
        def require(function: str, init_arch: Any, init_path: Any) -> None:
            unpaired = (init_arch is None) != (init_path is None)
            plant.effect(unpaired)
            let_through[:] = [function] if unpaired else []

        return require

    def default(original: Any) -> Any:
        # Without the check the default is built: 322 million parameters only to see it happen.
        return lambda *a, **k: _Unbuilt() if let_through else original(*a, **k)

    plant.patch("trainer.build:require_init_pair", make)
    plant.patch("trainer.build:build_shared_trainer", default)


class _Unbuilt:
    """Stands for the trainer that should never have been built."""


@defect(
    "encoder-accepted",
    kind=SOURCE,
    imitates="the seed: an encoder trained as a decoder (FALSIFY-APR-PRETRAIN-ARCH-007)",
    symptom="an encoder configuration passes the builder's check",
    hidden="an encoder's weights load into a decoder of the same shapes and train",
)
def encoder_accepted(plant: Plant) -> None:
    """Take the check out."""

    def make(original: Any) -> Any:
        def require_decoder(config: Any) -> None:
            plant.effect(config.architecture not in ("llama", "qwen2"))

        return require_decoder

    plant.patch("trainer.config:require_decoder", make)


@defect(
    "encoder-file-accepted",
    kind=SOURCE,
    imitates="AutoModelForCausalLM, which takes an encoder with a random head and a warning",
    symptom="a file of an encoder is read as if it were a Llama",
    hidden="shapes fit well enough to go on",
)
def encoder_file_accepted(plant: Plant) -> None:
    """Read every file as a Llama."""

    def make(original: Any) -> Any:
        def read_architecture(path: Any) -> Any:
            try:
                config = original(path)
                plant.effect(False)
            except Exception:  # whatever is refused is now a Llama
                plant.effect(True)
                from importlib import import_module

                return import_module("trainer.config").LLAMA_370M
            return config

        return read_architecture

    plant.patch("trainer.weights.architecture:read_architecture", make)


class _EncoderRelabelled(SubjectWrapper):
    def read_architecture(self, weights: Any) -> Any:
        """Say llama whatever the file says."""
        try:
            return self.inner.read_architecture(weights)
        except SubjectRefused:
            self.plant.effect(True)
            return {**_SMALL}


@defect(
    "encoder-relabelled",
    kind=PROTOCOL,
    imitates="an architecture string normalised to a known family",
    symptom="an encoder's file is described as a decoder",
    hidden="nothing downstream looks again",
)
def encoder_relabelled(plant: Plant) -> None:
    """See the class."""
    plant.wrap_subject(lambda subject: _EncoderRelabelled(subject, plant))
