"""A loss that is nearly the negative log-likelihood, or whose gradient is nearly that of it."""

from __future__ import annotations

from typing import Any

from aprverify.planting import PROTOCOL, SOURCE, Plant, defect
from falsifiers.defects.differs import differs
from falsifiers.wrapping_operators import OperatorsWrapper, wrap_operators

_LOSS = "trainer.loss:linear_cross_entropy"
_ROWS = "trainer.loss:_row_losses"
_CHUNK = "trainer.loss:CHUNK_LOGITS"


def _spoil_rows(plant: Plant, spoil: Any) -> None:
    """Row losses ``spoil(clean, logits, targets, row_weights, vocabulary)``; gradients stay."""

    def make(original: Any) -> Any:
        def row_losses(logits: Any, targets: Any, rows: Any, vocabulary: int, **how: Any) -> Any:
            before = logits[:, :vocabulary].float()  # the gradient is written over the logits
            before = before.clone()
            clean = original(logits, targets, rows, vocabulary, **how)
            spoiled = spoil(clean, before, targets, rows, vocabulary)
            plant.effect(differs(clean, spoiled))
            return spoiled

        return row_losses

    plant.patch(_ROWS, make)


@defect(
    "log-of-probability-plus-eps",
    kind=SOURCE,
    imitates="-log(p + 1e-6), to be safe from log(0)",
    symptom="certain rows have a loss of -1e-6, and no row more than 13.8",
    hidden="a mean over real text does not show the sixth digit",
)
def log_of_probability_plus_eps(plant: Plant) -> None:
    """Add eps inside the logarithm."""

    def spoil(clean: Any, logits: Any, targets: Any, rows: Any, vocabulary: int) -> Any:
        probability = logits.softmax(-1).gather(-1, targets[:, None]).squeeze(-1)
        return -(probability + 1e-6).log() * rows

    _spoil_rows(plant, spoil)


@defect(
    "vocabulary-tail-left-out",
    kind=SOURCE,
    imitates="a reduction over whole blocks of 64 columns",
    symptom="ids after the last whole block of 64 are not in the softmax",
    hidden="padded vocabularies have no such ids, and in others they are the rarest",
)
def vocabulary_tail_left_out(plant: Plant) -> None:
    """Normalise over whole blocks."""

    def spoil(clean: Any, logits: Any, targets: Any, rows: Any, vocabulary: int) -> Any:
        whole = vocabulary // 64 * 64 or vocabulary
        at_target = logits.gather(-1, targets[:, None]).squeeze(-1)
        return (logits[:, :whole].logsumexp(-1) - at_target) * rows

    _spoil_rows(plant, spoil)


@defect(
    "softmax-without-maximum",
    kind=SOURCE,
    imitates="log(sum(exp(x))) as it stands in the textbook",
    symptom="logits above 88 overflow",
    hidden="logits of a healthy model stay below",
)
def softmax_without_maximum(plant: Plant) -> None:
    """Exponentiate as is."""

    def spoil(clean: Any, logits: Any, targets: Any, rows: Any, vocabulary: int) -> Any:
        at_target = logits.gather(-1, targets[:, None]).squeeze(-1)
        return (logits.exp().sum(-1).log() - at_target) * rows

    _spoil_rows(plant, spoil)


@defect(
    "normaliser-at-the-offset",
    kind=SOURCE,
    imitates="logsumexp(x) - x[target] and exp(x - logsumexp(x)), each rounded at the logits' size",
    symptom="of logits near 1e6 the loss has one digit, and gradients do not sum to zero",
    hidden="logits of a healthy model are small, and nobody adds up a gradient",
)
def normaliser_at_the_offset(plant: Plant) -> None:
    """Form the normaliser first, and subtract it afterwards."""

    def make(original: Any) -> Any:
        def row_losses(logits: Any, targets: Any, rows: Any, vocabulary: int, **how: Any) -> Any:
            import torch

            before = logits[:, :vocabulary].float().clone()
            clean = original(logits, targets, rows, vocabulary, **how)
            normalisers = before.logsumexp(-1, keepdim=True)
            at_target = before.gather(-1, targets[:, None])
            losses = ((normalisers - at_target).squeeze(-1) * rows).masked_fill(rows == 0, 0.0)
            if how["with_gradient"]:
                gradient = (before - normalisers).exp()
                gradient.scatter_add_(-1, targets[:, None], -torch.ones_like(normalisers))
                logits[:, :vocabulary] = gradient * rows[:, None]
            plant.effect(differs(clean, losses))
            return losses

        return row_losses

    plant.patch(_ROWS, make)


