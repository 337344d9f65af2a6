"""Does reading a model keep nothing, refuse no prompt, report a fair rate, and draw by its odds?"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from falsifiers.fixtures import Case, Configuration, Measured, Subject

if TYPE_CHECKING:
    from torch import Tensor

    from falsifiers.subject import Instance


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


def falsify_draws_follow_the_softmax(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration
) -> None:
    """Frequencies of drawn tokens are softmax(logits ÷ temperature) over the k largest.

    The model gives every position the same logits, so that each token decoded is one more draw.
    """
    from falsifiers.subject_parts import Sampling

    instance, logits = _alike_everywhere(subject, case, configuration)
    largest, ids = logits.topk(case.top_k)
    expected = (largest / case.temperature).softmax(-1)

    def draw(count: int, seed: int, top_k: int | None = case.top_k) -> list[int]:
        how = Sampling(case.temperature, top_k, seed)
        return list(instance.generate([0], count, how).ids)

    drawn = draw(case.draws, case.seed)
    shares = [drawn.count(token) / len(drawn) for token in ids.tolist()]
    likeliest = int(logits.argmax())
    measured(
        drawn=len(drawn),
        outside=sum(token not in ids.tolist() for token in drawn),
        deviation=max(abs(a - b) for a, b in zip(shares, expected.tolist(), strict=True)),
        not_the_likeliest=sum(token != likeliest for token in draw(case.few, case.seed, 1)),
        outside_if_all_may=sum(t not in ids.tolist() for t in draw(case.few, case.seed, None)),
        same_seed_repeats=draw(case.few, case.seed) == drawn[: case.few],
        other_seed_repeats=draw(case.few, case.seed + 1) == drawn[: case.few],
    )


def _alike_everywhere(
    subject: Subject, case: Case, configuration: Configuration
) -> tuple[Instance, Tensor]:
    """An instance whose logits do not depend on what it reads, and they, float64 ``[vocab]``.

    Layers add nothing to a stream that is the same for each token; the head alone decides.
    """
    import torch

    from falsifiers.training_state import small

    config = {
        **small(configuration, case.vocabulary, 1),
        "max_position_embeddings": case.draws + 1,
        "tie_word_embeddings": False,
    }
    instance = subject.build(config, device=case.device, dtype=case.dtype, seed=case.seed)
    values = {name: p.clone() for name, p in instance.parameters().items()}
    for name, value in values.items():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            value.zero_()
    values["model.embed_tokens.weight"].fill_(1.0)
    # The k likeliest are a gap apart and nowhere near each other by id; all others are alike.
    places = (torch.arange(case.vocabulary) * 5 % case.vocabulary).clamp(max=case.top_k)
    head = values["lm_head.weight"]
    head[:] = (case.gap * (case.top_k - places) / head.shape[1])[:, None]
    instance.set_parameters(values)
    return instance, instance.logits(torch.zeros(1, 1, dtype=torch.int64))[0, 0].double()
