"""Does the fast path compute the same function as the float64 oracle?"""

from __future__ import annotations

from falsifiers.fixtures import Assets, Case, Configuration, Measured, Series, Subject


def falsify_float32_matches_float64(
    subject: Subject, case: Case, measured: Measured, series: Series, configuration: Configuration
) -> None:
    """In float32 with TF32 off, logits and every gradient are within ten times clean noise."""
    from torch.nn.functional import cosine_similarity

    from falsifiers.by_depth import DEPTH, by_depth
    from falsifiers.errors import relative_error, relative_errors, worst_of
    from falsifiers.inputs import distinct_ids, ragged_batch, roughen
    from falsifiers.reference.gradients import loss_and_gradients
    from falsifiers.reference.model import logits

    instance = subject.build(configuration, device=case.device, dtype="float32", seed=case.seed)
    roughen(instance, case.seed, case.roughness)
    batch = ragged_batch(configuration, case.batch, case.length, case.seed + 5)
    on_device = batch.to(instance.device)
    tokens = on_device.tokens[:, :-1]
    weights = {n: p.detach().clone() for n, p in instance.parameters().items()}
    ours, exact = instance.logits(tokens), logits(weights, configuration, tokens)
    loss, gradients = instance.loss_and_gradients(batch)
    exact_loss, exact_gradients = loss_and_gradients(
        weights, configuration, on_device.tokens, on_device.target_mask
    )
    errors = relative_errors(gradients, exact_gradients)
    gradient_error, gradient_name = worst_of(errors.items())
    points = by_depth(errors.items(), configuration["num_layers"])
    error = "largest relative error of a parameter's gradient"
    series("gradients", points, x=DEPTH, y=error, claim="gradients")
    measured(
        logit_error=relative_error(ours, exact),
        gradient_error=gradient_error,
        worst_gradient=gradient_name,
        loss_error=abs(loss - exact_loss) / exact_loss,
        cosine_distance=1 - cosine_similarity(ours.double(), exact, dim=-1).min().item(),
        distinct_tokens=distinct_ids(tokens),
    )


def falsify_operators_match_float64(
    subject: Subject, case: Case, measured: Measured, series: Series, configuration: Configuration
) -> None:
    """On the inputs it was given, no operator errs more than twice plain eager torch."""
    from falsifiers.by_depth import DEPTH, by_depth
    from falsifiers.inputs import ragged_batch, roughen
    from falsifiers.operator_parity import compare_trace, trace_dtypes

    instance = subject.build(configuration, device=case.device, dtype=case.dtype, seed=case.seed)
    roughen(instance, case.seed, case.roughness)
    batch = ragged_batch(configuration, case.batch, case.length, case.seed + 5)
    records = instance.trace(batch)
    verdict = compare_trace(records, case.dtype)
    for claim, ratios in (
        ("forward", verdict.forward),
        ("gain", verdict.gain),
        ("backward", verdict.backward),
        ("attention-backward", verdict.attention_backward),
    ):
        points = by_depth(ratios.named, configuration["num_layers"])
        series(claim, points, x=DEPTH, y="largest error ÷ plain torch's", claim=claim)
    measured(
        operators=verdict.operators,
        backward_operators=verdict.backward_operators,
        forward_ratio=verdict.forward.ratio,
        backward_ratio=verdict.backward.ratio,
        attention_backward_ratio=verdict.attention_backward.ratio,
        gain_ratio=verdict.gain.ratio,
        forward_worst=verdict.forward.name,
        backward_worst=verdict.backward.name,
        attention_backward_worst=verdict.attention_backward.name,
        gain_worst=verdict.gain.name,
        trace_dtypes=trace_dtypes(records),
    )


def falsify_batch_is_the_mean_of_its_sequences(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration
) -> None:
    """Loss and gradients of a batch are the target-weighted mean over its sequences alone."""
    import torch
    from hypothesis import strategies as st

    from falsifiers.drawn_inputs import examples, integers
    from falsifiers.errors import worst_relative_error
    from falsifiers.inputs import random_tokens, roughen
    from falsifiers.subject import Batch

    instance = subject.build(configuration, device=case.device, dtype=case.dtype, seed=case.seed)
    roughen(instance, case.seed, case.roughness)
    others = st.lists(integers(1, case.length), min_size=case.batch - 2, max_size=case.batch - 2)
    (drawn,) = examples(others, 1, case.seed)
    targets = [1, *drawn, case.length]  # the last sequence is whole, so that its last chunk counts
    tokens = random_tokens(configuration, case.batch, case.length + 1, case.seed + 5)
    masks = torch.arange(case.length)[None, :] < torch.tensor(targets)[:, None]
    batch = Batch(tokens, masks)
    loss, gradients = instance.loss_and_gradients(batch)
    mean_loss = 0.0
    means = {n: torch.zeros_like(g, dtype=torch.float64) for n, g in gradients.items()}
    for tokens, mask in zip(batch.tokens, masks, strict=True):
        alone = Batch(tokens[None], mask[None])
        share = alone.targets / batch.targets
        its_loss, its_gradients = instance.loss_and_gradients(alone)
        mean_loss += share * its_loss
        for name, gradient in its_gradients.items():
            means[name] += share * gradient
    gradient_error, gradient_name = worst_relative_error(gradients, means)
    measured(
        rows=masks.numel(),
        loss_error=abs(loss - mean_loss) / mean_loss,
        gradient_error=gradient_error,
        worst_gradient=gradient_name,
        targets=",".join(map(str, targets)),
    )


