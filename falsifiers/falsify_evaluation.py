"""Does evaluation measure the model, the whole model and nothing but the model?"""

from __future__ import annotations

from falsifiers.fixtures import Case, Configuration, Measured, Subject


def falsify_eval_batch_h1_sanity_bound(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration
) -> None:
    """A fresh model's loss on uniform random tokens is close to ln V + σ²/2, and the oracle's."""
    from falsifiers.inputs import random_batch
    from falsifiers.reference.loss import mean_loss
    from falsifiers.reference.model import logits

    instance = subject.build(configuration, device=case.device, dtype=case.dtype, seed=case.seed)
    batch = random_batch(configuration, case.batch, case.length, case.seed + 100)
    loss = instance.evaluate([batch])
    weights = instance.parameters()
    tokens = batch.tokens.to(instance.device)
    sample = logits(weights, configuration, tokens[:1, :-1])
    measured(
        loss=loss,
        targets=case.batch * case.length,
        logit_variance=sample.var(dim=-1).mean().item(),
        oracle_loss=mean_loss(weights, configuration, tokens).item(),
    )


def falsify_eval_on_constructed_logits(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration
) -> None:
    """With the final norm at zero all logits are zero, and the loss is ln V exactly."""
    import torch

    from falsifiers.inputs import ragged_batch

    instance = subject.build(configuration, device=case.device, dtype=case.dtype, seed=case.seed)
    name = "model.norm.weight"
    instance.set_parameters({name: torch.zeros_like(instance.parameters()[name])})
    measured(loss=instance.evaluate([ragged_batch(configuration, 3, 16, case.seed)]))


def falsify_eval_adds_many_batches(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration
) -> None:
    """The mean over hundreds of batches of equal loss, ln V, is that loss."""
    import torch

    from falsifiers.inputs import random_batch

    config = {**configuration, "num_layers": 1}
    instance = subject.build(config, device=case.device, dtype=case.dtype, seed=case.seed)
    name = "model.norm.weight"
    instance.set_parameters({name: torch.zeros_like(instance.parameters()[name])})
    batches = [random_batch(config, 1, case.length, case.seed)] * case.batches
    measured(loss=instance.evaluate(batches), one_batch=instance.evaluate(batches[:1]))


def falsify_eval_batch_h1_train_pollution(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration
) -> None:
    """A training step on another batch changes evaluation by what it did to the weights only."""
    from falsifiers.inputs import random_batch, roughen
    from falsifiers.reference.loss import mean_loss

    instance = subject.build(configuration, device=case.device, dtype=case.dtype, seed=case.seed)
    roughen(instance, case.seed)
    train = random_batch(configuration, 4, 16, case.seed + 1)
    held_out = random_batch(configuration, 4, 16, case.seed + 2)
    before = instance.evaluate([held_out])
    instance.train_step(train, lr=case.lr)
    after = instance.evaluate([held_out])
    tokens = held_out.tokens.to(instance.device)
    measured(
        loss_before=before,
        loss_after=after,
        oracle_loss_after=mean_loss(instance.parameters(), configuration, tokens).item(),
    )


def falsify_eval_equals_training_loss(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration
) -> None:
    """On the same batch and weights, evaluation and training report the oracle's loss."""
    from falsifiers.inputs import ragged_batch, roughen
    from falsifiers.reference.loss import mean_loss

    instance = subject.build(configuration, device=case.device, dtype=case.dtype, seed=case.seed)
    roughen(instance, case.seed)
    batch = ragged_batch(configuration, 4, 24, case.seed)
    training_loss, _ = instance.loss_and_gradients(batch)
    there = batch.to(instance.device)
    oracle = mean_loss(instance.parameters(), configuration, there.tokens, there.target_mask)
    measured(
        eval_loss=instance.evaluate([batch]),
        training_loss=training_loss,
        oracle_loss=oracle.item(),
    )


def falsify_eval_weighs_tokens(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration
) -> None:
    """Over batches of unequal size every target token weighs the same."""
    from falsifiers.inputs import ragged_batch, roughen
    from falsifiers.reference.loss import mean_loss

    instance = subject.build(configuration, device=case.device, dtype=case.dtype, seed=case.seed)
    roughen(instance, case.seed, 1.0)
    shapes = ((1, 3), (2, 9), (12, 9), (4, 6), (3, 30))
    batches = [ragged_batch(configuration, b, n, case.seed + b) for b, n in shapes]
    total, count = 0.0, 0
    for batch in batches:
        targets = batch.targets
        weights = {n: p.cpu() for n, p in instance.parameters().items()}
        mean = mean_loss(weights, configuration, batch.tokens, batch.target_mask)
        total, count = total + mean.item() * targets, count + targets
    measured(eval_loss=instance.evaluate(batches), oracle_loss=total / count)


def falsify_eval_leaves_no_trace(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration
) -> None:
    """Evaluation leaves random state, mode, weights and gradients as they were."""
    import torch

    from falsifiers.errors import worst_relative_error
    from falsifiers.inputs import random_batch, roughen

    instance = subject.build(configuration, device=case.device, dtype=case.dtype, seed=case.seed)
    roughen(instance, case.seed)
    train = random_batch(configuration, 2, 16, case.seed + 1)
    instance.train_step(train, lr=1e-3)
    loss, gradients = instance.loss_and_gradients(train)
    weights = {n: p.clone() for n, p in instance.parameters().items()}
    mode, state = instance.training(), _random_state()
    instance.evaluate([random_batch(configuration, 2, 16, case.seed + 2)])
    rng_moved = _random_state() != state
    moved = [n for n, p in instance.parameters().items() if not torch.equal(p, weights[n])]
    mode_changed = instance.training() != mode
    again, gradients_again = instance.loss_and_gradients(train)
    gradient_change, _ = worst_relative_error(gradients_again, gradients)
    measured(
        rng_moved=rng_moved,
        mode_changed=mode_changed,
        weights_moved=len(moved),
        loss_change=abs(again - loss),
        gradient_change=gradient_change,
    )


def _random_state() -> tuple[object, ...]:
    """The global generators that a loader or a shuffle may draw from, each as it stands."""
    import random

    import numpy
    import torch

    _, key, *rest = numpy.random.get_state()
    ours = torch.get_rng_state().numpy().tobytes()
    return ours, random.getstate(), numpy.asarray(key).tobytes(), *rest
