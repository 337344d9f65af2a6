"""Hugging Face's own models under a plain PyTorch training step, as a subject: the second example.

    aprverify verify --subject transformers

It shows what an adapter for somebody else's trainer needs, and that the falsifiers and the protocol
defects work on code that was not written for them. There is no training loop, no command and no
loader here, so the claims about those are recorded as not run.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from falsifiers.subject import (
    EAGER,
    Batch,
    Configuration,
    Execution,
    NotSupported,
    OperatorRecord,
    RunResult,
    StepMetrics,
    SubjectRefused,
    micro_batches,
)
from falsifiers.subject_parts import Generated, Moments, Provenance, Sampling
from falsifiers.weight_files import hugging_face_config

if TYPE_CHECKING:
    from falsifiers.subject import GradientHook
    from falsifiers.subject_parts import Operators, TextCodec

_NO_GPU_READER = "this subject does not ask for utilisation"


class TransformersInstance:
    """A ``…ForCausalLM`` with AdamW on one device."""

    def __init__(self, config: Configuration, device: str, dtype: str, lr: float) -> None:
        self._config = dict(config)
        self._dtype = dtype
        self._lr = lr
        self._steps = 0
        self._model = _model(config).to(device)
        self._optimizer = torch.optim.AdamW(
            self._model.parameters(), lr=lr, betas=(0.9, 0.95), weight_decay=0.1
        )

    @property
    def config(self) -> Configuration:
        """See the protocol."""
        return self._config

    @property
    def device(self) -> str:
        """See the protocol."""
        return str(self._model.device)

    @property
    def compute_dtype(self) -> str:
        """See the protocol."""
        return self._dtype

    def parameters(self) -> Mapping[str, Tensor]:
        """See the protocol."""
        return {name: p.detach() for name, p in self._model.named_parameters()}

    def set_parameters(self, values: Mapping[str, Tensor]) -> None:
        """See the protocol."""
        own = dict(self._model.named_parameters())
        with torch.no_grad():
            for name, value in values.items():
                own[name].copy_(value)

    def logits(self, tokens: Tensor) -> Tensor:
        """See the protocol."""
        with torch.no_grad():
            return self._forward(tokens)

    def loss_and_gradients(self, batch: Batch) -> tuple[float, Mapping[str, Tensor]]:
        """See the protocol."""
        loss = self._summed_loss(batch) / batch.targets
        parameters = dict(self._model.named_parameters())
        gradients = torch.autograd.grad(loss, list(parameters.values()))
        return loss.item(), dict(zip(parameters, gradients, strict=True))

    def train_step(self, batch: Batch | Sequence[Batch], *, lr: float | None = None) -> StepMetrics:
        """See the protocol."""
        started = time.perf_counter()
        rate = self._lr if lr is None else lr
        self._optimizer.param_groups[0]["lr"] = rate
        batches = micro_batches(batch)
        targets = sum(one.targets for one in batches)
        loss = 0.0
        for one in batches:
            share = self._summed_loss(one) / targets
            share.backward()  # type: ignore[no-untyped-call]
            loss += share.item()
        norm = torch.nn.utils.clip_grad_norm_(self._model.parameters(), 1.0).item()
        if not math.isfinite(loss + norm):
            raise SubjectRefused("NUMERICAL_INSTABILITY", f"loss {loss}, norm {norm}")
        self._optimizer.step()
        self._optimizer.zero_grad()
        self._steps += 1
        rate_of_tokens = targets / (time.perf_counter() - started)
        return StepMetrics(self._steps - 1, loss, norm, rate, rate_of_tokens, None, _NO_GPU_READER)

    def evaluate(self, batches: Sequence[Batch]) -> float:
        """See the protocol."""
        with torch.no_grad():
            total = sum(self._summed_loss(batch).item() for batch in batches)
        return total / sum(batch.targets for batch in batches)

    def training(self) -> bool:
        """See the protocol."""
        return bool(self._model.training)

    def trace(self, batch: Batch) -> Sequence[OperatorRecord]:
        """See the protocol."""
        raise NotSupported("operators are not traced in transformers models")

    def run(
        self,
        batches: Iterable[Batch],
        *,
        steps: int,
        log: Path,
        before_step: Callable[[int], None] | None = None,
        first_step: int = 0,
        min_tokens_per_sec: float | None = None,
    ) -> RunResult:
        """See the protocol."""
        raise NotSupported("transformers models come without a training loop here")

    def on_gradient(self, name: str, hook: GradientHook) -> None:
        """See the protocol."""
        dict(self._model.named_parameters())[name].register_hook(hook)

    def optimizer_state(self) -> Mapping[str, Moments]:
        """See the protocol."""
        own = self._optimizer.state
        return {
            name: Moments(own[p]["exp_avg"], own[p]["exp_avg_sq"], int(own[p]["step"]))
            for name, p in self._model.named_parameters()
            if p in own
        }

    def save_checkpoint(self, path: Path, provenance: Provenance) -> None:
        """See the protocol."""
        raise NotSupported("transformers writes no resumable APR file")

    def saving(self, provenance: Provenance) -> AbstractContextManager[Callable[[Path], None]]:
        """See the protocol."""
        raise NotSupported("transformers writes no resumable APR file")

    def load_checkpoint(self, path: Path, provenance: Provenance) -> int:
        """See the protocol."""
        raise NotSupported("transformers reads no resumable APR file")

    def generate(
        self, prompt: Sequence[int], max_new_tokens: int, sampling: Sampling | None = None
    ) -> Generated:
        """See the protocol."""
        raise NotSupported("transformers' decoding is not under test here")

    def _forward(self, tokens: Tensor) -> Tensor:
        device = self._model.device
        reduced = self._dtype == "bfloat16"
        with torch.autocast(device.type, torch.bfloat16, enabled=reduced):
            result: Tensor = self._model(tokens.to(device)).logits
        return result

    def _summed_loss(self, batch: Batch) -> Tensor:
        logits = self._forward(batch.tokens[:, :-1]).float()
        targets = batch.tokens[:, 1:].to(logits.device)
        losses = cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
        if batch.target_mask is not None:
            losses = losses[batch.target_mask.to(logits.device).flatten()]
        return losses.sum()


class TransformersSubject:
    """``LlamaForCausalLM`` and ``Qwen2ForCausalLM``."""

    name = "transformers"
    target = "falsifiers.adapters.transformers_models:TransformersSubject"

    def configuration(self, name: str) -> Configuration:
        """See the protocol."""
        raise NotSupported("transformers names no configuration of its own")

    def build(
        self,
        config: Configuration,
        *,
        device: str,
        dtype: str,
        seed: int,
        lr: float = 3e-4,
        execution: Execution = EAGER,
    ) -> TransformersInstance:
        """See the protocol."""
        if execution != EAGER:
            raise NotSupported("transformers models are executed eagerly here, in any order")
        torch.manual_seed(seed)
        return TransformersInstance(config, device, dtype, lr)

    def build_pretrain(self, **options: Any) -> TransformersInstance:
        """See the protocol."""
        raise NotSupported("transformers has no pretrain command")

    def read_architecture(self, weights: Path) -> Configuration:
        """See the protocol."""
        raise NotSupported("transformers' loaders are not under test here")

    def resolve_device(self, spec: str) -> str:
        """See the protocol."""
        raise NotSupported("transformers has no --device")

    def command(self, *arguments: str, processes: int = 1) -> list[str]:
        """See the protocol."""
        raise NotSupported("transformers has no pretrain command")

    def operators(self, execution: Execution = EAGER) -> Operators:
        """See the protocol."""
        raise NotSupported("transformers' operators are methods of its models")

    def learning_rate(self, step: int, *, peak: float, warm_up: int, total: int) -> float:
        """See the protocol."""
        raise NotSupported("the plain training step here has no schedule")

    def training_batches(self, dataset: Path, **options: Any) -> Iterator[Sequence[Batch]]:
        """See the protocol."""
        raise NotSupported("transformers prepares no dataset")

    def require_whole_dataset(self, dataset: Path) -> None:
        """See the protocol."""
        raise NotSupported("transformers prepares no dataset")

    def heldout_batches(
        self, dataset: Path, *, length: int, batch: int, tokens: int | None = None
    ) -> Sequence[Batch]:
        """See the protocol."""
        raise NotSupported("transformers prepares no dataset")

    def share_of_heldout(self, batches: Iterable[Batch], **ranks: int) -> Sequence[Batch]:
        """See the protocol."""
        raise NotSupported("the plain training step here is of one process")

    def status_after_epoch(self, val_losses: Sequence[float], **options: Any) -> str:
        """See the protocol."""
        raise NotSupported("transformers models come without a training loop here")

    def operations_per_token(self, config: Configuration, length: int) -> float:
        """See the protocol."""
        raise NotSupported("this subject tells no utilisation")

    def peak_operations(self, card: str) -> float | None:
        """See the protocol."""
        raise NotSupported("this subject tells no utilisation")

    def tokenizer(self, path: Path) -> TextCodec:
        """See the protocol."""
        raise NotSupported("transformers' tokenizers are not under test here")

    def require_fitting_tokenizer(self, size: int, config: Configuration, *, init: bool) -> None:
        """See the protocol."""
        raise NotSupported("transformers has no pre-flight check")

    def run_directory(self, path: Path) -> Path:
        """See the protocol."""
        raise NotSupported("transformers leaves no run directory")

    def picture(self, run: Path) -> Path:
        """See the protocol."""
        raise NotSupported("transformers leaves no run directory")

    def checkpoint_to_resume(self, run: Path) -> Path:
        """See the protocol."""
        raise NotSupported("transformers leaves no run directory")

    def require_own_run(self, path: Path) -> None:
        """See the protocol."""
        raise NotSupported("transformers leaves no run directory")


def _model(config: Configuration) -> Any:
    import transformers

    classes = {
        "llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM),
        "qwen2": (transformers.Qwen2Config, transformers.Qwen2ForCausalLM),
    }
    config_class, model_class = classes[config["architecture"]]
    return model_class(config_class(**hugging_face_config(config)))