def falsify_real_weights_loss(
    subject: Subject, case: Case, measured: Measured, assets: Assets
) -> None:
    """Real weights on real text give the recorded loss; shuffled, a far worse one."""
    from falsifiers.inputs import distinct_ids
    from falsifiers.subject import Batch
    from falsifiers.tokens import read_tokens, shuffled

    path = assets(case.weights)
    tokens = read_tokens(path, case.text, case.targets + 1)
    instance = subject.build_pretrain(
        device=case.device,
        dtype=case.dtype,
        seed=0,
        init_arch=subject.read_architecture(path),
        init_path=path,
    )
    measured(
        loss=instance.evaluate([Batch(tokens[None])]),
        shuffled_loss=instance.evaluate([Batch(shuffled(tokens[: case.shuffled], 0)[None])]),
        vocabulary=instance.config["vocab_size"],
        distinct_tokens=distinct_ids(tokens),
    )


def falsify_real_weights_match_oracle(
    subject: Subject, case: Case, measured: Measured, assets: Assets
) -> None:
    """Real weights, read by the oracle's own loader, give the oracle's logits in float32."""
    from falsifiers.errors import relative_error
    from falsifiers.inputs import distinct_ids
    from falsifiers.real_weights import oracle_weights
    from falsifiers.reference.model import logits
    from falsifiers.tokens import read_tokens

    path = assets(case.weights)
    config, weights = oracle_weights(path)
    tokens = read_tokens(path, case.text, case.length)[None]
    instance = subject.build(config, device=case.device, dtype="float32", seed=0)
    instance.set_parameters(weights)
    device = instance.device
    on_device = {name: value.to(device) for name, value in weights.items()}
    exact = logits(on_device, config, tokens.to(device))
    ours = instance.logits(tokens.to(device))
    measured(
        logit_error=relative_error(ours, exact),
        same_choice=(ours.argmax(-1) == exact.argmax(-1)).double().mean().item(),
        distinct_tokens=distinct_ids(tokens),
    )


def falsify_real_weights_match_transformers(
    subject: Subject, case: Case, measured: Measured, assets: Assets
) -> None:
    """Real weights, each side with its own loader, give the float32 logits of transformers."""
    from falsifiers.errors import relative_error
    from falsifiers.real_weights import transformers_logits
    from falsifiers.tokens import read_tokens

    path = assets(case.weights)
    tokens = read_tokens(path, case.text, case.length)[None]
    instance = subject.build_pretrain(
        device=case.device,
        dtype="float32",
        seed=0,
        init_arch=subject.read_architecture(path),
        init_path=path,
    )
    theirs = transformers_logits(path, tokens)
    measured(logit_error=relative_error(instance.logits(tokens.to(instance.device)), theirs))


def falsify_bias_parameters_follow_configuration(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration
) -> None:
    """Bias parameters exist for q, k and v of every layer if configured, and nowhere else."""
    instance = subject.build(configuration, device=case.device, dtype="float32", seed=case.seed)
    biases = [name for name in instance.parameters() if name.endswith(".bias")]
    expected = [n for n in biases if n.split(".")[-2] in ("q_proj", "k_proj", "v_proj")]
    measured(biases=len(biases), misplaced=len(biases) - len(expected))


def falsify_biases_are_applied(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration
) -> None:
    """Setting any one bias to zero changes the logits."""
    from falsifiers.errors import relative_error
    from falsifiers.inputs import random_tokens, roughen

    instance = subject.build(configuration, device=case.device, dtype="float32", seed=case.seed)
    roughen(instance, case.seed, 0.5)
    tokens = random_tokens(configuration, 1, case.length, case.seed).to(instance.device)
    parts = ("q_proj", "k_proj", "v_proj")
    names = [
        f"model.layers.{layer}.self_attn.{part}.bias"
        for layer in range(configuration["num_layers"])
        for part in parts
    ]
    parameters = instance.parameters()
    clean = instance.logits(tokens).clone()
    effects = {}
    for name in (n for n in names if n in parameters):
        value = parameters[name].clone()
        instance.set_parameters({name: value * 0})
        effects[name] = relative_error(instance.logits(tokens), clean)
        instance.set_parameters({name: value})
    measured(
        biases_tried=len(effects),
        smallest_effect=min(effects.values(), default=0.0),
        least_effective=min(effects, key=effects.__getitem__, default=""),
    )


def falsify_configured_eps_is_used(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration
) -> None:
    """Where the mean square is as small as eps, the logits are those of the configured eps."""
    from falsifiers.errors import relative_error
    from falsifiers.inputs import random_tokens
    from falsifiers.reference.model import logits

    instance = subject.build(configuration, device=case.device, dtype=case.dtype, seed=case.seed)
    name = "model.embed_tokens.weight"
    table = instance.parameters()[name]
    target = configuration["rms_norm_eps"] ** 0.5
    instance.set_parameters({name: table * (target / table.square().mean().sqrt())})
    tokens = random_tokens(configuration, 2, case.length, case.seed).to(instance.device)
    weights = {n: p.detach() for n, p in instance.parameters().items()}
    stream = weights[name][tokens].square().mean().item()
    exact = logits(weights, configuration, tokens)
    measured(
        logit_error=relative_error(instance.logits(tokens), exact),
        mean_square=stream,
    )
