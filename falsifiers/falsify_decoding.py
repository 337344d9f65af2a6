"""Does decoding with a cache choose what the whole model would choose, and fast enough?"""

from __future__ import annotations

from falsifiers.fixtures import Case, Configuration, Measured, Subject
from falsifiers.subject import Instance


def falsify_cached_decoding_is_the_full_forward(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration
) -> None:
    """Each id that decoding chose is the most likely one by a forward over all ids before it."""
    import torch

    from falsifiers.inputs import random_tokens

    instance = subject.build(configuration, device=case.device, dtype=case.dtype, seed=case.seed)
    _make_varied(instance, case.seed, case.gain)
    prompt = random_tokens(configuration, 1, case.prompt, case.seed)[0].tolist()
    made = list(instance.generate(prompt, case.new).ids)
    chosen = torch.tensor(made, device=instance.device)
    tokens = torch.tensor([prompt + made], device=instance.device)
    logits = instance.logits(tokens)[0, case.prompt - 1 : -1].double()
    likeliest, ids = logits.max(-1)
    regrets = likeliest - logits.gather(-1, chosen[:, None])[:, 0]
    measured(
        ids_made=len(made),
        distinct_ids=len(set(made)),
        different_ids=int((ids != chosen).sum()),
        regret=(regrets.max() / logits.std()).item(),
    )


def falsify_decoding_is_fast(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration
) -> None:
    """Tokens by this suite's clock, prefill and preparation counted in; three medians of rounds."""
    import time
    from statistics import median

    from falsifiers.inputs import random_tokens

    instance = subject.build(configuration, device=case.device, dtype=case.dtype, seed=case.seed)
    prompt = random_tokens(configuration, 1, case.prompt, case.seed)[0].tolist()
    instance.generate(prompt, case.new)  # kernels are chosen and loaded once a process
    medians, reported, short = [], [], 0
    for _ in range(3):
        rates = []
        for _ in range(case.rounds):
            began = time.perf_counter()
            made = instance.generate(prompt, case.new)
            rates.append(len(made.ids) / (time.perf_counter() - began))
            reported.append(made.tokens_per_sec or 0.0)
            short += len(made.ids) != case.new
        medians.append(median(rates))
    measured(
        slowest_median=min(medians),
        middle_median=median(medians),
        fastest_median=max(medians),
        reported_rate=median(reported),
        too_short=short,
        device_kind=instance.device.partition(":")[0],
    )


def _make_varied(instance: Instance, seed: int, gain: float) -> None:
    """Weights under which greedy decoding does not repeat itself, in place.

    With a tied head a fresh model prefers the token that it has just read, and a sequence of one
    token hides keys, positions and mask. Layers of this size outweigh the embedding.
    """
    import torch

    values = {}
    device = instance.device
    generator = torch.Generator(device).manual_seed(seed)
    for name, parameter in sorted(instance.parameters().items()):
        noise = torch.randn(parameter.shape, generator=generator, device=device)
        if parameter.ndim == 1:
            values[name] = 1 + 0.1 * noise if "norm" in name else 0.5 * noise
        elif "embed_tokens" in name:
            values[name] = 0.05 * noise
        else:
            values[name] = noise * gain / parameter.shape[1] ** 0.5
    instance.set_parameters(values)