@defect(
    "mask-by-a-product",
    kind=SOURCE,
    imitates="losses * mask, where torch.where belongs",
    symptom="a masked row whose loss overflows makes the sum NaN",
    hidden="zero times any finite loss is zero",
)
def mask_by_a_product(plant: Plant) -> None:
    """Multiply what the row would have cost by its weight."""

    def make(original: Any) -> Any:
        def row_losses(logits: Any, targets: Any, rows: Any, *rest: Any, **how: Any) -> Any:
            import torch

            unweighted = original(logits.clone(), targets, torch.ones_like(rows), *rest, **how)
            clean = original(logits, targets, rows, *rest, **how)
            plant.effect(differs(clean, unweighted * rows))
            return unweighted * rows

        return row_losses

    plant.patch(_ROWS, make)


@defect(
    "logits-soft-capped",
    kind=SOURCE,
    imitates="Gemma 2's final_logit_softcapping of 30 in a model that has none",
    symptom="logits are 30·tanh(x / 30)",
    hidden="logits of a healthy model are small against 30",
)
def logits_soft_capped(plant: Plant) -> None:
    """Cap the logits in place."""

    def make(original: Any) -> Any:
        def row_losses(logits: Any, *rest: Any, **how: Any) -> Any:
            capped = 30.0 * (logits / 30.0).tanh()
            plant.effect(differs(logits, capped))
            logits.copy_(capped)
            return original(logits, *rest, **how)

        return row_losses

    plant.patch(_ROWS, make)


@defect(
    "target-ids-in-16-bits",
    kind=SOURCE,
    imitates="token shards of uint16, read with a vocabulary of 151936",
    symptom="targets from 65536 on are taken modulo 65536",
    hidden="frequent ids are small, and GPT-2's vocabulary fits",
)
def target_ids_in_16_bits(plant: Plant) -> None:
    """Cut the ids."""

    def make(original: Any) -> Any:
        def loss(hidden: Any, weight: Any, targets: Any, rows: Any = None) -> Any:
            cut = targets % 2**16
            plant.effect(differs(targets, cut))
            return original(hidden, weight, cut, rows)

        return loss

    plant.patch(_LOSS, make)


@defect(
    "row-weights-restart-each-chunk",
    kind=SOURCE,
    imitates="row_weights[:n] for row_weights[start : start + n]",
    symptom="each chunk takes the weights of the first rows",
    hidden="one chunk is right, and so are any number of them while all weights are one",
)
def row_weights_restart_each_chunk(plant: Plant) -> None:
    """Let a chunk be one row, and weigh each like the first."""
    plant.patch(_CHUNK, lambda _: 1)

    def make(original: Any) -> Any:
        def loss(hidden: Any, weight: Any, targets: Any, rows: Any = None) -> Any:
            if rows is None:
                return original(hidden, weight, targets, rows)
            restarted = rows[:1].expand_as(rows).contiguous()
            plant.effect(differs(rows, restarted))
            return original(hidden, weight, targets, restarted)

        return loss

    plant.patch(_LOSS, make)


@defect(
    "upstream-gradient-ignored",
    kind=SOURCE,
    imitates="a fused loss whose backward returns what the forward has stored",
    symptom="gradients are those of the loss itself, whatever it was multiplied by since",
    hidden="with a loss that is used as it comes, the factor is one",
)
def upstream_gradient_ignored(plant: Plant) -> None:
    """Replace the incoming gradient by one."""

    def make(original: Any) -> Any:
        def loss(*arguments: Any) -> Any:
            import torch

            total = original(*arguments)
            if not total.requires_grad:
                return total

            def ones(gradient: Any) -> Any:
                plant.effect(differs(gradient, torch.ones_like(gradient)))
                return torch.ones_like(gradient)

            total.register_hook(ones)
            return total.view_as(total)

        return loss

    plant.patch(_LOSS, make)


class _Smoothed(OperatorsWrapper):
    def linear_cross_entropy(self, hidden: Any, weight: Any, targets: Any, rows: Any = None) -> Any:
        """The loss with a thousandth of the target spread over all ids."""
        clean = self.inner.linear_cross_entropy(hidden, weight, targets, rows)
        logits = (hidden @ weight.to(hidden.dtype).T).float()
        above_mean = logits.gather(-1, targets[:, None]).squeeze(-1) - logits.mean(-1)
        spoiled = clean + 1e-3 * (above_mean if rows is None else above_mean * rows).sum()
        self.plant.effect(differs(clean, spoiled))
        return spoiled


@defect(
    "label-smoothing-left-on",
    kind=PROTOCOL,
    imitates="label_smoothing=1e-3 in a configuration that nobody reads",
    symptom="a thousandth of each target is spread over the vocabulary",
    hidden="the loss hardly moves, and smoothing is a respected regulariser",
)
def label_smoothing_left_on(plant: Plant) -> None:
    """See the class."""
    wrap_operators(plant, _Smoothed)


