"""Times whole optimizer steps of the bundled trainer and of what a user would pick instead.

    python benchmarks/step_time.py --out DIR [--only CONTENDER ...]

Every contender trains the 370M Llama on random tokens on one GPU: bfloat16 compute, float32 master
weights and AdamW state, clipping to a global norm of 1. Each runs in a process of its own, one
after the other, and is timed by CUDA events between the ends of successive steps, without waiting
in between; the table gives median, least and greatest. DIR receives ``step_time.json`` and
``step_time.md``.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

CONTENDERS = {
    "transformers": "transformers, SDPA, autocast, fused AdamW",
    "transformers-liger": "the same with Liger kernels",
    "transformers-compile": "the same with torch.compile",
    "aprtrain": "aprtrain",
    "aprtrain-deterministic": "aprtrain --deterministic",
}
CASES = [
    ("transformers-compile", 8),
    ("aprtrain", 8),
    ("aprtrain-deterministic", 8),
    ("aprtrain", 1),
    ("transformers-liger", 8),
    ("transformers", 8),
]
"""The nearest rivals first, so that a run that is cut short has compared those."""
LENGTH = 2048
WARM_UP, TIMED = 6, 24


def main() -> int:
    """Run all contenders, or, as a child process, one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=CONTENDERS,
        default=list(CONTENDERS),
        metavar="CONTENDER",
        help=f"some of them: {', '.join(CONTENDERS)}",
    )
    parser.add_argument("--one", nargs=2, metavar=("CONTENDER", "BATCH"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one[0], int(options.one[1]))))
        return 0
    options.out.mkdir(parents=True, exist_ok=True)
    results: list[dict[str, Any]] = []
    for name, batch in CASES:
        if name not in options.only:
            continue
        results.append(run_one(name, batch, options.out))
        (options.out / "step_time.json").write_text(json.dumps(results, indent=2) + "\n")
        (options.out / "step_time.md").write_text(table(results))
    print(table(results))
    return 0 if all("error" not in result for result in results) else 1


def run_one(name: str, batch: int, out: Path) -> dict[str, Any]:
    """The measurements of one contender, made in a process of its own."""
    command = [sys.executable, "-W", "ignore", __file__, "--out", str(out)]
    process = subprocess.run(
        [*command, "--one", name, str(batch)], capture_output=True, text=True, check=False
    )
    if process.returncode:
        lines = process.stderr.strip().splitlines() or ["no message"]
        return {"contender": name, "batch": batch, "error": lines[-1]}
    return dict(json.loads(process.stdout.splitlines()[-1]))


