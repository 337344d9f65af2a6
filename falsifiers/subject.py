"""The subject protocol: the only thing that a falsifier may touch.

A *subject* is a trainer under test, seen from outside: a factory of *instances*. To verify
another trainer, write one adapter module with a class that fulfils `Subject` and name it with
``--subject your_package.adapter:YourSubject``; `falsifiers/adapters/bundled/` is the example.

What a subject cannot do it refuses with `NotSupported`: the claims that need it are then
recorded as not run, with the reason, and never as held.

Tensors are torch tensors. Parameters go by their Hugging Face names
(``model.layers.0.self_attn.q_proj.weight``), matrices row-major ``[out, in]``; a tied head has no
entry of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from falsifiers.subject_parts import (
        Generated,
        Moments,
        Operators,
        Provenance,
        Sampling,
        TextCodec,
    )

    GradientHook = Callable[[Tensor], Tensor]

Configuration = Mapping[str, Any]
"""Architecture by field: architecture, hidden_size, num_layers, num_heads, num_kv_heads, head_dim,
intermediate_size, vocab_size, max_position_embeddings, rope_theta, rms_norm_eps, attention_bias,
tie_word_embeddings. `contracts/configurations.yaml` holds the named ones."""


class NotSupported(Exception):
    """The subject has no such ability. Its claims become `not_run`, with this message."""


class SubjectRefused(Exception):
    """The subject refused bad input, as it should. `str()` is the message a user would read.

    `kind` is the name of the trainer's own exception class or exit status.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True)
class Batch:
    """Token sequences as a data loader yields them: the subject itself forms inputs and targets.

    Attributes:
        tokens: int64 ``[batch, length + 1]``. Position t predicts token t + 1.
        target_mask: bool ``[batch, length]``, True where the target counts towards the loss.
            None means every target counts.
    """

    tokens: Tensor
    target_mask: Tensor | None = None

    @property
    def targets(self) -> int:
        """How many targets count."""
        if self.target_mask is None:
            return self.tokens[:, 1:].numel()
        return int(self.target_mask.sum())

    def to(self, device: str) -> Batch:
        """The same batch on a device."""
        mask = None if self.target_mask is None else self.target_mask.to(device)
        return Batch(self.tokens.to(device), mask)


@dataclass(frozen=True)
class Execution:
    """How an instance executes its model. The default is the plainest way that the trainer has.

    Attributes:
        compiled: the fast path: compiled code, captured steps, whatever the trainer calls its own.
        deterministic: the same inputs give the same bits, run after run on one machine.
    """

    compiled: bool = False
    deterministic: bool = False


EAGER = Execution()


def micro_batches(batch: Batch | Sequence[Batch]) -> Sequence[Batch]:
    """The batches of one optimizer step."""
    return [batch] if isinstance(batch, Batch) else batch


@dataclass(frozen=True)
class StepMetrics:
    """The six metrics of one optimizer step, as the trainer reports them.

    Attributes:
        step: optimizer steps done before this one, from 0.
        train_loss: mean negative log-likelihood per target token, nats.
        grad_norm: global L2 norm over every trainable parameter's gradient, before clipping.
        lr: the learning rate this step was taken with.
        tokens_per_sec: target tokens per second of wall time.
        gpu_util_pct: 0..100 as the driver measured it, or None.
        gpu_util_absent_reason: why gpu_util_pct is None, else None.
    """

    step: int
    train_loss: float
    grad_norm: float
    lr: float
    tokens_per_sec: float
    gpu_util_pct: float | None
    gpu_util_absent_reason: str | None


@dataclass(frozen=True)
class RunResult:
    """How a training loop ended.

    Attributes:
        status: ``OK``, or the abort status that the contract names (``NUMERICAL_INSTABILITY`` …).
        message: the last line a user would read.
        logged: the metrics written to the log, one mapping a line, in order.
    """

    status: str
    message: str
    logged: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class OperatorRecord:
    """One operator as it really ran inside the model, forward and backward.

    Attributes:
        name: where it stands, ``layers.3.self_attn.q_proj``. Records come in execution order.
        kind: ``embedding``, ``linear``, ``rmsnorm``, ``rope``, ``attention``, ``swiglu``,
            ``residual`` or ``linear_cross_entropy``.
        inputs: the tensors it was given, by argument name, in the compute dtype.
        outputs: the tensors it returned, by name.
        parameters: the master parameters it read, by their local name (``weight``, ``bias``).
        settings: plain numbers it was run with (``eps``, ``theta``, ``num_heads``, …), as the
            configuration, not the operator, states them.
        grad_outputs: gradients it received, by output name; empty when no backward was traced.
        grad_inputs: gradients it passed on, by input name.
        grad_parameters: gradients of its parameters, by local name; of a parameter that other
            operators share, a tied table, the share of this operator alone.
    """

    name: str
    kind: str
    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]
    parameters: Mapping[str, Tensor] = field(default_factory=dict)
    settings: Mapping[str, float] = field(default_factory=dict)
    grad_outputs: Mapping[str, Tensor] = field(default_factory=dict)
    grad_inputs: Mapping[str, Tensor] = field(default_factory=dict)
    grad_parameters: Mapping[str, Tensor] = field(default_factory=dict)


