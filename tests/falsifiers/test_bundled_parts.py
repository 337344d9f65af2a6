"""The parts of the bundled trainer that a falsifier can try by themselves."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from falsifiers.adapters.bundled import BundledSubject
from falsifiers.inputs import random_batch
from falsifiers.reference import operators as oracle
from falsifiers.reference import schedule
from falsifiers.subject import Execution, NotSupported, SubjectRefused
from falsifiers.subject_parts import Provenance, Sampling
from falsifiers.tiny_runs import dataset

HERE = Provenance(dataset_sha256="d" * 64, accumulation=3)
WIDE = torch.float64


def _tensors(*shapes: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(shape, generator=generator, requires_grad=True) for shape in shapes]


def _agree(ours: Callable[..., Any], oracles: Callable[..., Any], inputs: list[Tensor]) -> bool:
    """Values, and the gradient of each input under a random direction, to float32 rounding."""
    pairs = []
    for function, dtype in ((ours, torch.float32), (oracles, WIDE)):
        given = [x.detach().to(dtype).requires_grad_() for x in inputs]
        outputs = function(*given)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        generator = torch.Generator().manual_seed(4)
        total = sum((y * torch.randn(y.shape, generator=generator)).sum() for y in outputs)
        pairs.append([*outputs, *torch.autograd.grad(total, given)])
    return all(
        torch.allclose(a.to(WIDE), b, atol=1e-5, rtol=1e-4) for a, b in zip(*pairs, strict=True)
    )


def test_operators_are_the_models_own_and_differentiable(subject: BundledSubject) -> None:
    """Each agrees with the oracle, forward and backward, so each can be tried by itself."""
    own = subject.operators()
    heads = _tensors((2, 4, 9, 8), (2, 2, 9, 8), (2, 2, 9, 8))
    targets, weights = torch.tensor([0, 6, 3, 3, 1]), torch.tensor([1.0, 0.0, 2.0, 1.0, 0.5])

    def entropy(hidden: Tensor, head: Tensor) -> Tensor:
        losses = oracle.token_losses(hidden @ head.T, targets)
        return (losses * weights).sum()

    assert _agree(
        lambda x, w: own.rmsnorm(x, w, eps=1e-5),
        lambda x, w: oracle.rmsnorm(x, w, 1e-5),
        _tensors((3, 5, 16), (16,)),
    )
    assert _agree(
        lambda q, k: own.rope(q, k, theta=1e4), lambda q, k: oracle.rope(q, k, 1e4), heads[:2]
    )
    assert _agree(own.swiglu, oracle.swiglu, _tensors((3, 7), (3, 7)))
    assert _agree(own.attention, oracle.attention, heads)
    assert _agree(
        lambda h, w: own.linear_cross_entropy(h, w, targets, weights),
        entropy,
        _tensors((5, 8), (7, 8)),
    )


def test_fast_operators_say_that_they_are_for_cuda(subject: BundledSubject) -> None:
    """On a CPU compiled layers call the eager ones; pretending otherwise would test them twice."""
    own = subject.operators(Execution(compiled=True))
    with pytest.raises(NotSupported, match="CUDA only"):
        own.swiglu(*_tensors((2, 4), (2, 4)))


def test_a_saved_state_comes_back_whole(
    subject: BundledSubject, llama: dict[str, Any], tmp_path: Path
) -> None:
    """Weights, both moments, the step and the place in the data; the next step is the same."""
    made = [
        subject.build(llama, device="cpu", dtype="float32", seed=seed, lr=0.01) for seed in (0, 1)
    ]
    batch = random_batch(llama, 2, 16, 0)
    for _ in range(2):
        made[0].train_step(batch)
    assert {m.step for m in made[0].optimizer_state().values()} == {2}
    assert not any(m.exp_avg.any() for m in made[1].optimizer_state().values())
    made[0].save_checkpoint(tmp_path / "a.apr", HERE)
    assert made[1].load_checkpoint(tmp_path / "a.apr", HERE) == 6
    assert made[0].train_step(batch).train_loss == made[1].train_step(batch).train_loss
    for name, value in made[0].parameters().items():
        moments = [instance.optimizer_state()[name] for instance in made]
        assert torch.equal(value, made[1].parameters()[name])
        assert torch.equal(moments[0].exp_avg_sq, moments[1].exp_avg_sq)
        assert moments[0].step == moments[1].step == 3


def test_another_dataset_is_refused(
    subject: BundledSubject, llama: dict[str, Any], tmp_path: Path
) -> None:
    """What a checkpoint was trained on belongs to it."""
    instance = subject.build(llama, device="cpu", dtype="float32", seed=0)
    instance.save_checkpoint(tmp_path / "a.apr", HERE)
    other = Provenance(dataset_sha256="e" * 64, accumulation=3)
    with pytest.raises(SubjectRefused, match="F-CKPT-006"):
        instance.load_checkpoint(tmp_path / "a.apr", other)


def test_generation_continues_with_the_likeliest(
    subject: BundledSubject, llama: dict[str, Any]
) -> None:
    """Each token is the greatest logit after all those before it."""
    instance = subject.build(llama, device="cpu", dtype="float32", seed=0)
    made = instance.generate([5, 9, 2], 4)
    ids = [5, 9, 2]
    for token in made.ids:
        assert token == int(instance.logits(torch.tensor([ids]))[0, -1].argmax())
        ids.append(token)
    assert len(made.ids) == 4
    assert made.tokens_per_sec is not None and made.tokens_per_sec > 0


def test_the_schedule_is_the_trainers(subject: BundledSubject) -> None:
    """It is the closed form where the trainer's is, and an impossible warm-up is refused."""
    for step in range(12):
        ours = subject.learning_rate(step, peak=3e-4, warm_up=4, total=12)
        expected = schedule.learning_rate(
            step, lr_max=3e-4, lr_min=0.0, warmup_steps=4, total_steps=12
        )
        assert ours == pytest.approx(expected, rel=1e-12)
    with pytest.raises(SubjectRefused, match="warm-up"):
        subject.learning_rate(0, peak=3e-4, warm_up=13, total=12)


