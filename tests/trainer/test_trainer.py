"""One optimizer step and an evaluation, against loops written out by hand."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from trainer import batch as batches_of_tokens
from trainer.batch import TokenBatch
from trainer.config import ModelConfig
from trainer.errors import ConfigurationError, NumericalInstability
from trainer.execution import Execution
from trainer.precision import ieee_float32
from trainer.trainer import PretrainTrainer

MakeTrainer = Callable[..., PretrainTrainer]
MakeBatch = Callable[..., TokenBatch]


def mean_loss(trainer: PretrainTrainer, batch: TokenBatch) -> torch.Tensor:
    """Mean loss from full logits, with gradient."""
    logits = trainer.model.logits(batch.tokens[:, :-1]).double()
    losses = F.cross_entropy(logits.flatten(0, 1), batch.tokens[:, 1:].flatten(), reduction="none")
    if batch.target_mask is None:
        return losses.mean()
    return losses[batch.target_mask.flatten()].mean()


def test_steps_equal_a_loop_written_by_hand(
    make_trainer: MakeTrainer, make_batch: MakeBatch, qwen2: ModelConfig
) -> None:
    """Six steps with clipping in force: loss, norm and weights follow AdamW written out by hand."""
    trainer, twin = make_trainer(qwen2), make_trainer(qwen2)
    first = {n: torch.zeros_like(p) for n, p in twin.model.named_parameters()}
    second = {n: torch.zeros_like(p) for n, p in twin.model.named_parameters()}
    norms = []
    for step in range(1, 7):
        batch, lr = make_batch(rows=1 + 60 * (step % 2), seed=step), 0.01 * step
        expected = mean_loss(twin, batch)
        twin.model.zero_grad()
        expected.backward()  # type: ignore[no-untyped-call]
        gradients = {n: p.grad for n, p in twin.model.named_parameters() if p.grad is not None}
        norm = math.sqrt(sum(g.double().square().sum().item() for g in gradients.values()))
        norms.append(norm)
        result = trainer.launch_step([batch], lr).result()
        assert result.loss == pytest.approx(expected.item(), rel=1e-5)
        assert result.grad_norm == pytest.approx(norm, rel=1e-4)
        with torch.no_grad():
            for name, parameter in twin.model.named_parameters():
                gradient = gradients[name] * min(1.0, 1.0 / norm)
                first[name] = 0.9 * first[name] + 0.1 * gradient
                second[name] = 0.95 * second[name] + 0.05 * gradient.square()
                parameter.mul_(1 - lr * (0.1 if parameter.ndim == 2 else 0.0))
                corrected = first[name] / (1 - 0.9**step)
                scale = (second[name] / (1 - 0.95**step)).sqrt() + 1e-8
                parameter.sub_(lr * corrected / scale)
    assert max(norms) > 1 > min(norms), "the claim needs steps with and without clipping"
    for name, parameter in trainer.model.named_parameters():
        # AdamW divides by the gradient's own size, so rounding of tiny gradients shows at 1e-4.
        torch.testing.assert_close(parameter, twin.model.get_parameter(name), rtol=1e-3, atol=2e-4)


def test_learning_rate_zero_moves_nothing(make_trainer: MakeTrainer, make_batch: MakeBatch) -> None:
    """lr = 0 is a rate, not an absent one."""
    trainer = make_trainer()
    before = trainer.model.head_weight.clone()
    trainer.train_batch(make_batch(), 0.0)
    assert torch.equal(trainer.model.head_weight, before)
    trainer.train_batch(make_batch())
    assert not torch.equal(trainer.model.head_weight, before)


def test_masked_targets_do_not_count(make_trainer: MakeTrainer, make_batch: MakeBatch) -> None:
    """Loss and gradients are the mean over the targets whose mask is True, and no others."""
    trainer = make_trainer()
    tokens = make_batch().tokens
    mask = torch.arange(24).view(2, 12) % 5 == 0
    batch = TokenBatch(tokens, mask)
    loss, gradients = trainer.loss_and_gradients(batch)
    expected = mean_loss(trainer, batch)
    expected.backward()  # type: ignore[no-untyped-call]
    assert loss == pytest.approx(expected.item(), rel=1e-6)
    for name, parameter in trainer.model.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-4, atol=1e-7)


def test_batch_without_a_target_is_refused(
    make_trainer: MakeTrainer, make_batch: MakeBatch
) -> None:
    """A mask that is all False is an error, not a loss of NaN."""
    batch = replace(make_batch(), target_mask=torch.zeros(2, 12, dtype=torch.bool))
    with pytest.raises(ConfigurationError, match="target_mask is all False"):
        make_trainer().train_batch(batch)


def test_loss_and_gradients_change_nothing(
    make_trainer: MakeTrainer, make_batch: MakeBatch
) -> None:
    """Asking twice gives the same answer, and a step afterwards is the step without asking."""
    asked, plain = make_trainer(), make_trainer()
    (loss, gradients), (again, same) = (asked.loss_and_gradients(make_batch()) for _ in range(2))
    assert loss == again
    assert all(torch.equal(gradients[name], same[name]) for name in gradients)
    assert asked.train_batch(make_batch()) == plain.train_batch(make_batch()) == loss
    assert torch.equal(asked.model.head_weight, plain.model.head_weight)


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
def test_instability_stops_before_any_weight_moves(
    make_trainer: MakeTrainer, make_batch: MakeBatch, poison: float
) -> None:
    """A poisoned gradient alone, the loss being fine, raises; weights and step stay, for good."""
    trainer = make_trainer()
    weight = trainer.model.model.norm.weight
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    handle = weight.register_hook(  # type: ignore[no-untyped-call]
        lambda gradient: torch.full_like(gradient, poison)
    )
    with pytest.raises(NumericalInstability, match="INV-TRAIN-007: step 0"):
        trainer.train_batch(make_batch())
    assert trainer.step == 0
    for name, parameter in trainer.model.named_parameters():
        assert torch.equal(parameter, before[name]), name
    handle.remove()
    with pytest.raises(NumericalInstability, match="a step before it was not finite"):
        trainer.train_batch(make_batch())


def everything(trainer: PretrainTrainer) -> list[torch.Tensor]:
    """Copies of all weights, moments and counts."""
    states = trainer.optimizer.state.values()
    tensors = [
        *trainer.model.parameters(),
        *(value for state in states for value in state.values()),
    ]
    return [tensor.detach().clone() for tensor in tensors]


def test_steps_launched_behind_a_poisoned_one_change_nothing(
    make_trainer: MakeTrainer, make_batch: MakeBatch
) -> None:
    """Weights, moments and counts stay, though the steps behind it are finite; reading says so."""
    trainer = make_trainer()
    trainer.train_batch(make_batch(seed=1))
    before = everything(trainer)
    handle = trainer.model.model.norm.weight.register_hook(  # type: ignore[no-untyped-call]
        lambda gradient: torch.full_like(gradient, math.nan)
    )
    poisoned = trainer.launch_step([make_batch(seed=2)])
    handle.remove()
    for seed in (3, 4):
        trainer.launch_step([make_batch(seed=seed)])
    assert all(map(torch.equal, everything(trainer), before))
    with pytest.raises(NumericalInstability, match="INV-TRAIN-007: step 1"):
        poisoned.result()
    assert trainer.step == 1, "the steps behind it were not taken either"


def test_a_pending_step_says_what_it_was_launched_with(
    make_trainer: MakeTrainer, make_batch: MakeBatch
) -> None:
    """Number, rate and targets are known before the result is, which can be read twice."""
    trainer = make_trainer()
    trainer.train_batch(make_batch())
    pending = trainer.launch_step([make_batch(), make_batch(rows=3)], 0.25)
    assert (pending.step, pending.lr, pending.targets) == (1, 0.25, 5 * 12)
    assert pending.result() == pending.result()


def test_micro_batches_are_one_batch(make_trainer: MakeTrainer, make_batch: MakeBatch) -> None:
    """Loss, norm and weights after three cycles of unequal masks follow those of the whole."""
    parts, whole = make_trainer(), make_trainer()
    for seed in range(3):
        batches = [
            replace(make_batch(seed=2 * seed + i), target_mask=torch.arange(24).view(2, 12) < limit)
            for i, limit in enumerate((24, 5))
        ]
        masks = [batch.target_mask for batch in batches if batch.target_mask is not None]
        joint = TokenBatch(torch.cat([b.tokens for b in batches]), torch.cat(masks))
        ours = parts.launch_step(batches, 0.01).result()
        expected = whole.launch_step([joint], 0.01).result()
        assert ours.loss == pytest.approx(expected.loss, rel=1e-6)
        assert ours.grad_norm == pytest.approx(expected.grad_norm, rel=1e-5)
    for name, parameter in whole.model.named_parameters():
        # AdamW divides by the gradient's own size, so rounding of tiny gradients shows at 1e-4.
        torch.testing.assert_close(parts.model.get_parameter(name), parameter, rtol=1e-3, atol=2e-4)


def test_no_gradient_is_left_after_a_step(make_trainer: MakeTrainer, make_batch: MakeBatch) -> None:
    """The next step starts from none, whatever the last one was made of."""
    trainer = make_trainer()
    trainer.launch_step([make_batch(), make_batch(seed=1)])
    assert all(parameter.grad is None for parameter in trainer.model.parameters())


def test_warming_up_changes_nothing(make_trainer: MakeTrainer, make_batch: MakeBatch) -> None:
    """It runs a whole step for its side effects on the device, and the next real step is step 0."""
    warm, plain = make_trainer(), make_trainer()
    before = everything(warm)
    warm.warm_up([make_batch(seed=5)])
    assert all(map(torch.equal, everything(warm), before))
    assert warm.train_batch(make_batch()) == plain.train_batch(make_batch())
    assert all(map(torch.equal, everything(warm), everything(plain)))


@pytest.fixture
def process_settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What deterministic execution sets for the whole process is put back."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    benchmark = torch.backends.cudnn.benchmark
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.benchmark = benchmark


@pytest.mark.usefixtures("process_settings")
def test_deterministic_execution_is_switched_on(llama: ModelConfig) -> None:
    """Deterministic algorithms, fixed workspaces and no autotuning are in force afterwards."""
    torch.backends.cudnn.benchmark = True
    PretrainTrainer(llama, "cpu", "float32", 7, 1e-3, Execution(deterministic=True))
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.is_deterministic_algorithms_warn_only_enabled()
    assert not torch.backends.cudnn.benchmark
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


@pytest.mark.usefixtures("process_settings")
def test_a_contrary_workspace_setting_is_refused(
    llama: ModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the user's, so it is neither overwritten nor ignored."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":0:0")
    with pytest.raises(ConfigurationError, match="CUBLAS_WORKSPACE_CONFIG is ':0:0'"):
        PretrainTrainer(llama, "cpu", "float32", 7, 1e-3, Execution(deterministic=True))


def test_evaluation_is_weighted_by_tokens(make_trainer: MakeTrainer, make_batch: MakeBatch) -> None:
    """Ragged batches: sum over sum, which differs from the mean of means."""
    trainer = make_trainer()
    batches = [make_batch(rows=1, length=3, seed=1), make_batch(rows=4, length=16, seed=2)]
    means = [mean_loss(trainer, batch).item() for batch in batches]
    weighted = (means[0] * 3 + means[1] * 64) / 67
    assert abs(weighted - sum(means) / 2) > 1e-4, "the batches must tell the two apart"
    assert trainer.evaluate(batches) == pytest.approx(weighted, rel=1e-6)


def test_evaluation_equals_training_loss_at_the_same_weights(
    make_trainer: MakeTrainer, make_batch: MakeBatch
) -> None:
    """The same batch and weights give the same loss, bit for bit up to one division."""
    trainer = make_trainer()
    evaluated = trainer.evaluate([make_batch()])
    assert trainer.train_batch(make_batch()) == pytest.approx(evaluated, rel=1e-7)


def test_evaluation_leaves_no_trace(make_trainer: MakeTrainer, make_batch: MakeBatch) -> None:
    """Mode, random state, gradients and weights are as before, in either mode."""
    trainer = make_trainer()
    parameter = trainer.model.model.norm.weight
    parameter.grad = torch.full_like(parameter, 5.0)
    before = trainer.model.head_weight.clone()
    state = torch.get_rng_state()
    for mode in (True, False):
        trainer.model.train(mode)
        trainer.evaluate([make_batch()])
        assert trainer.model.training is mode
    assert torch.equal(torch.get_rng_state(), state)
    assert parameter.grad is not None and (parameter.grad == 5.0).all()
    assert torch.equal(trainer.model.head_weight, before)


def test_evaluation_builds_no_graph(make_trainer: MakeTrainer, make_batch: MakeBatch) -> None:
    """Activations of an evaluation are not kept for a backward that never comes."""
    trainer = make_trainer()
    kept: list[bool] = []
    trainer.model.register_forward_hook(lambda *hooked: kept.append(hooked[2].requires_grad))
    trainer.eval_batch(make_batch())
    trainer.train_batch(make_batch())
    assert kept == [False, True]


def test_seed_decides_the_weights(make_trainer: MakeTrainer) -> None:
    """The trainer's seed reaches the initialisation."""
    first, again, other = (make_trainer(seed=seed).model.head_weight for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_empty_held_out_set_is_refused(make_trainer: MakeTrainer) -> None:
    """Nothing to score is an error, not NaN."""
    with pytest.raises(ConfigurationError, match="held-out set has no target"):
        make_trainer().evaluate([])


def test_bfloat16_training_learns_a_batch(make_trainer: MakeTrainer, make_batch: MakeBatch) -> None:
    """Twelve steps on one batch in bfloat16 compute halve the loss from about ln 64."""
    trainer, batch = make_trainer(dtype="bfloat16"), make_batch(rows=1)
    losses = [trainer.train_batch(batch, 2e-2) for _ in range(12)]
    assert losses[0] == pytest.approx(math.log(64), abs=0.2)
    assert losses[-1] < losses[0] / 2


def test_float32_means_ieee_float32_whatever_the_switches_say() -> None:
    """Inside the block both matmul switches say ieee; afterwards they are what they were."""
    cpu = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    switches = [torch.backends.cuda.matmul, cpu]
    before = [switch.fp32_precision for switch in switches]
    try:
        for switch in switches:
            switch.fp32_precision = "tf32"
        with ieee_float32():
            assert [switch.fp32_precision for switch in switches] == ["ieee", "ieee"]
        assert [switch.fp32_precision for switch in switches] == ["tf32", "tf32"]
    finally:
        for switch, value in zip(switches, before, strict=True):
            switch.fp32_precision = value


def test_forward_and_backward_run_in_ieee_float32(
    make_trainer: MakeTrainer, make_batch: MakeBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The switch is on while the model runs forward, backward, and for bare logits."""
    trainer = make_trainer()
    seen: list[str] = []

    def look(*_: object) -> None:
        seen.append(torch.backends.cuda.matmul.fp32_precision)

    trainer.model.model.norm.register_forward_hook(look)
    trainer.model.model.norm.weight.register_hook(look)  # type: ignore[no-untyped-call]
    trainer.train_batch(make_batch())
    trainer.logits(torch.zeros(1, 2, dtype=torch.int64))
    assert seen == ["ieee"] * 3


def test_training_and_evaluation_shift_through_one_function(
    make_trainer: MakeTrainer, make_batch: MakeBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Targets come from `batch.shift` in both, so that one test of it covers both."""
    calls: list[int] = []
    original = batches_of_tokens.shift

    def counted(tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        calls.append(1)
        return original(tokens)

    monkeypatch.setattr(batches_of_tokens, "shift", counted)
    trainer = make_trainer()
    trainer.train_batch(make_batch())
    trainer.eval_batch(make_batch())
    assert len(calls) == 2


def test_unknown_compute_dtype_is_refused(make_trainer: MakeTrainer, llama: ModelConfig) -> None:
    """float16 would need loss scaling, which is not here."""
    with pytest.raises(ConfigurationError, match="compute dtype 'float16'"):
        make_trainer(llama, "float16")
