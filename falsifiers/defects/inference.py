"""Reading a model at the cost of training it, prompts taken as they come, rates out of thin air."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from aprverify.planting import PROTOCOL, SOURCE, Plant, defect
from falsifiers.wrapping import InstanceWrapper, wrap_instances


@defect(
    "evaluation-builds-a-graph",
    kind=SOURCE,
    imitates="a validation loop without torch.no_grad()",
    symptom="evaluation saves every activation for a backward pass that never comes",
    hidden="the loss is right to the last bit, until a larger batch runs out of memory",
)
def evaluation_builds_a_graph(plant: Plant) -> None:
    """Evaluate with gradients, and drop them."""

    def make(original: Any) -> Any:
        def eval_batch(trainer: Any, batch: Any) -> Any:
            plant.effect(True)
            total = trainer.summed_loss(batch)
            _, count = original(trainer, batch)
            return total.detach(), count

        return eval_batch

    plant.patch("trainer.trainer:PretrainTrainer.eval_batch", make)


class _ATensor(InstanceWrapper):
    def evaluate(self, batches: Any) -> Any:
        """The loss as a tensor of no dimension."""
        import torch

        self.plant.effect(True)
        return torch.tensor(self.inner.evaluate(batches), dtype=torch.float64)


@defect(
    "evaluation-is-a-tensor",
    kind=PROTOCOL,
    imitates="losses.append(loss) without item(), the leak of PyTorch's own FAQ",
    symptom="an evaluation returns a tensor, which holds on to its device and its history",
    hidden="it prints, compares and adds like a number",
)
def evaluation_is_a_tensor(plant: Plant) -> None:
    """See the class."""
    wrap_instances(plant, _ATensor)


class _LogitsByTraining(InstanceWrapper):
    def logits(self, tokens: Any) -> Any:
        """The right logits, behind a pass that was made with gradients."""
        from falsifiers.subject import Batch

        self.plant.effect(True)
        self.inner.loss_and_gradients(Batch(tokens))
        return self.inner.logits(tokens)


@defect(
    "logits-by-the-training-path",
    kind=PROTOCOL,
    imitates="a scoring command that calls the training forward",
    symptom="logits cost the memory of a training step",
    hidden="they are right, and short texts fit",
)
def logits_by_the_training_path(plant: Plant) -> None:
    """See the class."""
    wrap_instances(plant, _LogitsByTraining)


@defect(
    "negative-ids-count-from-the-end",
    kind=SOURCE,
    imitates="a check of the largest id alone; a table indexed by -1 gives its last row",
    symptom="a prompt with a negative id is taken for one with an id from the end",
    hidden="a tokenizer gives none; an ignore-index of -1 or -100 that leaks into a prompt does",
)
def negative_ids_count_from_the_end(plant: Plant) -> None:
    """Check the prompt without its negative ids, and read those from the end."""

    def make(original: Any) -> Any:
        def cached(model: Any, cache: Any, tokens: Any, positions: Any) -> Any:
            return original(model, cache, tokens % model.config.vocab_size, positions)

        return cached

    def check(original: Any) -> Any:
        def require(prompt: Any, vocab_size: int) -> None:
            plant.effect(any(token < 0 for token in prompt))
            original([max(token, 0) for token in prompt], vocab_size)

        return require

    plant.patch("trainer.generate:_require_ids", check)
    plant.patch("trainer.generate:cached_logits", make)


class _CutToFit(InstanceWrapper):
    def generate(self, prompt: Any, max_new_tokens: int, *sampling: Any) -> Any:
        """A continuation of as much of the prompt's end as fits."""
        room = self.inner.config["max_position_embeddings"] - max_new_tokens
        self.plant.effect(len(prompt) > room)
        return self.inner.generate(list(prompt)[-room:], max_new_tokens, *sampling)


@defect(
    "prompt-cut-to-fit",
    kind=PROTOCOL,
    imitates="a pipeline that truncates on the left without a word",
    symptom="of a prompt that is too long the model reads the end",
    hidden="the continuation fits what it saw",
)
def prompt_cut_to_fit(plant: Plant) -> None:
    """See the class."""
    wrap_instances(plant, _CutToFit)


class _PromptCounted(InstanceWrapper):
    def generate(self, prompt: Any, max_new_tokens: int, *sampling: Any) -> Any:
        """The same ids; the rate counts the prompt as decoded."""
        made = self.inner.generate(prompt, max_new_tokens, *sampling)
        if made.tokens_per_sec is None:
            return made
        factor = (len(prompt) + len(made.ids)) / (len(made.ids) - 1)
        self.plant.effect(True)
        return replace(made, tokens_per_sec=made.tokens_per_sec * factor)


@defect(
    "rate-counts-the-prompt",
    kind=PROTOCOL,
    imitates="tokens a second over prompt and continuation together",
    symptom="the reported decode rate grows with the prompt",
    hidden="nobody decodes with a stopwatch in hand",
)
def rate_counts_the_prompt(plant: Plant) -> None:
    """See the class."""
    wrap_instances(plant, _PromptCounted)


@defect(
    "rate-counts-each-token-twice",
    kind=SOURCE,
    imitates="a counter that is moved in the step and in the loop around it",
    symptom="the reported decode rate is twice what it is",
    hidden="it is a plausible rate of a faster machine",
)
def rate_counts_each_token_twice(plant: Plant) -> None:
    """Double what was decoded."""

    def make(original: Any) -> Any:
        def generate(*arguments: Any, **options: Any) -> Any:
            made = original(*arguments, **options)
            plant.effect(made.decoded > 0)
            return replace(made, decoded=2 * made.decoded)

        return generate

    plant.patch("trainer.generate:generate", make)