class Instance(Protocol):
    """A model with its optimizer on a device, ready to train."""

    @property
    def config(self) -> Configuration:
        """The configuration that the instance really has, read back from it."""

    @property
    def device(self) -> str:
        """Where the parameters really lie: ``cpu`` or ``cuda:N``."""

    @property
    def compute_dtype(self) -> str:
        """The dtype of activations: ``float32`` or ``bfloat16``."""

    def parameters(self) -> Mapping[str, Tensor]:
        """The stored parameters by canonical name: live float32 tensors on the device."""

    def set_parameters(self, values: Mapping[str, Tensor]) -> None:
        """Overwrite parameters by name, cast to their dtype.

        Raises:
            KeyError: the instance has no such parameter.
            ValueError: the parameter has another shape.
        """

    def logits(self, tokens: Tensor) -> Tensor:
        """Logits ``[batch, length, vocab]`` of ``[batch, length]``; no dropout, no gradient.

        Raises:
            SubjectRefused: the model has fewer positions.
        """

    def loss_and_gradients(self, batch: Batch) -> tuple[float, Mapping[str, Tensor]]:
        """Training loss of a batch and its unclipped gradient per parameter. Changes no state.

        Raises:
            SubjectRefused: no target counts, or the model has fewer positions.
        """

    def train_step(self, batch: Batch | Sequence[Batch], *, lr: float | None = None) -> StepMetrics:
        """One optimizer step, over several micro-batches if given several.

        `lr` overrides the instance's learning rate.
        """

    def evaluate(self, batches: Sequence[Batch]) -> float:
        """Held-out loss: sum of token losses over the number of target tokens, nats."""

    def training(self) -> bool:
        """Whether the model is in training mode."""

    def trace(self, batch: Batch) -> Sequence[OperatorRecord]:
        """Run the training forward and backward of `batch`, recording every operator."""

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
        """The trainer's own loop with its guards and its log, over `batches`, up to step `steps`.

        Args:
            first_step: optimizer steps that were done and logged before; `batches` begins there.
            min_tokens_per_sec: the least throughput, below which the run is given up.
        """

    def on_gradient(self, name: str, hook: GradientHook) -> None:
        """Let `hook` replace the gradient of one parameter whenever backward computes it."""

    def optimizer_state(self) -> Mapping[str, Moments]:
        """AdamW's state by parameter name."""

    def save_checkpoint(self, path: Path, provenance: Provenance) -> None:
        """Write everything that a resumed run needs to one APR file.

        Raises:
            SubjectRefused: the state must not be written, or cannot be.
        """

    def saving(self, provenance: Provenance) -> AbstractContextManager[Callable[[Path], None]]:
        """Checkpoints as a run saves them, one after another, written while it goes on.

        Inside, each call saves the state of that moment to a path; what the instance is told to do
        next is no part of it. Leaving waits until every file is on the disk.

        Raises:
            SubjectRefused: as `save_checkpoint`; by a later call, or on leaving.
        """

    def load_checkpoint(self, path: Path, provenance: Provenance) -> int:
        """Replace the whole state by that of the file, or change nothing.

        Returns:
            `data_batch_idx`: the index of the next micro-batch.

        Raises:
            SubjectRefused: the file is damaged, newer, incomplete, or of another run.
        """

    def generate(
        self, prompt: Sequence[int], max_new_tokens: int, sampling: Sampling | None = None
    ) -> Generated:
        """Continue `prompt` as the generate command does: greedily, unless `sampling` is given.

        Raises:
            SubjectRefused: the prompt is none, or too long.
        """