class _RoundedLoss(OperatorsWrapper):
    def linear_cross_entropy(self, hidden: Any, weight: Any, targets: Any, rows: Any = None) -> Any:
        """The loss, rounded to bfloat16."""
        clean = self.inner.linear_cross_entropy(hidden, weight, targets, rows)
        spoiled = clean.bfloat16().to(clean.dtype)
        self.plant.effect(differs(clean, spoiled))
        return spoiled


@defect(
    "loss-in-bfloat16",
    kind=PROTOCOL,
    imitates="transformers#29285: cross-entropy under autocast",
    symptom="the loss has three significant digits",
    hidden="a curve is drawn with three digits",
)
def loss_in_bfloat16(plant: Plant) -> None:
    """See the class."""
    wrap_operators(plant, _RoundedLoss)


class _ClippedLoss(OperatorsWrapper):
    def linear_cross_entropy(self, hidden: Any, weight: Any, targets: Any, rows: Any = None) -> Any:
        """The loss, at most a hundred times the rows."""
        clean = self.inner.linear_cross_entropy(hidden, weight, targets, rows)
        spoiled = clean.clamp(max=100.0 * len(targets))
        self.plant.effect(differs(clean, spoiled))
        return spoiled


@defect(
    "loss-clipped-at-a-hundred",
    kind=PROTOCOL,
    imitates="BCELoss, which clamps its logarithms at -100",
    symptom="a row costs at most 100 nats, and has no gradient beyond",
    hidden="rows of a healthy model cost less than 20",
)
def loss_clipped_at_a_hundred(plant: Plant) -> None:
    """See the class."""
    wrap_operators(plant, _ClippedLoss)


class _UnevenPrecision(OperatorsWrapper):
    def linear_cross_entropy(self, hidden: Any, weight: Any, targets: Any, rows: Any = None) -> Any:
        """The loss with the logit of the target in float32, and the others as they are."""
        head = weight.to(hidden.dtype)
        rounded = hidden @ head.T
        at_target = rounded.gather(-1, targets[:, None]).squeeze(-1).float()
        exact = (hidden.float() * head[targets].float()).sum(-1)
        more = exact - at_target
        clean = self.inner.linear_cross_entropy(hidden, weight, targets, rows)
        spoiled = clean - (more if rows is None else more * rows).sum()
        self.plant.effect(differs(clean, spoiled))
        return spoiled


@defect(
    "target-logit-in-float32",
    kind=PROTOCOL,
    imitates="a fused loss that takes the target's logit from a product of its own",
    symptom="the logit of the target is not rounded as those that it is compared with",
    hidden="it is the better logit, and the difference averages out over rows",
)
def target_logit_in_float32(plant: Plant) -> None:
    """See the class."""
    wrap_operators(plant, _UnevenPrecision)


class _WeightsAsMask(OperatorsWrapper):
    def linear_cross_entropy(self, hidden: Any, weight: Any, targets: Any, rows: Any = None) -> Any:
        """The loss with each row that has a weight counted once."""
        clean = self.inner.linear_cross_entropy(hidden, weight, targets, rows)
        mask = None if rows is None else (rows != 0).to(rows.dtype)
        spoiled = self.inner.linear_cross_entropy(hidden, weight, targets, mask)
        self.plant.effect(differs(clean, spoiled))
        return spoiled


@defect(
    "row-weights-taken-as-mask",
    kind=PROTOCOL,
    imitates="a loss that knows an ignore index only",
    symptom="each row that has a weight counts once",
    hidden="pre-training masks, and never weighs",
)
def row_weights_taken_as_mask(plant: Plant) -> None:
    """See the class."""
    wrap_operators(plant, _WeightsAsMask)


class _MaskLeaks(OperatorsWrapper):
    def linear_cross_entropy(self, hidden: Any, weight: Any, targets: Any, rows: Any = None) -> Any:
        """The loss with masked rows at a weight of 1e-6."""
        clean = self.inner.linear_cross_entropy(hidden, weight, targets, rows)
        leaking = None if rows is None else rows.clamp(min=1e-6)
        spoiled = self.inner.linear_cross_entropy(hidden, weight, targets, leaking)
        self.plant.effect(differs(clean, spoiled))
        return spoiled


@defect(
    "mask-clamped-above-zero",
    kind=PROTOCOL,
    imitates="weights.clamp(min=eps) against a division by zero",
    symptom="masked rows count a millionth",
    hidden="a millionth of a usual loss is not seen",
)
def mask_clamped_above_zero(plant: Plant) -> None:
    """See the class."""
    wrap_operators(plant, _MaskLeaks)
