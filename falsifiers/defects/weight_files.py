"""Real weight files that are read almost right."""

from __future__ import annotations

from typing import Any

from aprverify.planting import PROTOCOL, SOURCE, Plant, defect
from falsifiers.defects.differs import differs
from falsifiers.wrapping import InstanceWrapper, SubjectWrapper


@defect(
    "gguf-rows-left-permuted",
    kind=SOURCE,
    imitates="a GGUF reader that forgets llama.cpp's permutation of q and k",
    symptom="q and k rows stay in interleaved order under half-split RoPE",
    hidden="the loss stays below 0.7 ln V, and fine-tuning repairs it",
)
def gguf_rows_left_permuted(plant: Plant) -> None:
    """Do not undo the permutation."""

    def make(original: Any) -> Any:
        def undo(rows: Any, *arguments: Any) -> Any:
            clean = original(rows, *arguments)
            plant.effect(differs(clean, rows))
            return rows

        return undo

    plant.patch("trainer.weights.gguf_file:undo_rotary_permutation", make)


@defect(
    "one-layer-skipped",
    kind=SOURCE,
    imitates="a loop over num_layers - 1 layers",
    symptom="layer 17 of a deep model returns its input",
    hidden="the residual stream carries the other layers past it",
)
def one_layer_skipped(plant: Plant) -> None:
    """Return in one layer what it was given."""
    skipped: set[int] = set()

    def decoder(original: Any) -> Any:
        def build(model: Any, *arguments: Any, **options: Any) -> None:
            original(model, *arguments, **options)
            skipped.update(id(layer) for layer in list(model.model.layers)[17:18])

        return build

    def layer(original: Any) -> Any:
        def forward(module: Any, stream: Any, update: Any) -> Any:
            if id(module) not in skipped:
                return original(module, stream, update)
            plant.effect(differs(original(module, stream, update)[1], update))
            return stream, update

        return forward

    plant.patch("trainer.model.decoder:Decoder.__init__", decoder)
    plant.patch("trainer.model.decoder:DecoderLayer.forward", layer)


def _after_loading(plant: Plant, spoil: Any) -> None:
    """Let `spoil(instance)` change the weights of an instance built from a file."""

    class Spoiled(SubjectWrapper):
        def build_pretrain(self, **options: Any) -> Any:
            instance = self.inner.build_pretrain(**options)
            spoil(instance)
            return InstanceWrapper(instance, plant)

    plant.wrap_subject(lambda subject: Spoiled(subject, plant))


@defect(
    "weight-file-layer-swapped",
    kind=PROTOCOL,
    imitates="layers loaded in string order: 1, 10, 11, …, 2",
    symptom="layers 2 and 3 have exchanged their weights",
    hidden="neighbouring layers do similar work, and fine-tuning repairs it",
)
def weight_file_layer_swapped(plant: Plant) -> None:
    """Exchange two layers after loading."""

    def spoil(instance: Any) -> None:
        parameters = instance.parameters()
        other = {"model.layers.2.": "model.layers.3.", "model.layers.3.": "model.layers.2."}
        swapped = {}
        for name, value in parameters.items():
            for mine, theirs in other.items():
                if name.startswith(mine):
                    swapped[theirs + name.removeprefix(mine)] = value.clone()
        plant.effect(any(differs(parameters[n], v) for n, v in swapped.items()))
        instance.set_parameters(swapped)

    _after_loading(plant, spoil)


@defect(
    "weight-file-theta-changed",
    kind=PROTOCOL,
    imitates="theta defaulted where the file states another",
    symptom="a file with theta 100000 is run with 50000",
    hidden="the loss moves by hundredths, in either direction",
)
def weight_file_theta_changed(plant: Plant) -> None:
    """Build with another theta and the file's weights."""

    class Changed(SubjectWrapper):
        def build_pretrain(self, *, device: str, dtype: str, seed: int, **options: Any) -> Any:
            loaded = self.inner.build_pretrain(device=device, dtype=dtype, seed=seed, **options)
            theta = loaded.config["rope_theta"] / 2
            config = {**loaded.config, "rope_theta": theta}
            instance = self.inner.build(config, device=device, dtype=dtype, seed=seed)
            instance.set_parameters(loaded.parameters())
            plant.effect(instance.config != loaded.config)
            return instance

    plant.wrap_subject(lambda subject: Changed(subject, plant))
