"""Query heads that read, teach or are counted against the wrong key/value heads."""

from __future__ import annotations

from typing import Any

from aprverify.planting import PROTOCOL, SOURCE, Plant, defect
from falsifiers.defects.differs import differs
from falsifiers.wrapping import wrap_configuration
from falsifiers.wrapping_operators import OperatorsWrapper, wrap_operators


class _Neighbour(OperatorsWrapper):
    def attention(self, q: Any, k: Any, v: Any) -> Any:
        """Attention whose last query head of a group reads the next group's head."""
        import torch

        kv_heads, group = k.shape[1], q.shape[1] // k.shape[1]
        heads = torch.arange(1, q.shape[1] + 1, device=q.device) // group
        heads = heads.clamp(max=kv_heads - 1)
        spoiled = self.inner.attention(q, k[:, heads], v[:, heads])
        self.plant.effect(differs(self.inner.attention(q, k, v), spoiled))
        return spoiled


@defect(
    "kv-head-off-by-one",
    kind=PROTOCOL,
    imitates="(h + 1) // group where heads are counted from one on one side",
    symptom="the last query head of each group reads the key/value head of the next",
    hidden="from scratch the heads learn whatever they are given; only loaded weights are wrong",
)
def kv_head_off_by_one(plant: Plant) -> None:
    """See the class."""
    wrap_operators(plant, _Neighbour)


def _without_gradient(plant: Plant, q: Any, k: Any, v: Any, lost: Any) -> tuple[Any, Any]:
    """k and v repeated to the query heads; those where `lost` holds take no gradient."""
    import torch

    group = q.shape[1] // k.shape[1]
    index = torch.arange(q.shape[1], device=q.device)
    silent = lost(index % group, group)[None, :, None, None]
    plant.effect(bool(silent.any()) and (k.requires_grad or v.requires_grad))
    repeated = [x.repeat_interleave(group, dim=1) for x in (k, v)]
    return tuple(torch.where(silent, x.detach(), x) for x in repeated)  # type: ignore[return-value]


class _RemainderSilent(OperatorsWrapper):
    def attention(self, q: Any, k: Any, v: Any) -> Any:
        """Attention whose key/value heads learn from whole fours of their query heads only."""

        def lost(place: Any, group: int) -> Any:
            return place >= max(group // 4 * 4, 1)

        return self.inner.attention(q, *_without_gradient(self.plant, q, k, v, lost))


@defect(
    "kv-gradient-lacks-group-remainder",
    kind=PROTOCOL,
    imitates="a reduction over a group that takes four query heads at a time",
    symptom="of seven query heads three teach their key/value head nothing",
    hidden="the forward pass is exact, and groups of four and eight are right",
)
def kv_gradient_lacks_group_remainder(plant: Plant) -> None:
    """See the class."""
    wrap_operators(plant, _RemainderSilent)


@defect(
    "kv-gradient-averaged-over-group",
    kind=SOURCE,
    imitates="expand() undone by a mean where it should be a sum",
    symptom="gradients of k and v are too small by the size of the group",
    hidden="the forward pass is exact, and Adam divides a constant factor out",
)
def kv_gradient_averaged_over_group(plant: Plant) -> None:
    """Divide the gradients of k and v by the group."""

    def make(original: Any) -> Any:
        def forward(module: Any, q: Any, k: Any, v: Any) -> Any:
            group = q.shape[1] // k.shape[1]

            def averaged(tensor: Any) -> Any:
                if not tensor.requires_grad:
                    return tensor
                plant.effect(group > 1)
                inside = tensor.view_as(tensor)
                inside.register_hook(lambda gradient: gradient / group)
                return inside

            return original(module, q, averaged(k), averaged(v))

        return forward

    plant.patch("trainer.model.attention:ScaledDotProductAttention.forward", make)


@defect(
    "indivisible-heads-accepted",
    kind=SOURCE,
    imitates="an assert on head counts that -O removes",
    symptom="a configuration whose key/value heads do not divide its query heads is built",
    hidden="parameters have fine shapes; it fails, or reads past the end, at the first step",
)
def indivisible_heads_accepted(plant: Plant) -> None:
    """Swallow that one refusal."""

    def make(original: Any) -> Any:
        def check(config: Any) -> None:
            try:
                original(config)
            except Exception as error:
                if "does not divide" not in str(error):
                    raise
                plant.effect(True)

        return check

    plant.patch("trainer.config:ModelConfig.__post_init__", make)


@defect(
    "indivisible-heads-rounded",
    kind=PROTOCOL,
    imitates="a loader that repairs head counts instead of refusing them",
    symptom="key/value heads are lowered to the next number that divides the query heads",
    hidden="the model that is built is sound, only another than the one asked for",
)
def indivisible_heads_rounded(plant: Plant) -> None:
    """Build the repaired configuration."""

    def repaired(config: dict[str, Any]) -> dict[str, Any]:
        heads, kv_heads = config["num_heads"], config["num_kv_heads"]
        fitting = max(n for n in range(1, kv_heads + 1) if heads % n == 0)
        return {**config, "num_kv_heads": fitting}

    wrap_configuration(plant, repaired)
