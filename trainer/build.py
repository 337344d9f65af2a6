"""What the pretrain command trains: Llama-370M from scratch, or an architecture with its weights.

The checks are ordinary code in every build, and run before any training state exists: parameters
are counted on the meta device, which allocates nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import torch

from trainer import config as configurations
from trainer import device as devices
from trainer.config import LLAMA_370M, ModelConfig
from trainer.errors import ArchitectureError, ConfigurationError, WeightsError
from trainer.execution import EAGER, Execution
from trainer.model.decoder import Decoder
from trainer.parallel.parallelism import Parallelism
from trainer.trainer import PretrainTrainer
from trainer.weights import architecture, load, populate

NOMINAL_BAND = (366_000_000, 374_000_000)
"""INV-ARCH-370M-001: nominal parameters of what is trained from scratch, both ends included."""

ROTARY_BYTES = 4
"""A position and an element of a head: half a cosine and half a sine in float32."""

MOST_ROTARY_BYTES = 2**30
"""4 million positions of heads of 64; making the tables takes three times as much for a moment."""


def build_shared_trainer(
    lr: float,
    seq_length: int,
    seed: int,
    *,
    device: str = "cpu",
    compute_dtype: str = "float32",
    from_scratch: ModelConfig = LLAMA_370M,
    how: Execution = EAGER,
    parallel: Parallelism | None = None,
) -> PretrainTrainer:
    """A trainer with random weights for `from_scratch`, which must be a 370M decoder.

    Args:
        lr: learning rate of steps that name none.
        seq_length: positions a batch will have, at most max_position_embeddings.
        seed: seeds the initial weights.
        device: a ``--device`` value.
        compute_dtype: dtype of activations, ``float32`` or ``bfloat16``.
        from_scratch: another configuration to put through the same checks.
        how: eager or compiled, and whether bitwise reproducible.
        parallel: how the ranks of the run share each step; None is a single process.

    Raises:
        ArchitectureError: INV-ARCH-370M-001 does not hold, or `from_scratch` is not a decoder.
        ConfigurationError: `seq_length` or `compute_dtype` is impossible.
        UsageError, DeviceUnavailable: see `device.resolve_device`.
    """
    configurations.require_decoder(from_scratch)
    require_positions(from_scratch, seq_length)
    require_370m(from_scratch)
    resolved = devices.resolve_device(device)
    return PretrainTrainer(from_scratch, resolved, compute_dtype, seed, lr, how, parallel)


def build_shared_cuda_trainer(lr: float, seq_length: int, seed: int) -> PretrainTrainer:
    """`build_shared_trainer` on the first CUDA device, in bfloat16."""
    return build_shared_trainer(lr, seq_length, seed, device="cuda", compute_dtype="bfloat16")


def build_shared_trainer_with_init(
    lr: float,
    seq_length: int,
    seed: int,
    init_arch: ModelConfig | None,
    init_path: Path | None,
    *,
    device: str = "cpu",
    compute_dtype: str = "float32",
    from_scratch: ModelConfig = LLAMA_370M,
    how: Execution = EAGER,
    parallel: Parallelism | None = None,
) -> PretrainTrainer:
    """A trainer for `init_arch` with the weights at `init_path`; neither is as without init.

    Raises:
        ConfigurationError: one of `init_arch` and `init_path` without the other.
        ArchitectureError: `init_arch` is not a decoder, or not what the file declares.
        WeightsError: the file is missing, damaged, or does not fill the model exactly.
        Also whatever `build_shared_trainer` raises.
    """
    require_init_pair("build_shared_trainer_with_init", init_arch, init_path)
    if init_arch is None or init_path is None:
        return build_shared_trainer(
            lr,
            seq_length,
            seed,
            device=device,
            compute_dtype=compute_dtype,
            from_scratch=from_scratch,
            how=how,
            parallel=parallel,
        )
    configurations.require_decoder(init_arch)
    require_positions(init_arch, seq_length)
    require_exact_count(init_arch)
    resolved = devices.resolve_device(device)
    require_declared(init_arch, init_path)
    with citing_load_failure():
        tensors = load.load_init_tensors(init_path)
    trainer = PretrainTrainer(init_arch, resolved, compute_dtype, seed, lr, how, parallel)
    populate.populate(trainer.model, tensors)
    return trainer


def build_shared_cuda_trainer_with_init(
    lr: float,
    seq_length: int,
    seed: int,
    init_arch: ModelConfig | None,
    init_path: Path | None,
) -> PretrainTrainer:
    """`build_shared_trainer_with_init` on the first CUDA device, in bfloat16."""
    require_init_pair("build_shared_cuda_trainer_with_init", init_arch, init_path)
    return build_shared_trainer_with_init(
        lr, seq_length, seed, init_arch, init_path, device="cuda", compute_dtype="bfloat16"
    )


def require_init_pair(function: str, init_arch: ModelConfig | None, init_path: Path | None) -> None:
    """Refuse an architecture without weights, or weights without an architecture.

    Raises:
        ConfigurationError: naming `function`.
    """
    if (init_arch is None) != (init_path is None):
        raise ConfigurationError(
            f"{function}: init_arch and init_path come together or not at all "
            f"(init_arch given: {init_arch is not None}, init_path given: {init_path is not None})"
        )


def require_positions(config: ModelConfig, seq_length: int) -> None:
    """Refuse sequences longer than the model has positions for, empty ones, and absurdly many.

    Raises:
        ConfigurationError: with both lengths, or with what the rotary tables would take.
    """
    tables = ROTARY_BYTES * config.max_position_embeddings * config.head_dim
    if tables > MOST_ROTARY_BYTES:
        raise ConfigurationError(
            f"max_position_embeddings {config.max_position_embeddings} would take {tables:,} bytes "
            f"of rotary tables, {MOST_ROTARY_BYTES:,} are allowed; lower it in the file's metadata"
        )
    if not 1 <= seq_length <= config.max_position_embeddings:
        raise ConfigurationError(
            f"sequence length {seq_length} is outside 1 … {config.max_position_embeddings}, "
            "the model's max_position_embeddings"
        )


def require_370m(config: ModelConfig) -> None:
    """INV-ARCH-370M-001: the nominal count lies in the band, and the head is stored tied.

    Raises:
        ArchitectureError: with the counts.
    """
    low, high = NOMINAL_BAND
    nominal = configurations.nominal_parameters(config)
    if not low <= nominal <= high:
        raise ArchitectureError(
            f"INV-ARCH-370M-001: {nominal:,} nominal parameters are outside [{low:,}, {high:,}]"
        )
    stored = count_stored(config)
    expected = nominal - config.vocab_size * config.hidden_size
    if stored != expected:
        raise ArchitectureError(
            f"INV-ARCH-370M-001: {stored:,} stored parameters, but nominal − vocab × hidden is "
            f"{expected:,}; the head must be tied to the embedding"
        )


def require_exact_count(config: ModelConfig) -> None:
    """The model that would be built has exactly the parameters that its configuration implies.

    Raises:
        ArchitectureError: with both counts.
    """
    stored, expected = count_stored(config), configurations.stored_parameters(config)
    if stored != expected:
        raise ArchitectureError(
            f"the model would store {stored:,} parameters, its configuration implies {expected:,}"
        )


def count_stored(config: ModelConfig) -> int:
    """Parameters of the model itself, counted on the meta device: shapes without storage."""
    with torch.device("meta"):
        model = Decoder(config)
    return sum(parameter.numel() for parameter in model.parameters())


def declared_architecture(init_path: Path) -> ModelConfig:
    """The architecture that the initial weights declare, to be passed as `init_arch`.

    Raises:
        WeightsError, ArchitectureError: see `architecture.read_architecture`.
    """
    with citing_load_failure():
        return architecture.read_architecture(init_path)


@contextmanager
def citing_load_failure() -> Iterator[None]:
    """Let a failure to read initial weights name the claim that it must end the command."""
    try:
        yield
    except WeightsError as error:
        raise WeightsError(f"FALSIFY-APR-PRETRAIN-INIT-006: {error}") from error


def require_declared(init_arch: ModelConfig, init_path: Path) -> None:
    """Refuse an architecture that differs from what the weight file declares.

    Raises:
        ArchitectureError: listing the fields with both values.
    """
    asked, declared = asdict(init_arch), asdict(declared_architecture(init_path))
    differing = [
        f"{field} {asked[field]!r} in init_arch, {declared[field]!r} in the file"
        for field in asked
        if asked[field] != declared[field]
    ]
    if differing:
        raise ArchitectureError(
            f"{init_path}: FALSIFY-APR-PRETRAIN-INIT-005: the file declares another architecture: "
            + "; ".join(differing)
        )
