"""transformers' common tests of a model, with the trainer's model in the model's place.

Inputs and sizes are those of its causal language model tester: 13 sequences of 7 ids, 32 columns,
2 layers, a vocabulary of 99; the gate is SiLU, which the trainer has, and not that tester's GELU.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.compared import upstream
from benchmarks.compared.comparing import Red, equal, torch_close
from benchmarks.compared.models import Reference, configuration, trainer_with
from benchmarks.compared.seed import OFFSET
from falsifiers.adapters.bundled import BundledSubject
from falsifiers.subject import Batch, Configuration, Subject
from falsifiers.subject_parts import Provenance

ARCHITECTURES = ("llama", "qwen2")
_PROVENANCE = Provenance(dataset_sha256="c0" * 32, accumulation=1)
_PROMPT = (1, 306, 4658, 278, 6593, 310, 2834, 338)


def _tester(architecture: str, **fields: object) -> Configuration:
    sizes = {"num_heads": 2, "num_kv_heads": 2, "head_dim": 16, "intermediate_size": 37}
    return configuration(architecture, **{**sizes, "vocab_size": 99, **fields})


def _ids(config: Configuration, batch: int = 13, length: int = 7) -> Tensor:
    generator = torch.Generator().manual_seed(5 + OFFSET)
    return torch.randint(config["vocab_size"], (batch, length), generator=generator)


def _without_head(weights: dict[str, Tensor], columns: int) -> dict[str, Tensor]:
    """A head whose first logits are the hidden states themselves."""
    head = torch.zeros_like(weights["lm_head.weight"])
    head[:columns] = torch.eye(columns)
    return {**weights, "lm_head.weight": head}


@cache
def _eager(architecture: str, dtype: str) -> tuple[Configuration, dict[str, Tensor], Tensor]:
    config = _tester(
        architecture,
        num_layers=1,
        rms_norm_eps=upstream.EAGER_SDPA_EPS.value,
        tie_word_embeddings=False,
    )
    reference = Reference(config, dtype=dtype, attention="eager")
    weights = _without_head(reference.weights(), config["hidden_size"])
    reference.model.load_state_dict(weights)
    with torch.no_grad():
        return config, weights, reference.logits(_ids(config, 7))


def matches_eager(subject: Subject, _: Path, *, architecture: str, dtype: str) -> None:
    """Last hidden states are eager attention's in 80 % of the sequences."""
    config, weights, expected = _eager(architecture, dtype)
    instance = trainer_with(subject, config, weights, dtype=dtype)
    columns, limits = config["hidden_size"], upstream.EAGER_SDPA[dtype]
    ours = instance.logits(_ids(config, 7))[..., :columns].float()
    theirs = expected[..., :columns].float()
    close = [
        torch.allclose(a, b, atol=limits.atol, rtol=limits.rtol)
        for a, b in zip(ours, theirs, strict=True)
    ]
    if sum(close) / len(close) < upstream.EAGER_SDPA_ROWS.value:
        raise Red(f"hidden states agree in {sum(close)} of {len(close)} sequences")


@cache
def _like_trained(architecture: str) -> tuple[Configuration, dict[str, Tensor], Tensor]:
    """Weights whose logits and attention are as pronounced as a trained model's, and its logits."""
    config = configuration(architecture, vocab_size=7001, tie_word_embeddings=False)
    reference = Reference(config, deviation=0.25)
    generator = torch.Generator().manual_seed(9 + OFFSET)
    weights = {
        name: w + 0.1 * torch.randn(w.shape, generator=generator) if w.ndim == 1 else w
        for name, w in reference.weights().items()
    }
    weights["lm_head.weight"] *= 2.4
    reference.model.load_state_dict(weights)
    with torch.no_grad():
        return config, weights, reference.logits(torch.tensor([_PROMPT]))


def golden_logits(subject: Subject, _: Path, *, architecture: str) -> None:
    """Logits of eight tokens: their means, and the first thirty of the first position."""
    config, weights, expected = _like_trained(architecture)
    ours = trainer_with(subject, config, weights).logits(torch.tensor([_PROMPT]))
    torch_close("means of logits", ours.mean(-1), expected.mean(-1), upstream.LOGITS_MEAN)
    first = ours[0, 0, :30], expected[0, 0, :30]
    torch_close("first logits", *first, upstream.LOGITS_SLICE)


@cache
def _recorded_bfloat16(architecture: str) -> Tensor:
    """Logits recorded from the trainer while it was known to be good, as golden values are."""
    config, weights, _ = _like_trained(architecture)
    instance = trainer_with(BundledSubject(), config, weights, dtype="bfloat16")
    return instance.logits(torch.tensor([_PROMPT])).float()


def record_golden_values() -> None:
    """Record what is recorded from the trainer itself; no defect may be planted."""
    for architecture in ARCHITECTURES:
        _recorded_bfloat16(architecture)


