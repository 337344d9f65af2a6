"""``aprtrain generate``: let a model continue a text."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from trainer.commands.arguments import non_negative, path, positive, seed, text


def add_parser(commands: Any) -> None:
    """Add the subcommand to argparse's `commands`."""
    parser = commands.add_parser(
        "generate",
        help="continue a text",
        description="Continue a prompt. The text goes to stdout, the decode rate to stderr.",
    )
    parser.add_argument("--init", type=path, required=True, help="weight file, checkpoint, folder")
    parser.add_argument("--tokenizer", type=path, help="default: the one that comes with --init")
    parser.add_argument("--prompt", type=text, required=True, help="the text to continue")
    parser.add_argument("--max-new-tokens", type=positive, default=100, help="default: 100")
    parser.add_argument(
        "--temperature", type=non_negative, default=0.0, help="0, the default, is greedy"
    )
    parser.add_argument("--top-k", type=positive, help="draw from the k most likely tokens only")
    parser.add_argument("--seed", type=seed, default=0, help="of the draws (default: 0)")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:N or auto (default)")
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        help="of activations (default: bfloat16 on CUDA, float32 on the CPU)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Generate and print."""
    from trainer.device import resolve_device

    device = resolve_device(options.device)

    from trainer.generate import Sampling, generate
    from trainer.weights.export import load_model

    loaded = load_model(options.init, options.tokenizer)
    if loaded.tokenizer is None:
        from trainer.errors import TokenizerError

        raise TokenizerError(f"{options.init}: comes without a tokenizer; pass --tokenizer")
    prompt = loaded.tokenizer.encode(options.prompt)
    positions = len(prompt) + options.max_new_tokens
    dtype = options.dtype or ("bfloat16" if device.startswith("cuda") else "float32")
    found = generate(
        _decoder(loaded.config, loaded.tensors, positions, dtype, device),
        prompt,
        options.max_new_tokens,
        Sampling(options.temperature, options.top_k, options.seed),
        stop=loaded.tokenizer.end_of_text,
    )
    continuation = loaded.tokenizer.decode(found.ids)
    if options.json:
        report = {
            "prompt": options.prompt,
            "text": continuation,
            "prompt_tokens": len(prompt),
            "ids": found.ids,
            "stopped": found.stopped,
            "prefill_seconds": found.prefill_seconds,
            "decode_tokens_per_second": found.tokens_per_second,
            "device": device,
            "dtype": dtype,
        }
        print(json.dumps(report))
    else:
        print(options.prompt + continuation)
        rate = found.tokens_per_second
        shown = "no token was decoded" if rate is None else f"{rate:.1f} tokens/s"
        print(f"prefill {found.prefill_seconds:.3f} s, decode {shown}, {device}", file=sys.stderr)
    return 0


def _decoder(config: Any, tensors: Any, positions: int, dtype: str, device: str) -> Any:
    """A decoder with the given weights and rotary tables for `positions` positions only."""
    from dataclasses import replace

    import torch

    from trainer.model.decoder import Decoder
    from trainer.precision import compute_dtype_named
    from trainer.weights.populate import populate

    shortened = replace(
        config, max_position_embeddings=min(config.max_position_embeddings, positions)
    )
    with torch.device(device):
        model = Decoder(shortened, compute_dtype_named(dtype))
    populate(model, tensors)
    return model
