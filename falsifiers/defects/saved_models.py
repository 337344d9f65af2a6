"""Models that are right in memory and almost right in a file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from aprverify.planting import PROTOCOL, SOURCE, Plant, defect
from falsifiers.defects.differs import differs
from falsifiers.wrapping import InstanceWrapper, SubjectWrapper, wrap_instances

_TABLE = "model.embed_tokens.weight"


def _save_spoiled(plant: Plant, name: str, spoil: Callable[[Any], Any]) -> None:
    """Let ``spoil(parameters)`` stand for the parameter `name` in every checkpoint."""

    class Spoiled(InstanceWrapper):
        def save_checkpoint(self, path: Any, provenance: Any) -> None:
            """Save with one parameter exchanged, and put it back."""
            parameters = self.inner.parameters()
            clean = parameters[name].clone()
            spoiled = spoil(parameters)
            self.plant.effect(differs(clean, spoiled))
            self.inner.set_parameters({name: spoiled})
            self.inner.save_checkpoint(path, provenance)
            self.inner.set_parameters({name: clean})

    wrap_instances(plant, Spoiled)


@defect(
    "gate-saved-for-up",
    kind=PROTOCOL,
    imitates="a joint gate-and-up matrix taken apart at the same half twice",
    symptom="in one layer of the file up is a copy of gate",
    hidden="shapes, names and counts are right, and the run that wrote it goes on rightly",
)
def gate_saved_for_up(plant: Plant) -> None:
    """Store gate under both names."""
    layer = "model.layers.1.mlp."
    _save_spoiled(
        plant, f"{layer}up_proj.weight", lambda own: own[f"{layer}gate_proj.weight"].clone()
    )


@defect(
    "embedding-saved-transposed",
    kind=PROTOCOL,
    imitates="the seed: an embedding in column-major order under a row-major shape",
    symptom="the table's bytes lie column by column, its shape says rows",
    hidden="shape, count, mean and norm of the table are all right",
)
def embedding_saved_transposed(plant: Plant) -> None:
    """Store the transpose in the shape of the table."""
    _save_spoiled(plant, _TABLE, lambda own: own[_TABLE].T.reshape(own[_TABLE].shape).clone())


@defect(
    "head-saved-beside-embedding",
    kind=SOURCE,
    imitates="weight tying lost on saving (Automodel#2511, lingua#75)",
    symptom="a tied head is written as a tensor of its own, with moments of its own",
    hidden="both copies are equal when written, so whoever loads it sees no difference",
)
def head_saved_beside_embedding(plant: Plant) -> None:
    """Add the head and its moments to what a checkpoint holds."""

    def make(original: Any) -> Any:
        def training_tensors(trainer: Any) -> Any:
            tensors = dict(original(trainer))
            copies = {
                name.replace(_TABLE, "lm_head.weight"): tensor.clone()
                for name, tensor in tensors.items()
                if _TABLE in name
            }
            plant.effect(not copies.keys() & tensors.keys())
            return {**tensors, **copies}

        return training_tensors

    plant.patch("trainer.checkpoint.state:training_tensors", make)


@defect(
    "saved-theta-misstated",
    kind=SOURCE,
    imitates="metadata written from the defaults of a newer family",
    symptom="a model trained with theta 10000 says 500000 in its file",
    hidden="tensors are right and resuming does not read the field",
)
def saved_theta_misstated(plant: Plant) -> None:
    """Describe another theta."""

    def make(original: Any) -> Any:
        def config_metadata(config: Any) -> Any:
            clean, spoiled = original(config), original(replace(config, rope_theta=500000.0))
            plant.effect(clean != spoiled)
            return spoiled

        return config_metadata

    plant.patch("trainer.checkpoint.writer:config_metadata", make)


class _RoundsWhatItLoads(SubjectWrapper):
    def build_pretrain(self, **options: Any) -> Any:
        """A model whose loaded weights have been through bfloat16."""
        instance = self.inner.build_pretrain(**options)
        clean = {name: p.clone() for name, p in instance.parameters().items()}
        rounded = {name: p.bfloat16().float() for name, p in clean.items()}
        self.plant.effect(any(differs(clean[name], p) for name, p in rounded.items()))
        instance.set_parameters(rounded)
        return instance


@defect(
    "loaded-through-bfloat16",
    kind=PROTOCOL,
    imitates="a loader that casts to the compute dtype first and to the master dtype after",
    symptom="weights that were stored in float32 are loaded with eight bits of mantissa",
    hidden="the cosine of the logits is above 0.999, as the outer claim asks",
)
def loaded_through_bfloat16(plant: Plant) -> None:
    """See the class."""
    plant.wrap_subject(lambda subject: _RoundsWhatItLoads(subject, plant))


@defect(
    "gguf-unpermuted-both-ways",
    kind=SOURCE,
    imitates="a writer and a reader that forget the same permutation of q and k",
    symptom="GGUF files hold half-split rows, which llama.cpp reads as interleaved ones",
    hidden="whoever writes and reads with the same code gets every weight back, bit for bit",
)
def gguf_unpermuted_both_ways(plant: Plant) -> None:
    """Permute neither on writing nor on reading."""

    def writing(original: Any) -> Any:
        def rows_as_stored(name: Any, tensor: Any, config: Any) -> Any:
            plant.effect(differs(original(name, tensor, config), tensor))
            return tensor.contiguous()

        return rows_as_stored

    def reading(original: Any) -> Any:
        def undo(rows: Any, *arguments: Any) -> Any:
            plant.effect(differs(original(rows, *arguments), rows))
            return rows

        return undo

    plant.patch("trainer.weights.export_gguf:_rows_as_stored", writing)
    plant.patch("trainer.weights.gguf_file:undo_rotary_permutation", reading)