def golden_logits_in_bfloat16(subject: Subject, _: Path, *, architecture: str) -> None:
    """The same in bfloat16, against recorded values."""
    config, weights, _logits = _like_trained(architecture)
    expected = _recorded_bfloat16(architecture)
    instance = trainer_with(subject, config, weights, dtype="bfloat16")
    ours = instance.logits(torch.tensor([_PROMPT])).float()
    limits = upstream.LOGITS_BFLOAT16
    torch_close("means of logits", ours.mean(-1), expected.mean(-1), limits)
    torch_close("first logits", ours[0, 0, :15], expected[0, 0, :15], limits)


@cache
def _continuation(architecture: str) -> list[int]:
    config, weights, _ = _like_trained(architecture)
    reference = Reference(config)
    reference.model.load_state_dict(weights)
    made = reference.model.generate(
        torch.tensor([_PROMPT]),
        max_new_tokens=int(upstream.GENERATED_TOKENS.value),
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )
    return [int(token) for token in made[0, len(_PROMPT) :]]


def generates_alike(subject: Subject, _: Path, *, architecture: str) -> None:
    """Twenty greedy tokens are the expected ones."""
    config, weights, _logits = _like_trained(architecture)
    expected = _continuation(architecture)
    made = trainer_with(subject, config, weights).generate(_PROMPT, len(expected))
    equal("generated tokens", list(made.ids), expected)


@cache
def _fresh(architecture: str) -> tuple[Configuration, dict[str, Tensor]]:
    config = _tester(architecture)
    return config, Reference(config).weights()


def batching_changes_nothing(subject: Subject, _: Path, *, architecture: str) -> None:
    """The first sequence alone has the logits that it has in a batch; twice the same."""
    config, weights = _fresh(architecture)
    instance = trainer_with(subject, config, weights)
    ids = _ids(config)
    together, alone = instance.logits(ids), instance.logits(ids[:1])
    torch_close("logits of a batch and of a row", together[:1], alone, upstream.BATCHING)
    largest = (instance.logits(ids) - together).abs().max().item()
    if not largest <= upstream.DETERMINISM.value:
        raise Red(f"logits of two calls differ by {largest:.3g}")


def survives_saving(subject: Subject, folder: Path, *, architecture: str) -> None:
    """Saved and loaded into another model, the logits are the same."""
    config, weights = _fresh(architecture)
    instance = trainer_with(subject, config, weights)
    first = instance.logits(_ids(config))
    instance.save_checkpoint(folder / f"{architecture}.apr", _PROVENANCE)
    other = subject.build(config, device="cpu", dtype="float32", seed=1)
    other.load_checkpoint(folder / f"{architecture}.apr", _PROVENANCE)
    largest = (other.logits(_ids(config)) - first).abs().max().item()
    if not largest <= upstream.SAVE_LOAD.value:
        raise Red(f"logits after loading differ by {largest:.3g}")


def every_parameter_has_a_gradient(subject: Subject, _: Path, *, architecture: str) -> None:
    """After one backward no parameter is without a gradient."""
    config, weights = _fresh(architecture)
    instance = trainer_with(subject, config, weights)
    _loss, gradients = instance.loss_and_gradients(Batch(_ids(config)))
    equal("parameters without a gradient", sorted(weights.keys() - gradients.keys()), [])


def overfits(subject: Subject, _: Path) -> None:
    """300 steps on one repeated pattern: loss and norm fall by 90 %, and it is recited."""
    config, weights = _fresh("llama")
    instance = trainer_with(subject, config, weights)
    pattern = [1 + i % 19 for i in range(64)]
    batch = Batch(torch.tensor([pattern] * 2))
    steps, lr = int(upstream.OVERFIT_STEPS.value), upstream.OVERFIT_LR.value
    metrics = [instance.train_step(batch, lr=lr) for _ in range(steps)]
    for what, first, last in (
        ("loss", metrics[0].train_loss, metrics[-1].train_loss),
        ("gradient norm", metrics[0].grad_norm, metrics[-1].grad_norm),
    ):
        if not (first - last) / first > upstream.OVERFIT_REDUCTION.value:
            raise Red(f"{what} from {first:.4g} to {last:.4g} only")
    made = instance.generate(pattern[:1], len(pattern) - 1)
    equal("recited pattern", list(made.ids), pattern[1:])


_BY_ARCHITECTURE = {
    "golden logits": golden_logits,
    "batching equivalence": batching_changes_nothing,
    "save and load": survives_saving,
    "gradients": every_parameter_has_a_gradient,
    "generation": generates_alike,
    "golden logits bfloat16": golden_logits_in_bfloat16,
}
TESTS: dict[str, Callable[[Subject, Path], None]] = {
    **{
        f"eager and SDPA {architecture} {dtype}": partial(
            matches_eager, architecture=architecture, dtype=dtype
        )
        for architecture in ARCHITECTURES
        for dtype in upstream.EAGER_SDPA
    },
    **{
        f"{name} {architecture}": partial(test, architecture=architecture)
        for name, test in _BY_ARCHITECTURE.items()
        for architecture in ARCHITECTURES
    },
    "overfit llama": overfits,
}
