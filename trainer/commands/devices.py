"""``aprtrain devices``: which torch this is, and what it can see."""

from __future__ import annotations

import argparse
import json
from typing import Any


def add_parser(commands: Any) -> None:
    """Add the subcommand to argparse's `commands`."""
    parser = commands.add_parser("devices", help="report torch, CUDA and GPUs as JSON")
    parser.add_argument("--json", action="store_true", help="JSON; this is the only format")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the report."""
    from trainer.device_report import device_report

    print(json.dumps(device_report(), indent=2))
    return 0
