"""Times how long naming a fault takes in models of 24 layers, and whether the right one is named.

    python benchmarks/localize_full_scale.py --out DIR                          # on a GPU
    python benchmarks/localize_full_scale.py --out DIR --device cpu --reduced   # narrow, 24 layers

A fault is planted in layer 7 and the parity claims are localized, in the training dtype operator by
operator and in float32 end to end, each in a process of its own, whose start counts. DIR receives
``localize.json`` and ``localize.md``. Exit status 1: something else was named, or too late.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

LAYER = 7
CASES = [
    ("qwen2-0.5b", "float32"),
    ("llama-370m", "float32"),
    ("qwen2-0.5b", "bfloat16"),
    ("llama-370m", "bfloat16"),
]
TESTS = {
    "float32": "FALSIFY-CUDA-FORWARD-PARITY-001.float32",
    "bfloat16": "FALSIFY-CUDA-FORWARD-PARITY-001.operators",
}
PLANTED = {
    "qwen2-0.5b": ("q_proj", "q bias dropped", "bias not added"),
    "llama-370m": ("o_proj", f"weight of layer {LAYER + 1} used", rf"layers\.{LAYER + 1}\."),
}
"""Where in layer 7, what, and what must be named."""
NARROW = {"head_dim": 8, "intermediate_size": 152, "vocab_size": 1003}
MOST_SECONDS = 30.0


def main() -> int:
    """Run all cases, or, as a child process, one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda")
    parser.add_argument("--reduced", action="store_true", help="narrow layers, small vocabulary")
    parser.add_argument("--limit", type=float, default=85.0, help="seconds for all cases")
    parser.add_argument("--one", nargs=2, metavar=("ARCH", "DTYPE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(_one(*arguments.one, arguments.device, arguments.reduced)))
        return 0
    arguments.out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for row in _rows(arguments):  # whoever stops this keeps what was measured
        rows.append(row)
        (arguments.out / "localize.json").write_text(json.dumps(rows, indent=2) + "\n")
        (arguments.out / "localize.md").write_text(_table(rows))
    print(_table(rows))
    good = (r.get("right") and r["process_seconds"] <= MOST_SECONDS for r in rows)
    return 0 if all(good) else 1


def _rows(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    began = time.monotonic()
    for arch, dtype in CASES:
        left = arguments.limit - (time.monotonic() - began)
        row: dict[str, Any] = {"arch": arch, "dtype": dtype}
        command = [sys.executable, __file__, "--out", ".", "--one", arch, dtype]
        command += ["--device", arguments.device, *(["--reduced"] if arguments.reduced else [])]
        start = time.monotonic()
        try:
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=max(1, left))
            last = done.stdout.splitlines()[-1:]
            row |= json.loads(last[0]) if done.returncode == 0 else {"named": "the process failed"}
        except subprocess.TimeoutExpired:
            row["named"] = f"not done after {left:.0f} s"
        yield {**row, "process_seconds": round(time.monotonic() - start, 2)}


def _one(arch: str, dtype: str, device: str, reduced: bool) -> dict[str, Any]:
    import torch

    from aprverify.localizing.watch import localize
    from aprverify.plugin.state import state_of_worker

    state = state_of_worker("bundled", "bundled", [])
    config = dict(state.loaded.configurations[arch])
    if reduced:
        config |= NARROW | {"num_heads": config["num_heads"] // 2, "num_kv_heads": 1}
        config["hidden_size"] = config["num_heads"] * config["head_dim"]
    loaded = replace(state.loaded, configurations={**state.loaded.configurations, arch: config})
    full = next(e for e in state.entries if e.test.id == TESTS[dtype] and e.case.scale == "full")
    changes = {"arch": arch, "device": device}
    entry = replace(full, case=replace(full.case, parameters={**full.case.parameters, **changes}))
    defect = _defect(arch)
    began = time.monotonic()
    seen = localize(
        state.suite, loaded, replace(entry, defect=defect.id), state.subject, defect, state.assets
    )
    seconds = time.monotonic() - began
    first = seen.findings[0] if seen.findings else {"where": "", "fault": "", "sentence": "nothing"}
    part, planted, words = PLANTED[arch]
    right = first["where"] == f"layers.{LAYER}.self_attn.{part}"
    on_gpu = device == "cuda"
    return {
        "planted": f"layers.{LAYER}.self_attn.{part}: {planted}",
        "named": first["sentence"],
        "right": right and re.search(words, first["fault"]) is not None,
        "claim": seen.outcome,
        "notes": seen.notes,
        "layers": config["num_layers"],
        "vocabulary": config["vocab_size"],
        "seconds": round(seconds, 2),
        "peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2) if on_gpu else None,
        "machine": torch.cuda.get_device_name() if on_gpu else "CPU",
        "torch": torch.__version__,
    }


def _defect(arch: str) -> Any:
    """The fault of an architecture, as a source defect that is entered like those of the suite."""
    from aprverify.planting import SOURCE, Plant, defect

    part, what, _ = PLANTED[arch]
    at: dict[int, Any] = {}

    def remember(original: Any) -> Any:
        def build(model: Any, *arguments: Any, **options: Any) -> None:
            original(model, *arguments, **options)
            here, next_ = (
                getattr(model.model.layers[LAYER + n].self_attn, f"{part}") for n in (0, 1)
            )
            at[id(here)] = next_

        return build

    def without_bias(original: Any) -> Any:
        def apply_bias(linear: Any, product: Any) -> Any:
            if id(linear) not in at:
                return original(linear, product)
            plant_of[0].effect(True)
            return product

        return apply_bias

    def of_the_next(original: Any) -> Any:
        def forward(linear: Any, x: Any) -> Any:
            if id(linear) not in at:
                return original(linear, x)
            plant_of[0].effect(True)
            return original(at[id(linear)], x)

        return forward

    plant_of: list[Plant] = []

    @defect("layer-seven", kind=SOURCE, imitates="a benchmark", symptom=what, hidden="24 layers")
    def layer_seven(plant: Plant) -> None:
        plant_of.append(plant)
        plant.patch("trainer.model.decoder:Decoder.__init__", remember)
        if part == "q_proj":
            plant.patch("trainer.model.linear:Linear.apply_bias", without_bias)
        else:
            plant.patch("trainer.model.linear:Linear.forward", of_the_next)

    return layer_seven


def _table(rows: list[dict[str, Any]]) -> str:
    head = (
        "architecture | dtype | layers | vocabulary | process, s | GPU peak, GiB | planted | named"
    )
    lines = [
        "# Naming a fault in layer 7 of 24",
        "",
        f"Generated by `benchmarks/localize_full_scale.py` on {rows[0].get('machine', 'unknown')}, "
        f"torch {rows[0].get('torch', 'unknown')}. Seconds are of a whole process, its start "
        "included.",
        "",
        f"| {head} | right |",
        "|---|---|--:|--:|--:|--:|---|---|---|",
    ]
    for row in rows:
        cells = [row["arch"], row["dtype"], row.get("layers"), row.get("vocabulary")]
        cells += [row["process_seconds"], row.get("peak_gib"), row.get("planted"), row["named"]]
        cells += ["yes" if row.get("right") else "**no**"]
        lines.append("| " + " | ".join("–" if c is None else str(c) for c in cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
