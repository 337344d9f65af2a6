"""Does reading a model keep nothing, refuse what is no prompt, and report a rate that can be?"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from falsifiers.fixtures import Case, Configuration, Measured, Subject

if TYPE_CHECKING:
    from torch import Tensor


def falsify_reading_keeps_nothing(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration
) -> None:
    """Evaluation, logits and decoding save no tensor for a backward pass, and training does.

    An evaluation is a number, and not a tensor that may hang on a graph.
    """
    from falsifiers.inputs import ragged_batch

    instance = subject.build(configuration, device=case.device, dtype=case.dtype, seed=case.seed)
    batch = ragged_batch(configuration, 3, case.length, case.seed)
    inputs = batch.tokens[:, :-1].to(instance.device)
    prompt = batch.tokens[0].tolist()
    measured(
        by_evaluation=_saved_by(lambda: instance.evaluate([batch, batch])),
        by_logits=_saved_by(lambda: instance.logits(inputs)),
        by_decoding=_saved_by(lambda: instance.generate(prompt, 4)),
        by_training=_saved_by(lambda: instance.loss_and_gradients(batch)),
        evaluation_kind=type(instance.evaluate([batch])).__name__,
    )


def _saved_by(action: Callable[[], Any]) -> int:
    """How many tensors torch saves for a backward pass while `action` runs."""
    import torch

    saved = 0

    def pack(tensor: Tensor) -> Tensor:
        nonlocal saved
        saved += 1
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        action()
    return saved


def falsify_what_is_no_prompt_is_refused(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration
) -> None:
    """No token, an id that the model does not have, one position too many; the edges are taken."""
    from falsifiers.refused_files import Tried

    instance = subject.build(configuration, device=case.device, dtype=case.dtype, seed=case.seed)
    vocabulary = configuration["vocab_size"]
    positions = configuration["max_position_embeddings"]
    wrong: dict[str, list[int]] = {
        "no token": [],
        "-1 alone": [-1],
        "-1 first": [-1, 3],
        "-1 last": [3, -1],
        "one past the last id alone": [vocabulary],
        "one past the last id first": [vocabulary, 3],
        "one past the last id last": [3, vocabulary],
        "one position too many": [3] * positions,
    }
    tried = Tried().each(
        (label, lambda prompt=prompt: instance.generate(prompt, 1))  # type: ignore[misc]
        for label, prompt in wrong.items()
    )
    edges = ([0, vocabulary - 1], [vocabulary - 1, 0], [3] * (positions - 1))
    measured(
        tried=tried.count,
        accepted=len(tried.accepted),
        crashed=len(tried.crashed),
        faults=tried.faults(),
        made_at_the_edges=sum(len(instance.generate(prompt, 1).ids) for prompt in edges),
    )


def falsify_reported_rate_is_possible(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration
) -> None:
    """Reported rate × this suite's seconds is about as many tokens as were decoded."""
    import time

    from falsifiers.inputs import random_tokens

    instance = subject.build(configuration, device=case.device, dtype=case.dtype, seed=case.seed)
    prompt = random_tokens(configuration, 1, case.prompt, case.seed)[0].tolist()
    shares = []
    for _ in range(case.rounds):
        began = time.perf_counter()
        made = instance.generate(prompt, case.new)
        seconds = time.perf_counter() - began
        # Reading the prompt gives the first token, and is in these seconds but not in the rate.
        shares.append((made.tokens_per_sec or 0.0) * seconds / (len(made.ids) - 1))
    measured(least=min(shares), rounds_below=sum(share < 1 for share in shares))
