"""Does a third implementation, which shares no code with trainer or oracle, agree?"""

from __future__ import annotations

from falsifiers.fixtures import Assets, Case, Configuration, Measured, Subject

LEARNING_RATES = (1e-3, 3e-3, 2e-3, 1e-3, 5e-3, 3e-3, 1e-3, 2e-3, 3e-3, 1e-3)
"""They vary, so that a rate that is ignored, or taken one step late, shows. At ten times these, two
right runs part: what rounding does to the first update grows tenfold every few steps."""

_KEY_BIAS = "k_proj.bias"
"""Adding one vector to all keys changes softmax by RoPE alone, so that its gradient nearly cancels
and is mostly rounding error, which Adam makes as large as any other."""


def falsify_function_is_that_of_transformers(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration
) -> None:
    """The same weights on the same ragged batch: logits, loss and every gradient agree."""
    from falsifiers.errors import relative_error, worst_relative_error
    from falsifiers.inputs import distinct_ids, ragged_batch, roughen
    from falsifiers.transformers_peer import TransformersPeer

    instance = subject.build(configuration, device=case.device, dtype=case.dtype, seed=case.seed)
    roughen(instance, case.seed, case.roughness)
    peer = TransformersPeer(configuration, instance.parameters(), instance.device)
    batch = ragged_batch(configuration, case.batch, case.length, case.seed + 5)
    batch = batch.to(instance.device)
    tokens = batch.tokens[:, :-1]
    loss, gradients = instance.loss_and_gradients(batch)
    their_loss, their_gradients = peer.loss_and_gradients(batch)
    gradient_error, gradient_name = worst_relative_error(gradients, their_gradients)
    measured(
        logit_error=relative_error(instance.logits(tokens), peer.logits(tokens)),
        loss_error=abs(loss - their_loss) / their_loss,
        gradient_error=gradient_error,
        worst_gradient=gradient_name,
        distinct_tokens=distinct_ids(tokens),
    )


def falsify_training_is_that_of_transformers(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration
) -> None:
    """Ten clipped AdamW steps from the same weights: loss and norm of each, and where they end."""
    from falsifiers.errors import worst_relative_error
    from falsifiers.inputs import ragged_batch, roughen
    from falsifiers.transformers_peer import Optimization, TransformersPeer

    instance = subject.build(configuration, device=case.device, dtype=case.dtype, seed=case.seed)
    roughen(instance, case.seed, case.roughness)
    begin = {name: p.detach().clone() for name, p in instance.parameters().items()}
    peer = TransformersPeer(configuration, begin, instance.device)
    optimization = Optimization(
        peer, betas=(case.beta1, case.beta2), eps=case.eps, decay=case.decay, clip=case.clip
    )
    losses, norms, loss_errors, norm_errors = [], [], [], []
    for step, lr in enumerate(LEARNING_RATES):
        # Every other batch has few targets, so that norms differ by more than chance makes them.
        length = case.length if step % 2 == 0 else case.length // 8
        batch = ragged_batch(configuration, 4, length, 10 * case.seed + step)
        metrics = instance.train_step(batch.to(instance.device), lr=lr)
        loss, norm = optimization.step(batch.to(instance.device), lr)
        losses.append(loss)
        norms.append(norm)
        loss_errors.append(abs(metrics.train_loss - loss) / loss)
        norm_errors.append(abs(metrics.grad_norm - norm) / norm)
    errors = {}
    for keys in (False, True):
        ours, theirs = (
            {n: p - begin[n] for n, p in own.items() if n.endswith(_KEY_BIAS) == keys}
            for own in (instance.parameters(), peer.parameters())
        )
        errors[keys] = worst_relative_error(ours, theirs)
    measured(
        steps=len(losses),
        loss_error=max(loss_errors),
        norm_error=max(norm_errors),
        movement_error=errors[False][0],
        worst_movement=errors[False][1],
        key_bias_error=errors[True][0],
        smallest_norm=min(norms),
        largest_norm=max(norms),
    )


def falsify_real_gradients_are_those_of_transformers(
    subject: Subject, case: Case, measured: Measured, assets: Assets
) -> None:
    """Real weights, each side with its own loader: the loss and every gradient on real text."""
    from falsifiers.errors import worst_relative_error
    from falsifiers.inputs import distinct_ids
    from falsifiers.real_weights import oracle_weights
    from falsifiers.subject import Batch
    from falsifiers.tokens import read_tokens
    from falsifiers.transformers_peer import TransformersPeer

    path = assets(case.weights)
    instance = subject.build_pretrain(
        device=case.device,
        dtype=case.dtype,
        seed=0,
        init_arch=subject.read_architecture(path),
        init_path=path,
    )
    peer = TransformersPeer(*oracle_weights(path), instance.device)
    batch = Batch(read_tokens(path, case.text, case.length + 1)[None]).to(instance.device)
    loss, gradients = instance.loss_and_gradients(batch)
    their_loss, their_gradients = peer.loss_and_gradients(batch)
    gradient_error, gradient_name = worst_relative_error(gradients, their_gradients)
    measured(
        loss=loss,
        loss_error=abs(loss - their_loss) / their_loss,
        gradients=len(gradients),
        gradient_error=gradient_error,
        worst_gradient=gradient_name,
        distinct_tokens=distinct_ids(batch.tokens),
    )
