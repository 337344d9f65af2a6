"""What two processes do together, for test_two_ranks.py; run by torchrun with a folder to fill.

Everything that is checked happens in one launch, because a launch takes seconds.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from trainer.batch import TokenBatch
from trainer.checkpoint import state
from trainer.checkpoint.position import RunSettings, TrainingPosition
from trainer.checkpoint.restore import restore
from trainer.config import ModelConfig
from trainer.errors import CheckpointError, ConfigurationError, NumericalInstability
from trainer.parallel.joint_run import JointWriter, require_same_start
from trainer.parallel.parallelism import Parallelism
from trainer.parallel.process_group import process_group
from trainer.parallel.replicated import Replicated
from trainer.parallel.sharded import Sharded
from trainer.parallel.world import World, read_world
from trainer.schedule import WarmupCosine
from trainer.trainer import PretrainTrainer

STEPS, RESUME_AT, RANKS = 4, 2, 2
LLAMA = ModelConfig(
    architecture="llama",
    hidden_size=32,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    intermediate_size=48,
    vocab_size=65,  # odd, so that two ranks hold parts of different sizes
    max_position_embeddings=32,
    rope_theta=100.0,
    rms_norm_eps=1e-5,
    attention_bias=False,
    tie_word_embeddings=True,
)
QWEN2 = replace(LLAMA, architecture="qwen2", attention_bias=True, tie_word_embeddings=False)
CONFIGS = {"llama": LLAMA, "qwen2": QWEN2}
SCHEDULE = WarmupCosine(1e-2, 1, STEPS)


def micro_batch(index: int) -> TokenBatch:
    """Micro-batch number `index`; each second one masks targets, and neighbours differ in count."""
    generator = torch.Generator().manual_seed(1000 + index)
    tokens = torch.randint(65, (2, 13), generator=generator)
    if index % 4 < 2:
        return TokenBatch(tokens)
    mask = torch.ones(2, 12, dtype=torch.bool)
    mask[1, 3 + index % 5 :] = False
    return TokenBatch(tokens, mask)


def heldout() -> list[TokenBatch]:
    """Five batches, so that one of two ranks has one more, with different counts."""
    return [micro_batch(100 + index) for index in range(5)]


def settings(world_size: int, accumulation: int) -> RunSettings:
    """Of a run of `STEPS` steps of two micro-batches over all ranks."""
    return RunSettings(
        seed=7,
        accumulation=accumulation,
        micro_batch_size=2,
        seq_length=12,
        world_size=world_size,
        steps_per_epoch=STEPS,
        compute_dtype="float32",
        dataset_sha256=None,
        schedule=SCHEDULE,
    )


def build(config: ModelConfig, parallel: Parallelism, seed: int = 7) -> PretrainTrainer:
    """A trainer on the CPU in float32."""
    torch.set_num_threads(1)
    return PretrainTrainer(config, "cpu", "float32", seed, 1e-3, parallel=parallel)


def take(trainer: PretrainTrainer, end: int, per_rank: int = 1) -> list[list[float]]:
    """Take steps up to `end`; loss, norm and target count of each. A step has `per_rank` times
    the world's size micro-batches, dealt out as `corpus.sampler` deals them."""
    world, seen = trainer.parallel.world, []
    for step in range(trainer.step, end):
        micros = [(step * per_rank + m) * world.size + world.rank for m in range(per_rank)]
        pending = trainer.launch_step([micro_batch(index) for index in micros], SCHEDULE(step))
        result = pending.result()
        seen.append([result.loss, result.grad_norm, float(pending.targets)])
    return seen


def whole_state(trainer: PretrainTrainer) -> dict[str, Tensor]:
    """Weights and moments, whole on every rank."""
    tensors = state.training_tensors(trainer)
    return {name: trainer.parallel.whole(tensor).clone() for name, tensor in tensors.items()}


def save(trainer: PretrainTrainer, path: Path, run: RunSettings) -> None:
    """A checkpoint of all ranks in one file."""
    position = TrainingPosition(trainer.step, 0, 0, run)
    with JointWriter({}, trainer.parallel.ranks) as writer:
        writer.save(trainer, position, path)


