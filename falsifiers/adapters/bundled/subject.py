"""The bundled trainer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from aprverify.outcomes import NotRun
from aprverify.planting import launch_command
from falsifiers.adapters.bundled.conversions import (
    made_by_trainers,
    model_config,
    plain_batch,
    refusals,
    token_batch,
)
from falsifiers.adapters.bundled.instance import BundledInstance
from falsifiers.adapters.bundled.operators import BundledOperators
from falsifiers.subject import EAGER, Batch, Configuration, Execution
from trainer import build, config, device, schedule, tokenizer
from trainer import execution as execution_module
from trainer import trainer as trainer_module
from trainer.checkpoint import run_directory
from trainer.corpus import corpus
from trainer.errors import TrainerError
from trainer.parallel import parallelism, world
from trainer.run import flops, guards, source
from trainer.weights import architecture

if TYPE_CHECKING:
    from falsifiers.subject_parts import Operators, TextCodec

SEQUENCE_LENGTH = 64
"""Passed to the builders, which only check that the model has so many positions."""


class BundledSubject:
    """The bundled trainer."""

    name = "bundled"
    target = "falsifiers.adapters.bundled:BundledSubject"

    def configuration(self, name: str) -> Configuration:
        """See the protocol."""
        return asdict({"llama-370m": config.LLAMA_370M, "qwen2-0.5b": config.QWEN2_0_5B}[name])

    def build(
        self,
        config: Configuration,
        *,
        device: str,
        dtype: str,
        seed: int,
        lr: float = 3e-4,
        execution: Execution = EAGER,
    ) -> BundledInstance:
        """See the protocol."""
        with refusals():
            trainer = trainer_module.PretrainTrainer(
                model_config(config),
                self.resolve_device(device),
                dtype,
                seed,
                lr,
                how=execution_module.Execution(execution.compiled, execution.deterministic),
            )
        return BundledInstance(trainer)

    def build_pretrain(
        self,
        *,
        device: str,
        dtype: str,
        seed: int,
        init_arch: Configuration | None = None,
        init_path: Path | None = None,
        from_scratch: Configuration | None = None,
    ) -> BundledInstance:
        """See the protocol. CUDA in bfloat16 goes through the CUDA builder, as the command does."""
        with refusals():
            arch = None if init_arch is None else model_config(init_arch)
            scratch = config.LLAMA_370M if from_scratch is None else model_config(from_scratch)
            if device == "cuda" and dtype == "bfloat16" and from_scratch is None:
                trainer = build.build_shared_cuda_trainer_with_init(
                    3e-4, SEQUENCE_LENGTH, seed, arch, init_path
                )
            else:
                trainer = build.build_shared_trainer_with_init(
                    3e-4,
                    SEQUENCE_LENGTH,
                    seed,
                    arch,
                    init_path,
                    device=device,
                    compute_dtype=dtype,
                    from_scratch=scratch,
                )
        return BundledInstance(trainer)

    def read_architecture(self, weights: Path) -> Configuration:
        """See the protocol."""
        with refusals():
            return asdict(architecture.read_architecture(weights))

    def resolve_device(self, spec: str) -> str:
        """See the protocol."""
        with refusals():
            return device.resolve_device(spec)

    def command(self, *arguments: str, processes: int = 1) -> list[str]:
        """See the protocol."""
        python, *words = launch_command("trainer", *arguments)
        if processes == 1:
            return [python, *words]
        ranks = ["--standalone", "--nproc-per-node", str(processes)]
        return [python, "-m", "torch.distributed.run", *ranks, *words]

    def operators(self, execution: Execution = EAGER) -> Operators:
        """See the protocol."""
        return BundledOperators(execution)

    def learning_rate(self, step: int, *, peak: float, warm_up: int, total: int) -> float:
        """See the protocol."""
        with refusals():
            return schedule.WarmupCosine(peak, warm_up, total)(step)

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
        """See the protocol."""
        with refusals():
            steps = corpus.Corpus.open(dataset).training_steps(
                seq_length=length,
                micro_batch_size=micro_batch,
                accumulation=accumulation,
                seed=seed,
                rank=rank,
                world_size=world_size,
                first_step=first_step,
                cycle=cycle,
                on_epoch=on_pass or (lambda epoch: None),
            )
        with closing(steps), refusals():
            for batches in steps:
                yield [plain_batch(batch) for batch in batches]

    def require_whole_dataset(self, dataset: Path) -> None:
        """See the protocol."""
        with refusals():
            corpus.Corpus.open(dataset).verify()

    def heldout_batches(
        self, dataset: Path, *, length: int, batch: int, tokens: int | None = None
    ) -> Sequence[Batch]:
        """See the protocol."""
        with refusals():
            held_out = corpus.Corpus.open(dataset).heldout(
                seq_length=length, batch_size=batch, limit_tokens=tokens
            )
            return [plain_batch(one) for one in held_out]

    def share_of_heldout(
        self, batches: Iterable[Batch], *, rank: int, world_size: int
    ) -> Sequence[Batch]:
        """See the protocol. A sequence is dealt out as one, anything else batch by batch."""
        ranks = parallelism.SeveralRanks(world.World(rank, world_size))
        given = map(token_batch, batches)
        known = list(given) if isinstance(batches, Sequence) else given
        return [plain_batch(batch) for batch in ranks.share_of(known)]

    def status_after_epoch(self, val_losses: Sequence[float], *, mode: str, vocab_size: int) -> str:
        """See the protocol. The guards in the order of a session."""
        try:
            guards.require_finite(len(val_losses) - 1, val_losses[-1])
            guards.require_convergence(val_losses, mode, vocab_size)
        except TrainerError as error:
            return error.status
        return "EARLY_STOP" if guards.stops_early(val_losses) else "OK"

    def operations_per_token(self, config: Configuration, length: int) -> float:
        """See the protocol."""
        return flops.flops_per_token(model_config(config), length)

    def peak_operations(self, card: str) -> float | None:
        """See the protocol."""
        return flops.peak_flops(card)

    def tokenizer(self, path: Path) -> TextCodec:
        """See the protocol."""
        with refusals():
            return tokenizer.load_tokenizer(path)

    def require_fitting_tokenizer(self, size: int, config: Configuration, *, init: bool) -> None:
        """See the protocol."""
        with refusals():
            tokenizer.require_fitting_vocabulary(size, config["vocab_size"], with_init=init)

    def run_directory(self, path: Path) -> Path:
        """See the protocol. The layout is this trainer's own."""
        return path

    def picture(self, run: Path) -> Path:
        """See the protocol."""
        return run_directory.RunDirectory(run).curves

    def checkpoint_to_resume(self, run: Path) -> Path:
        """See the protocol."""
        with refusals():
            return run_directory.latest(run, lambda damaged: None)

    def require_own_run(self, path: Path) -> None:
        """See the protocol."""
        made_by = made_by_trainers(path)
        if made_by != {source.trainer_sha256()}:
            found = ", ".join(sorted(f"{sha[:12] or 'unknown'}" for sha in made_by))
            raise NotRun(
                "asset",
                f"{path}: made by the trainer {found}, this one is {source.trainer_sha256()[:12]}",
                "make the run anew with the trainer as it is",
            )
