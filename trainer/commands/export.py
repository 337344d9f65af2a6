"""``aprtrain export``: a model or checkpoint as APR, safetensors or GGUF."""

from __future__ import annotations

import argparse
from typing import Any

from trainer.commands.arguments import path


def add_parser(commands: Any) -> None:
    """Add the subcommand to argparse's `commands`."""
    parser = commands.add_parser(
        "export",
        help="write a model as APR, safetensors or GGUF",
        description="Write the model in IN to OUT, whole or not at all. Training state is left "
        "out. The format follows from OUT: .apr, .gguf, else a Hugging Face folder.",
    )
    parser.add_argument("source", metavar="IN", type=path, help="weight file, checkpoint or folder")
    parser.add_argument("target", metavar="OUT", type=path, help="file, or folder for safetensors")
    parser.add_argument("--format", choices=("apr", "safetensors", "gguf"), help="instead of OUT's")
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        default="float32",
        help="of the values in the file (default: float32, which loses nothing)",
    )
    tokenizer = parser.add_mutually_exclusive_group()
    tokenizer.add_argument(
        "--tokenizer", type=path, help="to put beside the model (default: the one in IN, if any)"
    )
    tokenizer.add_argument("--no-tokenizer", action="store_true", help="write the model alone")
    parser.add_argument("--force", action="store_true", help="replace OUT if it exists")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Export, and print what was written."""
    from trainer.weights import export

    target = options.target
    chosen = export.format_of(target, options.format)
    export.require_place(target, force=options.force)
    export.require_other_place(options.source, target)
    model = export.load_model(
        options.source, options.tokenizer, with_tokenizer=not options.no_tokenizer
    )
    export.export(model, target, chosen, options.dtype, force=options.force)
    print(f"{target}: {chosen}, {options.dtype}, {len(model.tensors)} tensors")
    return 0