def poison(trainer: PretrainTrainer) -> dict[str, Any]:
    """What each rank sees of a step in which rank 1 alone has a gradient of NaN."""
    before = whole_state(trainer)
    if trainer.parallel.world.rank == 1:
        trainer.model.model.norm.register_forward_hook(_spoil_gradient)
    try:
        take(trainer, trainer.step + 1)
    except NumericalInstability as error:
        after = whole_state(trainer)
        unmoved = all(torch.equal(before[name], after[name]) for name in before)
        return {"step": trainer.step, "message": str(error), "unmoved": unmoved}
    return {}


def _spoil_gradient(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    output.register_hook(lambda gradient: gradient * math.nan)  # type: ignore[no-untyped-call]


def run(config: ModelConfig, make: Callable[[], Parallelism], folder: Path) -> dict[str, Any]:
    """Everything one way of sharing work does with one architecture; tensors go to `folder`."""
    folder.mkdir(exist_ok=True)
    trainer = build(config, make())
    world = trainer.parallel.world
    _, gradients = trainer.loss_and_gradients(micro_batch(world.rank))
    save_file(gradients, folder / f"gradients-{world.rank}.safetensors")
    seen = {"log": take(trainer, RESUME_AT)}
    save(trainer, folder / "checkpoint.apr", settings(world.size, 1))
    seen["log"] += take(trainer, STEPS)
    save_file(whole_state(trainer), folder / f"state-{world.rank}.safetensors")
    loss = trainer.evaluate(heldout())
    also = trainer.evaluate(iter(heldout()))
    failed = failed_write(trainer)
    resumed = build(config, make(), seed=99)
    restore(resumed, folder.parent / f"{folder.name.split('-')[0]}.apr", settings(world.size, 1))
    resumed_log = take(resumed, STEPS)
    save_file(whole_state(resumed), folder / f"resumed-{world.rank}.safetensors")
    accumulated = take(build(config, make()), STEPS // 2, per_rank=2)
    return seen | {
        "heldout": [loss, also],
        "resumed": resumed_log,
        "accumulated": accumulated,
        "poisoned": poison(trainer),
        "failed_write": failed,
        "unlike_start": unlike_start(world, make),
        "part": sum(parameter.numel() for parameter in trainer.parameters.values()),
    }


def failed_write(trainer: PretrainTrainer) -> str:
    """The error that each rank gets when the leading one cannot write a checkpoint."""
    position = TrainingPosition(trainer.step, 0, 0, settings(RANKS, 1))
    try:
        with JointWriter({}, trainer.parallel.ranks) as writer:
            writer.save(trainer, position, Path("/dev/null/ckpt/step-00000000.apr"))
    except CheckpointError as error:
        return str(error)
    return ""


def unlike_start(world: World, make: Callable[[], Parallelism]) -> str:
    """The error that each rank gets when they begin with other weights."""
    require_same_start(build(LLAMA, make()))
    try:
        require_same_start(build(LLAMA, make(), seed=world.rank))
    except ConfigurationError as error:
        return str(error)
    return ""


def agreement(world: World) -> dict[str, Any]:
    """What the hosts agree on, and the error that rank 1 alone meets."""
    ranks = Parallelism(world).ranks
    found: dict[str, Any] = {
        "total": ranks.total(world.rank + 1),
        "greatest": ranks.greatest(world.rank),
    }
    try:
        with ranks.together():
            if world.rank == 1:
                raise ConfigurationError("only here – " + "ü" * 9000)
    except ConfigurationError as error:
        found["error"] = str(error)[:60]
    with ranks.together():
        found["afterwards"] = True
    return found


def main(folder: Path) -> None:
    """Run everything in every way."""
    world = read_world(os.environ)
    with process_group(world, "cpu"):
        results: dict[str, Any] = {"agreement": agreement(world)}
        ways: dict[str, Callable[[], Parallelism]] = {
            "ddp": lambda: Replicated(world, bucket_bytes=8192),
            "fsdp": lambda: Sharded(world),
        }
        for name, config in CONFIGS.items():
            for way, make in ways.items():
                results[f"{name}-{way}"] = run(config, make, folder / f"{name}-{way}")
    (folder / f"results-{world.rank}.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
