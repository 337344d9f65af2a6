"""How much faster several GPUs train than one, and that they train the same. Run by torchrun:

    torchrun --nproc-per-node 2 benchmarks/scaling.py

Llama-370M, bfloat16, compiled, random tokens, the same micro-batch on every rank. Three ways are
timed in turns, all GPUs at work in each: every rank by itself, as one GPU would train; the ranks
together (DDP); and together with nothing sent, which is what communication that hides perfectly
would give. Prints one JSON object. With two ranks, a small model in float32 must come out bit for
bit as from accumulation of two on one GPU, or the exit code is 1.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # before anything uses cuBLAS

import torch

from trainer.batch import TokenBatch
from trainer.config import LLAMA_370M, ModelConfig
from trainer.execution import Execution
from trainer.parallel import replicated
from trainer.parallel import world as worlds
from trainer.parallel.parallelism import Parallelism
from trainer.parallel.process_group import process_group
from trainer.parallel.replicated import Replicated
from trainer.parallel.world import World
from trainer.trainer import PretrainTrainer

SMALL = replace(
    LLAMA_370M, hidden_size=256, num_layers=2, num_heads=4, num_kv_heads=1, intermediate_size=512,
    vocab_size=1024,
)  # fmt: skip
TURNS, WARM_UPS = 3, 4
SMALL_STEPS, SMALL_LENGTH = 5, 128


def main() -> int:
    """Measure, print, and judge the bits."""
    options = _options()
    world = worlds.read_world(os.environ)
    device = worlds.resolve_device(options.device, world)
    with process_group(world, device):
        report = measure(options, world, device) | compare(world, device)
    if world.leads:
        print(json.dumps(report, indent=2))
    return 0 if report["equals_accumulation_bitwise"] in (True, None) else 1


def measure(options: argparse.Namespace, world: World, device: str) -> dict[str, Any]:
    """Tokens per second in each way, over all ranks, and what follows from them."""
    batches = [
        _batch(LLAMA_370M, options.batch_size, options.seq_length, world.rank * 100 + index)
        for index in range(4)
    ]
    how = Execution(compiled=device != "cpu")
    dtype = "float32" if device == "cpu" else "bfloat16"
    ways = {
        name: PretrainTrainer(LLAMA_370M, device, dtype, 0, 1e-4, how, parallel)
        for name, parallel in (("alone", Parallelism()), ("together", Replicated(world)))
    }
    seconds: dict[str, list[float]] = {"alone": [], "together": [], "unsent": []}
    for _ in range(TURNS):
        for name, found in seconds.items():
            trainer = ways["alone" if name == "alone" else "together"]
            with _nothing_sent() if name == "unsent" else nullcontext():
                found += _step_times(trainer, batches, options.steps)
    medians = {name: statistics.median(found) for name, found in seconds.items()}
    tokens = options.batch_size * options.seq_length
    return {
        "device": torch.cuda.get_device_name(device) if device != "cpu" else device,
        "torch": torch.__version__,
        "ranks": world.size,
        "micro_batch": [options.batch_size, options.seq_length],
        "steps_per_way": len(seconds["alone"]),
        "ms_per_step": {name: 1000 * median for name, median in medians.items()},
        "tokens_per_sec_alone": tokens / medians["alone"],
        "tokens_per_sec_together": world.size * tokens / medians["together"],
        "speedup": world.size * medians["alone"] / medians["together"],
        "exposed_communication_share": 1 - medians["unsent"] / medians["together"],
    }


def compare(world: World, device: str) -> dict[str, Any]:
    """Whether two ranks do in float32 what accumulation of two does, bit for bit."""
    if world.size != 2:
        return {"equals_accumulation_bitwise": None}
    how = Execution(deterministic=True)
    alone = PretrainTrainer(SMALL, device, "float32", 0, 1e-3, how)
    together = PretrainTrainer(SMALL, device, "float32", 0, 1e-3, how, Replicated(world, 2**20))
    same = True
    for step in range(SMALL_STEPS):
        batches = [_batch(SMALL, 2, SMALL_LENGTH, 2 * step + rank) for rank in range(2)]
        one, other = alone.launch_step(batches), together.launch_step([batches[world.rank]])
        same &= one.result() == other.result()
    for name, parameter in alone.parameters.items():
        other_parameter = together.parameters[name]
        same &= torch.equal(parameter, other_parameter)
        for moment in ("exp_avg", "exp_avg_sq"):
            states = alone.optimizer.state[parameter], together.optimizer.state[other_parameter]
            same &= torch.equal(states[0][moment], states[1][moment])
    return {"equals_accumulation_bitwise": together.parallel.ranks.total(int(not same)) == 0}


def _step_times(trainer: PretrainTrainer, batches: list[TokenBatch], steps: int) -> list[float]:
    """Seconds between the ends of steps, each read while the next one runs."""
    times, pending = [], None
    for step in range(WARM_UPS + steps + 1):
        launched = trainer.launch_step([batches[step % len(batches)]])
        if pending is not None:
            pending.result()
            times.append(time.perf_counter())
        pending = launched
    assert pending is not None
    pending.result()
    ends = times[WARM_UPS - 1 :]
    return [end - begin for begin, end in pairwise(ends)]


@contextmanager
def _nothing_sent() -> Iterator[None]:
    """Ranks keep their own sums; everything else is done as always."""
    work = SimpleNamespace(wait=lambda: None)
    real = replicated.dist
    replicated.dist = SimpleNamespace(all_reduce=lambda *_, **__: work)  # type: ignore[assignment]
    try:
        yield
    finally:
        replicated.dist = real


def _batch(config: ModelConfig, rows: int, length: int, seed: int) -> TokenBatch:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(config.vocab_size, (rows, length + 1), generator=generator)
    return TokenBatch(tokens.pin_memory() if torch.cuda.is_available() else tokens)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--batch-size", type=int, default=8, metavar="N")
    parser.add_argument("--seq-length", type=int, default=2048, metavar="N")
    parser.add_argument("--steps", type=int, default=20, metavar="N", help="timed, in each turn")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