def measure(name: str, batch: int) -> dict[str, Any]:
    """Build `name` and time its steps."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    began = time.perf_counter()
    import torch

    from trainer.config import LLAMA_370M
    from trainer.run.flops import flops_per_token, peak_flops

    torch.manual_seed(0)
    tokens = torch.randint(0, 50257, (batch, LENGTH + 1), device="cuda")
    ours = name.startswith("aprtrain")
    step, extras = (build_ours if ours else build_transformers)(name, tokens)
    step()
    torch.cuda.synchronize()
    first = time.perf_counter() - began
    times = time_steps(step)
    median = statistics.median(times)
    rate = batch * LENGTH / median * 1e3
    card = torch.cuda.get_device_name()
    peak = peak_flops(card)
    return {
        "contender": name,
        "batch": batch,
        "length": LENGTH,
        "card": card,
        "torch": torch.__version__,
        "ms_median": median,
        "ms_least": min(times),
        "ms_greatest": max(times),
        "steps_timed": len(times),
        "tokens_per_sec": rate,
        "mfu": None if peak is None else rate * flops_per_token(LLAMA_370M, LENGTH) / peak,
        "peak_memory_gib": torch.cuda.max_memory_allocated() / 2**30,
        "seconds_to_first_step": first,
        **extras(),
    }


def time_steps(step: Callable[[], object]) -> list[float]:
    """Milliseconds between the ends of successive steps."""
    import torch

    for _ in range(WARM_UP):
        step()
    torch.cuda.synchronize()
    ends = [torch.cuda.Event(enable_timing=True) for _ in range(TIMED + 1)]
    for end in ends:
        step()
        end.record()
    torch.cuda.synchronize()
    return [a.elapsed_time(b) for a, b in itertools.pairwise(ends)]


def build_ours(name: str, tokens: Any) -> tuple[Callable[[], object], Callable[[], dict[str, Any]]]:
    """The trainer as its command builds it."""
    import torch

    from trainer.batch import TokenBatch
    from trainer.config import LLAMA_370M
    from trainer.execution import Execution
    from trainer.trainer import PretrainTrainer

    how = Execution(compiled=True, deterministic=name.endswith("deterministic"))
    trainer = PretrainTrainer(LLAMA_370M, "cuda:0", "bfloat16", 0, 3e-4, how)
    batch = TokenBatch(tokens)

    def evaluation_rate() -> dict[str, Any]:
        batches = [batch] * TIMED
        trainer.evaluate(batches[:WARM_UP])
        torch.cuda.synchronize()
        began = time.perf_counter()
        trainer.evaluate(batches)
        seconds = time.perf_counter() - began
        return {"evaluation_tokens_per_sec": TIMED * tokens.shape[0] * LENGTH / seconds}

    return lambda: trainer.launch_step([batch]), evaluation_rate


def build_transformers(
    name: str, tokens: Any
) -> tuple[Callable[[], object], Callable[[], dict[str, Any]]]:
    """LlamaForCausalLM in the usual training step."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    if name.endswith("liger"):
        from liger_kernel.transformers import apply_liger_kernel_to_llama

        apply_liger_kernel_to_llama()
    config = LlamaConfig(
        vocab_size=50257,
        hidden_size=1024,
        num_hidden_layers=24,
        num_attention_heads=16,
        num_key_value_heads=4,
        intermediate_size=2816,
        max_position_embeddings=4096,
        rope_theta=10000.0,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        attn_implementation="sdpa",
        use_cache=False,
    )
    with torch.device("cuda"):
        model = LlamaForCausalLM(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, betas=(0.9, 0.95), fused=True)
    forward = torch.compile(model) if name.endswith("compile") else model
    inputs = tokens[:, :LENGTH].contiguous()

    def step() -> None:
        with torch.autocast("cuda", torch.bfloat16):
            loss = forward(input_ids=inputs, labels=inputs).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step, dict


def table(results: list[dict[str, Any]]) -> str:
    """The results as Markdown."""
    known = [result for result in results if "error" not in result]
    if not known:
        return "".join(f"{r['contender']} {r['batch']}: {r['error']}\n" for r in results)
    lines = [
        f"370M Llama, whole optimizer step, {known[0]['card']}, torch {known[0]['torch']}, "
        f"median of {TIMED} after {WARM_UP} warm-ups.",
        "",
        "| contender | batch | ms/step | least–greatest | tokens/s | MFU | GiB | start-up s |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for r in results:
        label = f"| {CONTENDERS[r['contender']]} | {r['batch']} × {LENGTH} |"
        if "error" in r:
            lines.append(f"{label} failed: {r['error']} | | | | | |")
            continue
        mfu = "" if r["mfu"] is None else f"{r['mfu']:.1%}"
        lines.append(
            f"{label} {r['ms_median']:.2f} | {r['ms_least']:.2f}–{r['ms_greatest']:.2f} | "
            f"{r['tokens_per_sec']:,.0f} | {mfu} | {r['peak_memory_gib']:.1f} | "
            f"{r['seconds_to_first_step']:.0f} |"
        )
    lines.append("")
    for r in known:
        if "evaluation_tokens_per_sec" in r:
            lines.append(
                f"{CONTENDERS[r['contender']]}, {r['batch']} × {LENGTH}: evaluates "
                f"{r['evaluation_tokens_per_sec']:,.0f} tokens/s, "
                f"{r['evaluation_tokens_per_sec'] / r['tokens_per_sec']:.2f} × its training rate."
            )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    if importlib.util.find_spec("torch") is None:
        sys.exit("step_time: torch is not installed")
    sys.exit(main())