class Subject(Protocol):
    """A trainer under test."""

    @property
    def name(self) -> str:
        """Short name, shown in reports."""

    @property
    def target(self) -> str:
        """``module:attribute`` by which another process can build this subject."""

    def configuration(self, name: str) -> Configuration:
        """The trainer's own named configuration (``llama-370m``, ``qwen2-0.5b``), from its code."""

    def build(
        self,
        config: Configuration,
        *,
        device: str,
        dtype: str,
        seed: int,
        lr: float = 3e-4,
        execution: Execution = EAGER,
    ) -> Instance:
        """A freshly initialised instance of any configuration of the family."""

    def build_pretrain(
        self,
        *,
        device: str,
        dtype: str,
        seed: int,
        init_arch: Configuration | None = None,
        init_path: Path | None = None,
        from_scratch: Configuration | None = None,
    ) -> Instance:
        """What the pretrain command builds: Llama-370M from scratch, or a file's model.

        `init_arch` and `init_path` come together or not at all. `from_scratch` replaces the
        default configuration, which must then still satisfy the trainer's own architecture checks.

        Raises:
            SubjectRefused: the trainer refused, naming what and why.
        """

    def read_architecture(self, weights: Path) -> Configuration:
        """The architecture that a weight file (safetensors folder, GGUF) declares.

        Raises:
            SubjectRefused: the file is missing, damaged or of another family.
        """

    def resolve_device(self, spec: str) -> str:
        """The device that a ``--device`` value selects.

        Raises:
            SubjectRefused: the value is malformed, or the device is not there.
        """

    def command(self, *arguments: str, processes: int = 1) -> list[str]:
        """The argv that runs the trainer's command line, the current defect included.

        With more than one process it runs under torchrun, one rank each, on this machine.
        """

    def operators(self, execution: Execution = EAGER) -> Operators:
        """The operators as a model so executed calls them."""

    def learning_rate(self, step: int, *, peak: float, warm_up: int, total: int) -> float:
        """The scheduled rate of optimizer step `step`, from 0, of `total`.

        Raises:
            SubjectRefused: the warm-up does not fit.
        """

    def training_batches(
        self,
        dataset: Path,
        *,
        length: int,
        micro_batch: int,
        accumulation: int,
        seed: int,
        first_step: int = 0,
        rank: int = 0,
        world_size: int = 1,
        cycle: bool = False,
        on_pass: Callable[[int], None] | None = None,
    ) -> Iterator[Sequence[Batch]]:
        """The micro-batches of each optimizer step of one rank, from a prepared dataset.

        Args:
            on_pass: called with the number of a pass over the data, from 0, just before the step
                with its first window is handed over.

        Raises:
            SubjectRefused: the dataset is missing, damaged, or too small.
        """

    def require_whole_dataset(self, dataset: Path) -> None:
        """Read a prepared dataset to its last id, as a run does before its first step.

        Raises:
            SubjectRefused: a file is not what was prepared, or holds an id outside the vocabulary.
        """

    def heldout_batches(
        self, dataset: Path, *, length: int, batch: int, tokens: int | None = None
    ) -> Sequence[Batch]:
        """The held-out stream of a prepared dataset. Raises as `training_batches`.

        Args:
            tokens: at most so many targets, in whole windows spread evenly over the stream, but at
                least one window. None is all.
        """

    def share_of_heldout(
        self, batches: Iterable[Batch], *, rank: int, world_size: int
    ) -> Sequence[Batch]:
        """What one rank of several goes through to evaluate `batches`.

        A target that another rank scores does not count here.
        """

    def status_after_epoch(self, val_losses: Sequence[float], *, mode: str, vocab_size: int) -> str:
        """Whether a run goes on after the held-out losses of its epochs so far.

        Args:
            mode: ``finetune`` or ``from-scratch``.

        Returns:
            ``OK``, or the status that the run ends with.
        """

    def operations_per_token(self, config: Configuration, length: int) -> float:
        """Floating-point operations of a training step per target token, as utilisation counts."""

    def peak_operations(self, card: str) -> float | None:
        """Peak dense bfloat16 operations/s of a GPU by its driver's name; None if unknown."""

    def tokenizer(self, path: Path) -> TextCodec:
        """The tokenizer at `path`.

        Raises:
            SubjectRefused: there is none, or it is damaged.
        """

    def require_fitting_tokenizer(self, size: int, config: Configuration, *, init: bool) -> None:
        """The pre-flight check of a tokenizer with `size` ids, with or without initial weights.

        Raises:
            SubjectRefused: it does not fit the model.
        """

    def run_directory(self, path: Path) -> Path:
        """A finished run of the pretrain command in the layout that `run_directory.py` reads.

        A trainer that leaves other files writes them out in that layout here.
        """

    def picture(self, run: Path) -> Path:
        """The SVG file in which a run in that layout shows its losses, rates, norms and speeds."""

    def checkpoint_to_resume(self, run: Path) -> Path:
        """The checkpoint that a stopped run in that layout goes on from; nothing is changed.

        Raises:
            SubjectRefused: no checkpoint is good, or the furthest one is of a newer version.
        """

    def require_own_run(self, path: Path) -> None:
        """Refuse a finished run that other code than this very trainer made.

        Raises:
            aprverify.outcomes.NotRun: it did, or nobody knows.
        """
