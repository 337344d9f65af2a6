"""Architectures that are defaulted, bent or mixed up, and tokenizers that do not fit them."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from typing import Any

from aprverify.planting import PROTOCOL, SOURCE, Plant, defect
from falsifiers.defects.differs import differs
from falsifiers.subject import Configuration, SubjectRefused
from falsifiers.wrapping import SubjectWrapper


def _change_qwen(plant: Plant, **fields: Any) -> None:
    def make(original: Any) -> Any:
        changed = replace(original, **fields)
        plant.effect(changed != original)
        return changed

    plant.patch("trainer.config:QWEN2_0_5B", make)


@defect(
    "qwen-eps-of-llama",
    kind=SOURCE,
    imitates="the seed: eps 1e-5 whatever the configuration says",
    symptom="the trainer's Qwen2-0.5B normalises with eps 1e-5",
    hidden="the loss moves by thousandths, downwards",
)
def qwen_eps_of_llama(plant: Plant) -> None:
    """Change eps."""
    _change_qwen(plant, rms_norm_eps=1e-5)


@defect(
    "qwen-without-biases",
    kind=SOURCE,
    imitates="the seed's CUDA block, which had no b_q, b_k, b_v",
    symptom="the trainer's Qwen2-0.5B has no biases on q, k and v",
    hidden="0.01 per cent of the parameters",
)
def qwen_without_biases(plant: Plant) -> None:
    """Clear the flag."""
    _change_qwen(plant, attention_bias=False)


@defect(
    "bias-flag-defaults-to-false",
    kind=SOURCE,
    imitates="config.get('attention_bias', False) on a family whose files have no such flag",
    symptom="a published Qwen2 file is read as a model without biases",
    hidden="every field that the file states is right",
)
def bias_flag_defaults_to_false(plant: Plant) -> None:
    """Take an absent flag for false."""

    def make(original: Any) -> Any:
        def attention_bias(config: Any, family: str, files: Any) -> Any:
            plant.effect(original(config, family, files) != config.get("attention_bias", False))
            return config.get("attention_bias", False)

        return attention_bias

    plant.patch("trainer.weights.architecture:_attention_bias", make)


@defect(
    "absent-fields-defaulted",
    kind=SOURCE,
    imitates="the seed: a field absent from the init file is silently defaulted",
    symptom="a file that lacks a field is read with a plausible value in its place",
    hidden="published files lack nothing",
)
def absent_fields_defaulted(plant: Plant) -> None:
    """Fill in what is missing."""
    defaults = {
        "num_key_value_heads": 1,
        "max_position_embeddings": 2048,
        "rope_theta": 10000.0,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": True,
        "vocab_size": 32000,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
    }

    def make(original: Any) -> Any:
        refuse = import_module("trainer.errors").WeightsError

        def field(config: Any, name: str, path: Any) -> Any:
            try:
                return original(config, name, path)
            except refuse:
                plant.effect(True)
                return defaults[name]

        return field

    plant.patch("trainer.weights.architecture:_field", make)


class _ThetaRead(SubjectWrapper):
    def read_architecture(self, weights: Any) -> Any:
        """What the file declares, with the usual theta."""
        clean = self.inner.read_architecture(weights)
        self.plant.effect(clean["rope_theta"] != 10000.0)
        return {**clean, "rope_theta": 10000.0}


@defect(
    "declared-theta-is-ten-thousand",
    kind=PROTOCOL,
    imitates="a reader of the field's old name, which newer files do not have",
    symptom="every file is read with theta 10000",
    hidden="for most older files that is right",
)
def declared_theta_is_ten_thousand(plant: Plant) -> None:
    """See the class."""
    plant.wrap_subject(lambda subject: _ThetaRead(subject, plant))


class _PositionsCapped(SubjectWrapper):
    def configuration(self, name: str) -> Configuration:
        """The named configuration with at most 2048 positions."""
        return self._capped(self.inner.configuration(name))

    def build_pretrain(self, **options: Any) -> Any:
        """An instance that reports as many."""
        built = self.inner.build_pretrain(**options)
        capped = self._capped(built.config)

        class Reports:
            config = capped

            def __getattr__(self, name: str) -> Any:
                return getattr(built, name)

        return Reports()

    def _capped(self, config: Configuration) -> Configuration:
        self.plant.effect(config["max_position_embeddings"] > 2048)
        return {**config, "max_position_embeddings": 2048}


@defect(
    "positions-capped",
    kind=PROTOCOL,
    imitates="a limit for small cards that became part of the model",
    symptom="the default model has 2048 positions instead of 4096",
    hidden="no tensor has that size",
)
def positions_capped(plant: Plant) -> None:
    """See the class."""
    plant.wrap_subject(lambda subject: _PositionsCapped(subject, plant))


class _OperatorsWith:
    def __init__(self, inner: Any, attention: Any) -> None:
        self.inner = inner
        self.attention = attention

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


def _wrap_attention(plant: Plant, spoil: Any) -> None:
    class Spoiled(SubjectWrapper):
        def operators(self, *how: Any) -> Any:
            """The operators with another attention."""
            inner = self.inner.operators(*how)

            def attention(q: Any, k: Any, v: Any) -> Any:
                spoiled = spoil(inner, q, k, v)
                plant.effect(differs(inner.attention(q, k, v), spoiled))
                return spoiled

            return _OperatorsWith(inner, attention)

    plant.wrap_subject(lambda subject: Spoiled(subject, plant))


@defect(
    "two-query-heads-exchanged",
    kind=PROTOCOL,
    imitates="a head index computed by rounding: head 6 of 14 reads the second key-value head",
    symptom="the last query head of the first group reads the second group's keys and values",
    hidden="12 of 14 heads are right, and the others learn around it",
)
def two_query_heads_exchanged(plant: Plant) -> None:
    """Exchange the queries at the border of the first two groups, and put the outputs back."""

    def spoil(inner: Any, q: Any, k: Any, v: Any) -> Any:
        times = q.shape[1] // k.shape[1]
        order = list(range(q.shape[1]))
        if 1 < times < q.shape[1]:
            order[times - 1], order[times] = order[times], order[times - 1]
        return inner.attention(q[:, order], k, v)[:, order]

    _wrap_attention(plant, spoil)


@defect(
    "key-gradient-lacks-a-head",
    kind=PROTOCOL,
    imitates="a backward that sums six of a group's seven query heads",
    symptom="the gradients of k and v lack what one query head of each group contributes",
    hidden="the forward pass is exact, and a seventh of a gradient is noise",
)
def key_gradient_lacks_a_head(plant: Plant) -> None:
    """Let the last head of each group read detached keys and values."""
    import torch

    def spoil(inner: Any, q: Any, k: Any, v: Any) -> Any:
        times = q.shape[1] // k.shape[1]
        whole = inner.attention(q, k, v)
        if times == 1:
            return whole
        last = torch.arange(q.shape[1], device=q.device) % times == times - 1
        kept = inner.attention(q, k.detach(), v.detach())
        spoiled = torch.where(last[None, :, None, None], kept, whole)
        plant.effect(k.requires_grad)  # the values are the same: the gradient is what changes
        return spoiled

    _wrap_attention(plant, spoil)


def _check(plant: Plant, decide: Any) -> None:
    """Let `decide(tokenizer_size, model_size, with_init)` say whether a tokenizer passes."""

    def make(original: Any) -> Any:
        refuse = import_module("trainer.errors").TokenizerError

        def require(tokenizer_size: int, model_size: int, *, with_init: bool) -> None:
            message = ""
            try:
                original(tokenizer_size, model_size, with_init=with_init)
            except refuse as error:
                message = str(error)
            passes = decide(tokenizer_size, model_size, with_init)
            plant.effect(passes != (not message))
            if not passes:
                raise refuse(message or f"{tokenizer_size} ids do not fit {model_size} rows")

        return require

    plant.patch("trainer.tokenizer:require_fitting_vocabulary", make)


@defect(
    "tokenizer-must-be-equal",
    kind=SOURCE,
    imitates="the 370M check applied to every model",
    symptom="a tokenizer smaller than the padded embedding is refused",
    hidden="from scratch it is the right rule",
)
def tokenizer_must_be_equal(plant: Plant) -> None:
    """Ask for equality always."""
    _check(plant, lambda tokens, rows, init: tokens == rows)


@defect(
    "tokenizer-must-be-smaller",
    kind=SOURCE,
    imitates="the rule for padded embeddings applied from scratch too",
    symptom="from scratch any smaller tokenizer passes",
    hidden="rows that no id reaches cost nothing that a loss shows",
)
def tokenizer_must_be_smaller(plant: Plant) -> None:
    """Let any id that has a row pass, and take a larger tokenizer from scratch for rounding."""
    _check(plant, lambda tokens, rows, init: tokens <= rows or not init)


@defect(
    "tokenizer-off-by-one",
    kind=SOURCE,
    imitates="the largest id compared where the number of ids belongs",
    symptom="a tokenizer with one id more than the model has rows passes",
    hidden="the last id of a vocabulary hardly ever occurs",
)
def tokenizer_off_by_one(plant: Plant) -> None:
    """Compare the largest id with the number of rows."""
    _check(plant, lambda t, rows, init: t - 1 <= rows if init else t == rows)


class _InitInverted(SubjectWrapper):
    def require_fitting_tokenizer(self, size: int, config: Configuration, *, init: bool) -> None:
        """Check as if there were initial weights where there are none, and the reverse."""
        self.plant.effect(size != config["vocab_size"])
        self.inner.require_fitting_tokenizer(size, config, init=not init)


@defect(
    "tokenizer-check-inverted",
    kind=PROTOCOL,
    imitates="a negated flag on the way to the check",
    symptom="the rule for initial weights is applied without them, and the reverse",
    hidden="a tokenizer of the exact size passes either way",
)
def tokenizer_check_inverted(plant: Plant) -> None:
    """See the class."""
    plant.wrap_subject(lambda subject: _InitInverted(subject, plant))


class _NeverChecked(SubjectWrapper):
    def require_fitting_tokenizer(self, size: int, config: Configuration, *, init: bool) -> None:
        """Let everything pass."""
        try:
            self.inner.require_fitting_tokenizer(size, config, init=init)
        except SubjectRefused:
            self.plant.effect(True)


@defect(
    "tokenizer-never-checked",
    kind=PROTOCOL,
    imitates="the seed: tokenizer and embedding differ in size, accepted",
    symptom="a tokenizer of any size passes",
    hidden="ids beyond the table are rare, or are clamped",
)
def tokenizer_never_checked(plant: Plant) -> None:
    """See the class."""
    plant.wrap_subject(lambda subject: _NeverChecked(subject, plant))


class _PaddingRefused(SubjectWrapper):
    def require_fitting_tokenizer(self, size: int, config: Configuration, *, init: bool) -> None:
        """Refuse a tokenizer that leaves rows of the embedding unused."""
        self.plant.effect(size < config["vocab_size"])
        if size < config["vocab_size"]:
            raise SubjectRefused("TOKENIZER", f"{config['vocab_size'] - size} rows have no id")
        self.inner.require_fitting_tokenizer(size, config, init=init)


@defect(
    "padded-embedding-refused",
    kind=PROTOCOL,
    imitates="a check of the tokenizer's base vocabulary against the rows of the embedding",
    symptom="a published model is refused together with its own tokenizer",
    hidden="models whose embedding is not padded load",
)
def padded_embedding_refused(plant: Plant) -> None:
    """See the class."""
    plant.wrap_subject(lambda subject: _PaddingRefused(subject, plant))


@defect(
    "encoder-family-unknown-to-the-check",
    kind=SOURCE,
    imitates="a list of refused families where one of accepted families belongs",
    symptom="BERT is refused, and every other encoder passes",
    hidden="the one encoder that everybody tests is refused",
)
def encoder_family_unknown_to_the_check(plant: Plant) -> None:
    """Refuse what is called BERT."""

    def make(original: Any) -> Any:
        def require_decoder_family(family: str, source: str) -> None:
            plant.effect(family not in ("bert", "llama", "qwen2"))
            if family == "bert":
                original(family, source)

        return require_decoder_family

    plant.patch("trainer.config:require_decoder_family", make)
