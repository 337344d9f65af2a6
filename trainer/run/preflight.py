"""Every check that can be made before anything is built or written, cheapest first.

A run that is refused here leaves nothing behind: no folder, no training state, and for a wrong
device not even an import of torch.
"""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer import config as configurations
from trainer.errors import (
    CheckpointError,
    ConfigurationError,
    DataError,
    TokenizerError,
    UsageError,
)
from trainer.parallel import world as worlds
from trainer.parallel.world import ALONE, World
from trainer.run import files, modes
from trainer.run.modes import Chosen
from trainer.run.options import PretrainOptions
from trainer.schedule import WarmupCosine

if TYPE_CHECKING:
    from trainer.checkpoint.position import RunSettings
    from trainer.config import ModelConfig
    from trainer.corpus.corpus import Corpus
    from trainer.tokenizer import Tokenizer

STATE_BYTES_PER_PARAMETER = 12
"""In a checkpoint: weight and both moments of AdamW in float32."""

CHECKPOINTS_THAT_FIT = 2
"""A new one is complete before an older one goes."""


@dataclass(frozen=True)
class Plan:
    """A run that has passed every check.

    Attributes:
        options: as given.
        device: ``cpu`` or ``cuda:N``.
        mode: with its learning rate, warm-up and target.
        settings: what may not change when the run is resumed.
        config: the model.
        corpus: the prepared dataset; None for synthetic data.
        tokenizer: None if the run needs none.
        hashes: SHA-256 of dataset, tokenizer and initial weights, None where there is none.
        notices: what the user should know before the first step.
        world: the processes of the run.
        parallel: how they share the work; None for a single one.
    """

    options: PretrainOptions
    device: str
    mode: Chosen
    settings: RunSettings
    config: ModelConfig
    corpus: Corpus | None
    tokenizer: Tokenizer | None
    hashes: dict[str, str | None]
    notices: tuple[str, ...]
    world: World = ALONE
    parallel: str | None = None

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that decides the numbers of the run, by name, as JSON values."""
        return asdict(self.settings) | {
            "mode": self.mode.name,
            "target_loss": self.mode.target_loss,
            "data_end": self.options.data_end,
            "val_tokens": self.options.val_tokens,
            "deterministic": self.options.deterministic,
            "compiled": self.compiled,
            "synthetic": self.options.synthetic,
            "tokenizer_sha256": self.hashes["tokenizer"],
            "init_sha256": self.hashes["init"],
        }

    @property
    def compiled(self) -> bool:
        """Whether the model is compiled; by default on CUDA only."""
        choice = self.options.compile
        return choice == "on" or (choice == "auto" and self.device != "cpu")

    @property
    def init_arch(self) -> ModelConfig | None:
        """The architecture of the initial weights; None without them."""
        return None if self.options.init is None else self.config


def preflight(options: PretrainOptions, world: World = ALONE) -> Plan:
    """Check everything about `options` that can be known before training.

    Raises:
        TrainerError: of the kind that fits, naming what is wrong and what to do.
    """
    parallel = worlds.choose_parallel(options.parallel, world)
    device = worlds.resolve_device(options.device, world)
    _require_sources(options)
    _require_directory(options)
    mode = modes.choose(
        options.mode,
        with_init=options.init is not None,
        num_steps=options.num_steps,
        lr=options.lr,
        warmup=options.warmup,
        target_loss=options.target_loss,
    )
    schedule = WarmupCosine(mode.lr, mode.warmup, options.num_steps)
    plan = _check_files(options, device, mode, schedule, world)
    return replace(plan, world=world, parallel=parallel)


def _check_files(
    options: PretrainOptions, device: str, mode: Chosen, schedule: WarmupCosine, world: World
) -> Plan:
    from trainer import build
    from trainer.checkpoint.position import RunSettings

    config = (
        configurations.LLAMA_370M
        if options.init is None
        else build.declared_architecture(options.init)
    )
    configurations.require_decoder(config)
    build.require_positions(config, options.seq_length)
    tokenizer, tokenizer_path = _tokenizer(options, config)
    hashes = _hashes(options, tokenizer_path)
    corpus, notices = None, [mode.notice] if mode.notice else []
    if options.dataset is not None:
        corpus, mismatch = _corpus(options, options.dataset, config, tokenizer, hashes)
        notices += [mismatch] if mismatch else []
        hashes["dataset"] = corpus.manifest.sha256
    _require_space(options, config)
    settings = RunSettings(
        seed=options.seed,
        accumulation=options.accumulation,
        micro_batch_size=options.batch_size,
        seq_length=options.seq_length,
        world_size=world.size,
        steps_per_epoch=_steps_per_epoch(options, corpus, world),
        compute_dtype=options.dtype or ("float32" if device == "cpu" else "bfloat16"),
        dataset_sha256=hashes["dataset"],
        schedule=schedule,
    )
    plan = Plan(options, device, mode, settings, config, corpus, tokenizer, hashes, tuple(notices))
    if options.resume:
        files.require_same_identity(options.run_dir, plan.identity)
    return plan


def _require_sources(options: PretrainOptions) -> None:
    if options.synthetic == (options.dataset is not None):
        raise UsageError(
            "INV-TRAIN-010: pass either --dataset DIR, made by `aprtrain prepare`, or --synthetic "
            "for random tokens"
        )
    if options.tokenizer is None and options.init is None and not options.synthetic:
        raise UsageError(
            "--tokenizer is needed: initial weights that might embed one are not given"
        )
    if options.tokenizer is None and options.synthetic and options.embed_tokenizer:
        raise UsageError("--embed-tokenizer needs --tokenizer")


def _require_directory(options: PretrainOptions) -> None:
    root = options.run_dir
    if root.exists() and not root.is_dir():
        raise ConfigurationError(f"{root} is not a folder; choose another --run-dir")
    found = files.holds_run(root)
    if found and not options.resume:
        raise ConfigurationError(
            f"{root} holds a run already; go on with it by --resume, or choose another --run-dir"
        )
    if options.resume and not found:
        raise CheckpointError(f"{root} holds no run to resume; leave --resume out to start one")


def _tokenizer(
    options: PretrainOptions, config: ModelConfig
) -> tuple[Tokenizer | None, Path | None]:
    from trainer.tokenizer import has_tokenizer, load_tokenizer, require_fitting_vocabulary

    if options.tokenizer is None and options.synthetic:
        return None, None
    path = options.tokenizer or options.init
    assert path is not None
    if options.tokenizer is None and not has_tokenizer(path):
        raise TokenizerError(f"{path} comes without a tokenizer; pass --tokenizer")
    tokenizer = load_tokenizer(path)
    require_fitting_vocabulary(
        tokenizer.vocab_size, config.vocab_size, with_init=options.init is not None
    )
    return tokenizer, path


def _hashes(options: PretrainOptions, tokenizer: Path | None) -> dict[str, str | None]:
    from trainer.corpus.tokenizer_identity import tokenizer_sha256
    from trainer.weights.locate import locate

    init = None
    if options.init is not None:
        found = locate(options.init)
        init = files.sha256_of([*found.tensors, *([found.config] if found.config else [])])
    return {
        "dataset": None,
        "tokenizer": None if tokenizer is None else tokenizer_sha256(tokenizer),
        "init": init,
    }


def _corpus(
    options: PretrainOptions,
    dataset: Path,
    config: ModelConfig,
    tokenizer: Tokenizer | None,
    hashes: dict[str, str | None],
) -> tuple[Corpus, str | None]:
    from trainer.corpus.corpus import Corpus

    corpus = Corpus.open(dataset)
    manifest = corpus.manifest
    if manifest.vocab_size > config.vocab_size:
        raise DataError(
            f"{dataset}: the dataset's tokenizer has {manifest.vocab_size} ids, the model's "
            f"vocab_size is {config.vocab_size}; prepare the dataset with the model's tokenizer"
        )
    if manifest.heldout_tokens < 2:
        raise DataError(
            f"{dataset}: the held-out set is empty, so no loss could be validated; prepare the "
            "dataset with a larger --heldout-fraction or with --heldout"
        )
    notice = _require_same_tokenizer(options, corpus, tokenizer, hashes["tokenizer"])
    corpus.verify()
    return corpus, notice


def _require_same_tokenizer(
    options: PretrainOptions, corpus: Corpus, tokenizer: Tokenizer | None, sha256: str | None
) -> str | None:
    manifest = corpus.manifest
    if tokenizer is None or sha256 == manifest.tokenizer_sha256:
        return None
    if options.tokenizer is None and tokenizer.vocab_size == manifest.vocab_size:
        return (
            "the dataset was prepared with a tokenizer from another file than --init; only the "
            "sizes of their vocabularies were compared"
        )
    raise TokenizerError(
        f"{options.dataset} was prepared with another tokenizer (SHA-256 "
        f"{manifest.tokenizer_sha256}, {manifest.vocab_size} ids) than "
        f"{options.tokenizer or options.init} ({sha256}, {tokenizer.vocab_size} ids); pass that one"
        " as --tokenizer, or prepare the dataset again"
    )


def _require_space(options: PretrainOptions, config: ModelConfig) -> None:
    parameters = configurations.stored_parameters(config)
    needed = CHECKPOINTS_THAT_FIT * STATE_BYTES_PER_PARAMETER * parameters
    root = options.run_dir.absolute()
    folder = next(parent for parent in (root, *root.parents) if parent.exists())
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise CheckpointError(
            f"{folder}: {free:,} bytes are free, {CHECKPOINTS_THAT_FIT} checkpoints of "
            f"{parameters:,} parameters take {needed:,}; choose another --run-dir or make room"
        )


def _steps_per_epoch(options: PretrainOptions, corpus: Corpus | None, world: World) -> int:
    if options.steps_per_epoch is not None:
        return options.steps_per_epoch
    if corpus is None:
        return options.num_steps
    one_pass = corpus.steps_per_epoch(
        seq_length=options.seq_length,
        micro_batch_size=options.batch_size,
        accumulation=options.accumulation,
        world_size=world.size,
    )
    return max(1, min(one_pass, options.num_steps))
