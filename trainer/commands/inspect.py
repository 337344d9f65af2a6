"""``aprtrain inspect``: what is in a weight file or a checkpoint."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import Any

from trainer.commands.arguments import path


def add_parser(commands: Any) -> None:
    """Add the subcommand to argparse's `commands`."""
    parser = commands.add_parser(
        "inspect",
        help="describe a weight file or a checkpoint",
        description="Verify a file and print its format, architecture, parameter counts, dtypes, "
        "checksums and, of a checkpoint, the position in training.",
    )
    parser.add_argument(
        "file", type=path, help=".apr, .gguf or .safetensors file, or Hugging Face folder"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the description."""
    from trainer.weights.describe import describe

    report = describe(options.file)
    print(json.dumps(report, indent=2) if options.json else "\n".join(_lines(report)))
    return 0


def _lines(report: Mapping[str, Any]) -> list[str]:
    parameters = ", ".join(f"{name} {count:,}" for name, count in report["parameters"].items())
    lines = [
        f"{report['path']}: {report['format']}, {report['file_bytes']:,} bytes",
        f"parameters: {parameters}",
    ]
    if report["architecture"] is None:
        lines.append(f"architecture: unknown; {report['architecture_absent_reason']}")
    else:
        lines.append("architecture:")
        lines += [f"  {name}: {value}" for name, value in report["architecture"].items()]
    lines += ["tensors:", *_table(report["dtypes"])]
    if report["training_state"] is not None:
        lines += ["training state:", *_table(report["training_state"])]
    if report["training"] is not None:
        lines.append("training position:")
        lines += [f"  {name}: {json.dumps(value)}" for name, value in report["training"].items()]
    if report["tokenizer"] is not None:
        lines.append(f"tokenizer: {report['tokenizer']:,} ids")
    if report["checksums"] is None:
        lines.append("checksums: the format has none")
    else:
        found = ", ".join(f"{name} {value}" for name, value in report["checksums"].items())
        lines.append(f"checksums: {found}")
    return lines


def _table(dtypes: Mapping[str, Mapping[str, int]]) -> list[str]:
    return [
        f"  {dtype}: {row['tensors']:,} tensors, {row['values']:,} values, {row['bytes']:,} bytes"
        for dtype, row in dtypes.items()
    ]