def test_batches_start_where_they_are_asked_to(subject: BundledSubject) -> None:
    """The steps from the third on are the same whether the first two were read or not."""
    folder = dataset(subject, "few")
    shape: dict[str, Any] = {
        "length": 16, "micro_batch": 2, "accumulation": 2, "seed": 5, "cycle": True,
    }  # fmt: skip
    read = list(itertools.islice(subject.training_batches(folder, **shape), 4))
    later = list(itertools.islice(subject.training_batches(folder, **shape, first_step=2), 2))
    assert [len(step) for step in read] == [2] * 4
    for expected, found in zip(read[2:], later, strict=True):
        assert all(torch.equal(a.tokens, b.tokens) for a, b in zip(expected, found, strict=True))
    assert not torch.equal(read[0][0].tokens, read[2][0].tokens)
    held_out = subject.heldout_batches(folder, length=16, batch=4)
    assert sum(batch.targets for batch in held_out) > 0


def test_a_missing_dataset_is_refused(subject: BundledSubject, tmp_path: Path) -> None:
    """As the trainer's own error, not as an exception of Python's."""
    with pytest.raises(SubjectRefused):
        next(subject.training_batches(tmp_path, length=8, micro_batch=1, accumulation=1, seed=0))


def test_tokenizers_are_read_and_held_against_the_model(
    subject: BundledSubject, llama: dict[str, Any], tmp_path: Path
) -> None:
    """Without initial weights the sizes must be equal, with them the tokenizer may be smaller."""
    size = llama["vocab_size"]
    subject.require_fitting_tokenizer(size, llama, init=False)
    subject.require_fitting_tokenizer(size - 1, llama, init=True)
    for wrong, init in ((size - 1, False), (size + 1, False), (size + 1, True)):
        with pytest.raises(SubjectRefused, match=str(wrong)):
            subject.require_fitting_tokenizer(wrong, llama, init=init)
    with pytest.raises(SubjectRefused, match="no such file"):
        subject.tokenizer(tmp_path / "none.json")


def test_several_processes_run_under_torchrun(subject: BundledSubject) -> None:
    """One rank each, and the command itself as it is for one process."""
    one, two = subject.command("devices"), subject.command("devices", processes=2)
    assert two[-len(one[1:]) :] == one[1:]
    assert "torch.distributed.run" in two and two[two.index("--nproc-per-node") + 1] == "2"


def test_a_held_out_set_is_dealt_out_as_it_comes(subject: BundledSubject, loaded: Any) -> None:
    """Batch by batch or known in advance: places 1 and 3 of three, and one that counts nothing."""
    config = loaded.configurations["tiny-llama"]
    batches = [random_batch(config, 1, 4, seed) for seed in range(3)]
    for given in (lambda: batches, lambda: iter(batches)):
        first, second = (
            subject.share_of_heldout(given(), rank=rank, world_size=2) for rank in range(2)
        )
        assert [batch.targets for batch in (*first, *second)] == [4, 4, 4, 0]
        assert torch.equal(first[1].tokens, batches[2].tokens)


def test_held_out_losses_decide_as_in_a_session(subject: BundledSubject) -> None:
    """Each ending by its own status, the worst one first."""

    def status(*losses: float, mode: str = "finetune") -> str:
        return subject.status_after_epoch(losses, mode=mode, vocab_size=1000)

    assert [status(3.0), status(3.0, 2.0), status(3.0, 6.1)] == ["OK", "OK", "DIVERGENCE"]
    assert [status(13.0), status(13.0, mode="from-scratch")] == ["DIVERGENCE", "OK"]
    assert status(3.0, 2.0, 2.1, 2.2) == "EARLY_STOP"
    assert status(3.0, float("nan")) == "NUMERICAL_INSTABILITY"


def test_a_draw_goes_by_what_was_asked_for(subject: BundledSubject, loaded: Any) -> None:
    """None decodes greedily; temperature, k and seed reach the trainer."""
    config = loaded.configurations["tiny-llama"]
    instance = subject.build(config, device="cpu", dtype="float32", seed=0)
    greedy = instance.generate([1, 2], 8).ids
    assert instance.generate([1, 2], 8, Sampling(2.0, top_k=1)).ids == greedy
    texts = {tuple(instance.generate([1, 2], 8, Sampling(2.0, seed=seed)).ids) for seed in range(3)}
    assert len(texts) == 3 and tuple(greedy) not in texts
