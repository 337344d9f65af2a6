"""Faults of whole-model outputs that any trainer can have."""

from __future__ import annotations

from typing import Any

from aprverify.planting import PROTOCOL, Plant, defect
from falsifiers.defects.differs import differs
from falsifiers.subject import Batch
from falsifiers.wrapping import InstanceWrapper, SubjectWrapper, wrap_instances


class _OneParameterOff(InstanceWrapper):
    """Computes logits with one norm weight 1 % too large."""

    def logits(self, tokens: Any) -> Any:
        """Logits of the slightly wrong model."""
        clean = self.inner.logits(tokens)
        name = "model.layers.0.post_attention_layernorm.weight"
        weight = self.inner.parameters()[name].clone()
        self.inner.set_parameters({name: weight * 1.01})
        spoiled = self.inner.logits(tokens)
        self.inner.set_parameters({name: weight})
        self.plant.effect(differs(clean, spoiled))
        return spoiled


@defect(
    "one-norm-one-percent-off",
    kind=PROTOCOL,
    imitates="a weight converted with the wrong scale",
    symptom="one norm of the first layer is 1 % too large in the forward pass",
    hidden="the effect on the loss is in the fifth digit",
)
def one_norm_off(plant: Plant) -> None:
    """See the class."""
    wrap_instances(plant, _OneParameterOff)


class _LogitsSharpened(InstanceWrapper):
    """Multiplies logits, and gradients with them, by 1.001."""

    def logits(self, tokens: Any) -> Any:
        """Logits with the wrong temperature."""
        clean = self.inner.logits(tokens)
        self.plant.effect(bool(clean.any()))
        return clean * 1.001


@defect(
    "logits-scaled",
    kind=PROTOCOL,
    imitates="a softcap or temperature left on in one path",
    symptom="logits are 0.1 % too large",
    hidden="the arg max never changes and the cosine stays 1",
)
def logits_scaled(plant: Plant) -> None:
    """See the class."""
    wrap_instances(plant, _LogitsSharpened)


class _GradientsOff(InstanceWrapper):
    """Reports the gradient of one projection 1 % too small."""

    def loss_and_gradients(self, batch: Any) -> Any:
        """A right loss with a wrong gradient."""
        loss, gradients = self.inner.loss_and_gradients(batch)
        name = "model.layers.1.self_attn.o_proj.weight"
        spoiled = {**gradients, name: gradients[name] * 0.99}
        self.plant.effect(differs(gradients[name], spoiled[name]))
        return loss, spoiled


@defect(
    "one-gradient-one-percent-off",
    kind=PROTOCOL,
    imitates="a fused backward with one wrong factor",
    symptom="the gradient of one projection is 1 % too small",
    hidden="loss and logits are exact; the norm of all gradients moves in the fourth digit",
)
def one_gradient_off(plant: Plant) -> None:
    """See the class."""
    wrap_instances(plant, _GradientsOff)


class _TraceOff(InstanceWrapper):
    """The traced MLP of the last layer rounds its output once more."""

    def trace(self, batch: Any) -> Any:
        """Records of which one output is off by 2 %."""
        from dataclasses import replace

        records = list(self.inner.trace(batch))
        index = max(i for i, record in enumerate(records) if record.kind == "linear")
        record = records[index]
        spoiled = {name: value * 1.02 for name, value in record.outputs.items()}
        self.plant.effect(differs(record.outputs["out"], spoiled["out"]))
        records[index] = replace(record, outputs=spoiled)
        return records


@defect(
    "one-operator-off",
    kind=PROTOCOL,
    imitates="a kernel that is wrong for one shape only",
    symptom="one projection of the last layer is 2 % too large",
    hidden="end to end in bfloat16 a clean model is as far off",
)
def one_operator_off(plant: Plant) -> None:
    """See the class."""
    wrap_instances(plant, _TraceOff)


class _BuildsInFloat32(SubjectWrapper):
    def build(self, config: Any, *, device: str, **options: Any) -> Any:
        """Build in float32 whatever was asked for."""
        spoiled = {**options, "dtype": "float32"}
        self.plant.effect(spoiled != options)
        return self.inner.build(config, device=device, **spoiled)


@defect(
    "float32-for-bfloat16",
    kind=PROTOCOL,
    imitates="an autocast context that was never entered",
    symptom="activations are float32 though bfloat16 was asked for",
    hidden="every number is nearer to the exact one; only speed and memory suffer",
)
def float32_for_bfloat16(plant: Plant) -> None:
    """See the class."""
    plant.wrap_subject(lambda subject: _BuildsInFloat32(subject, plant))


class _MeanOfSequences(InstanceWrapper):
    def loss_and_gradients(self, batch: Any) -> Any:
        """The plain mean over sequences, however many targets each has."""
        clean, _ = self.inner.loss_and_gradients(batch)
        rows = range(len(batch.tokens))
        alone = [Batch(batch.tokens[i : i + 1], batch.target_mask[i : i + 1]) for i in rows]
        losses, gradients = zip(*map(self.inner.loss_and_gradients, alone), strict=True)
        loss = sum(losses) / len(losses)
        self.plant.effect(loss != clean)
        return loss, {n: sum(g[n] for g in gradients) / len(gradients) for n in gradients[0]}


@defect(
    "mean-of-sequence-means",
    kind=PROTOCOL,
    imitates="transformers#34191",
    symptom="a batch is averaged over sequences instead of over targets",
    hidden="with sequences of one length it is the same number",
)
def mean_of_sequence_means(plant: Plant) -> None:
    """See the class."""
    wrap_instances(plant, _MeanOfSequences)
