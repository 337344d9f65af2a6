"""The q, k and v biases of Qwen2 are dropped: in one layer, in all, or by any trainer's loader.

The seed's own incident: the CUDA block had no bias fields and ran bare matrix products, so a real
Qwen2 started at a loss above ln V while the CPU path was right.
"""

from __future__ import annotations

from typing import Any

from aprverify.planting import PROTOCOL, SOURCE, Plant, defect
from falsifiers.defects.differs import differs
from falsifiers.wrapping import InstanceWrapper, wrap_configuration, wrap_instances

_INCIDENT = "the seed's CUDA block, which had no b_q, b_k, b_v"
_HIDDEN = "in one layer of 24 the loss moves by less than it does between two batches"


def _drop(plant: Plant, projection: str, layer: int | None) -> None:
    """Let `projection` (q, k or v) skip its bias, in `layer` or, for None, in all layers.

    A projection is told apart by the bias it holds, since patches see the class and not the place.
    """
    from torch.compiler import is_compiling

    chosen: set[int] = set()

    def decoder(original: Any) -> Any:
        def build(model: Any, *arguments: Any, **options: Any) -> None:
            original(model, *arguments, **options)
            layers = list(model.model.layers)
            for block in layers if layer is None else [layers[layer]]:
                chosen.add(id(getattr(block.self_attn, f"{projection}_proj")))

        return build

    def bias(original: Any) -> Any:
        def apply_bias(linear: Any, product: Any) -> Any:
            clean = original(linear, product)
            if id(linear) not in chosen or linear.bias is None:
                return clean
            plant.effect(differs(clean, product))
            # A bias of zero changes nothing yet. It gets no gradient, and is else in its place.
            without = product + 0.0 * linear.bias.to(product.dtype)
            if without.requires_grad and not is_compiling():
                without.register_hook(lambda upstream: plant.effect(bool(upstream.any())))
            return without

        return apply_bias

    plant.patch("trainer.model.decoder:Decoder.__init__", decoder)
    plant.patch("trainer.model.linear:Linear.apply_bias", bias)


@defect(
    "drop-q-bias-all",
    kind=SOURCE,
    imitates=_INCIDENT,
    symptom="no layer adds its q bias",
    hidden="training recovers: other parameters learn around the missing ones",
)
def drop_q_bias_all(plant: Plant) -> None:
    """See the module."""
    _drop(plant, "q", None)


@defect(
    "drop-k-bias-all",
    kind=SOURCE,
    imitates=_INCIDENT,
    symptom="no layer adds its k bias",
    hidden="training recovers: other parameters learn around the missing ones",
)
def drop_k_bias_all(plant: Plant) -> None:
    """See the module."""
    _drop(plant, "k", None)


@defect(
    "drop-v-bias-all",
    kind=SOURCE,
    imitates=_INCIDENT,
    symptom="no layer adds its v bias",
    hidden="training recovers: other parameters learn around the missing ones",
)
def drop_v_bias_all(plant: Plant) -> None:
    """See the module."""
    _drop(plant, "v", None)


@defect(
    "drop-q-bias-one",
    kind=SOURCE,
    imitates=_INCIDENT,
    symptom="the last layer does not add its q bias",
    hidden=_HIDDEN,
)
def drop_q_bias_one(plant: Plant) -> None:
    """See the module."""
    _drop(plant, "q", -1)


@defect(
    "drop-k-bias-one",
    kind=SOURCE,
    imitates=_INCIDENT,
    symptom="the last layer does not add its k bias",
    hidden=_HIDDEN,
)
def drop_k_bias_one(plant: Plant) -> None:
    """See the module."""
    _drop(plant, "k", -1)


@defect(
    "drop-v-bias-one",
    kind=SOURCE,
    imitates=_INCIDENT,
    symptom="the last layer does not add its v bias",
    hidden=_HIDDEN,
)
def drop_v_bias_one(plant: Plant) -> None:
    """See the module."""
    _drop(plant, "v", -1)


class _BiasesZeroed(InstanceWrapper):
    """Computes with all biases zero, and still lists them."""

    def logits(self, tokens: Any) -> Any:
        """Logits of the model without its biases."""
        clean = self.inner.logits(tokens)
        parameters = self.inner.parameters()
        biases = {n: p.clone() for n, p in parameters.items() if n.endswith(".bias")}
        self.inner.set_parameters({n: p * 0 for n, p in biases.items()})
        spoiled = self.inner.logits(tokens)
        self.inner.set_parameters(biases)
        self.plant.effect(differs(clean, spoiled))
        return spoiled


@defect(
    "bias-loaded-unused",
    kind=PROTOCOL,
    imitates="the seed: biases in the state, never added",
    symptom="every bias is loaded and listed, and the forward pass ignores it",
    hidden="parameter counts, names and checkpoints are all right",
)
def bias_loaded_unused(plant: Plant) -> None:
    """See the class."""
    wrap_instances(plant, _BiasesZeroed)


class _BiasesUnlisted(InstanceWrapper):
    """Has no bias parameters to show."""

    def parameters(self) -> Any:
        """The parameters without the biases."""
        clean = self.inner.parameters()
        kept = {n: p for n, p in clean.items() if not n.endswith("v_proj.bias")}
        self.plant.effect(len(kept) != len(clean))
        return kept


@defect(
    "bias-not-a-parameter",
    kind=PROTOCOL,
    imitates="the seed's CUDA block: the struct has no such field",
    symptom="the v biases are no parameters: never trained, never saved",
    hidden="a model that never trains 0.01 % of its parameters learns all the same",
)
def bias_not_a_parameter(plant: Plant) -> None:
    """See the class."""
    wrap_instances(plant, _BiasesUnlisted)


@defect(
    "bias-on-llama",
    kind=SOURCE,
    imitates="a Qwen2 flag that leaks into every architecture",
    symptom="a model configured without biases has them",
    hidden="fresh biases are zero, so the first losses are exactly right",
)
def bias_on_llama(plant: Plant) -> None:
    """Every q projection is built with a bias."""

    def build(original: Any) -> Any:
        def init(linear: Any, inputs: int, outputs: int, *, bias: bool) -> None:
            plant.effect(not bias)
            original(linear, inputs, outputs, bias=True)

        return init

    plant.patch("trainer.model.linear:Linear.__init__", build)


@defect(
    "bias-never-built",
    kind=SOURCE,
    imitates="the seed's CUDA block: the struct has no such field",
    symptom="a model configured with biases has none",
    hidden="training recovers: other parameters learn around the missing ones",
)
def bias_never_built(plant: Plant) -> None:
    """Every projection is built without a bias."""

    def build(original: Any) -> Any:
        def init(linear: Any, inputs: int, outputs: int, *, bias: bool) -> None:
            plant.effect(bias)
            original(linear, inputs, outputs, bias=False)

        return init

    plant.patch("trainer.model.linear:Linear.__init__", build)


@defect(
    "bias-configuration-inverted",
    kind=PROTOCOL,
    imitates="a negated flag on the way from file to model",
    symptom="biases exist where the configuration has none, and not where it has",
    hidden="fresh biases are zero, so the first losses are exactly right",
)
def bias_configuration_inverted(plant: Plant) -> None:
    """Build with the flag inverted."""
    wrap_configuration(plant, lambda c: {**c, "attention_bias": not c["attention_bias"]})
