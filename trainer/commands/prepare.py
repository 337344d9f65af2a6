"""``aprtrain prepare``: texts to a dataset of token shards."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.commands.arguments import natural, path, positive

if TYPE_CHECKING:
    from trainer.corpus.manifest import Manifest


def add_parser(commands: Any) -> None:
    """Add the subcommand to argparse's `commands`."""
    parser = commands.add_parser(
        "prepare",
        help="encode texts into a dataset for pretrain",
        description="Encode texts into a dataset of token shards with a held-out split. A command "
        "that was interrupted goes on when it is run again.",
    )
    parser.set_defaults(run=run)
    add = parser.add_argument
    add("sources", type=path, nargs="+", metavar="SOURCE", help="folder, text or .bin of u32 ids")
    add("--tokenizer", type=path, required=True, metavar="PATH", help="tokenizer.json, GGUF, GPT-2")
    add("--out", type=path, required=True, metavar="DIR", help="where the dataset goes")
    add(
        "--include",
        action="append",
        metavar="GLOB",
        help="names to take from folders, repeatable (default: *.py *.md *.rst *.txt)",
    )
    split = parser.add_mutually_exclusive_group()
    split.add_argument(
        "--heldout-fraction",
        type=_fraction,
        default=0.01,
        metavar="F",
        help="hold out about this share of the documents, by hash of their content (default: 0.01)",
    )
    split.add_argument(
        "--heldout",
        type=path,
        nargs="+",
        metavar="SOURCE",
        help="hold out these; the same content elsewhere is not trained on",
    )
    add("--split-seed", type=natural, default=0, metavar="N", help="of the hash (default: 0)")
    add(
        "--max-file-bytes",
        type=positive,
        default=2**22,
        metavar="N",
        help="skip larger texts; a worker's memory is about 180 times this (default: 4194304)",
    )
    add(
        "--shard-tokens",
        type=positive,
        default=2**24,
        metavar="N",
        help="ids of a shard (default: 16777216)",
    )
    add("--workers", type=positive, metavar="N", help="processes (default: all cores)")


def run(options: argparse.Namespace) -> int:
    """Make the dataset and say what is in it."""
    from trainer.corpus.preparation import PrepareSettings, prepare
    from trainer.corpus.sources import DEFAULT_INCLUDE
    from trainer.corpus.split import HashRule
    from trainer.corpus.workers import available_cores

    manifest = prepare(
        PrepareSettings(
            sources=options.sources,
            tokenizer=options.tokenizer,
            out=options.out,
            heldout=options.heldout or HashRule(options.heldout_fraction, options.split_seed),
            include=options.include or DEFAULT_INCLUDE,
            max_file_bytes=options.max_file_bytes,
            shard_tokens=options.shard_tokens,
            workers=options.workers or available_cores(),
        )
    )
    _print_summary(options.out, manifest)
    return 0


def _print_summary(out: Path, manifest: Manifest) -> None:
    for split, counts in manifest.details["counts"].items():
        print(
            f"{split}: {counts['documents']:,} documents, {counts['bytes']:,} bytes, "
            f"{counts['tokens']:,} tokens"
        )
    for reason, count in manifest.details["skipped"].items():
        print(f"skipped: {count:,} {reason}")
    print(f"{out}: dataset {manifest.sha256}")


def _fraction(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number between 0 and 1")
    return value
