"""``aprtrain pretrain``: train Llama-370M, or whatever model --init declares."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from trainer.commands.arguments import (
    learning_rate,
    natural,
    non_negative,
    path,
    positive,
    seed,
)
from trainer.parallel import world as worlds
from trainer.parallel.world import PARALLEL, World
from trainer.run.modes import MODES
from trainer.run.options import PretrainOptions

if TYPE_CHECKING:
    from trainer.run.session import Outcome


DESCRIPTION = (
    "Train Llama-370M from scratch, or the model that --init declares. Ctrl-C and SIGTERM finish "
    "the step and write a checkpoint, and the same command with --resume goes on from it."
)


def add_parser(commands: Any) -> None:
    """Add the subcommand to argparse's `commands`."""
    parser = commands.add_parser(
        "pretrain", help="train Llama-370M, or weights given by --init", description=DESCRIPTION
    )
    parser.set_defaults(run=run)
    _add_model(parser.add_argument_group("model").add_argument)
    _add_data(parser.add_argument_group("data").add_argument)
    _add_optimization(parser.add_argument_group("optimization").add_argument)
    _add_running(parser.add_argument_group("running").add_argument)
    _add_output(parser.add_argument_group("output").add_argument)


def _add_model(add: Any) -> None:
    add("--init", type=path, metavar="PATH", help="initial weights: safetensors, GGUF or APR")
    add("--mode", choices=tuple(MODES), help="default: finetune with --init, else from-scratch")
    add("--dtype", choices=("float32", "bfloat16"), help="default: bfloat16 on CUDA, else float32")


def _add_data(add: Any) -> None:
    add("--dataset", type=path, metavar="DIR", help="folder made by `aprtrain prepare`")
    add("--tokenizer", type=path, metavar="PATH", help="needed unless --init embeds one")
    add("--synthetic", action="store_true", help="random tokens instead of a dataset")
    add("--seq-length", type=positive, default=1024, metavar="N", help="tokens (default: 1024)")
    add(
        "--data-end",
        choices=("cycle", "halt"),
        default="cycle",
        help="when the data is used up, begin again or stop (default: cycle)",
    )
    add("--val-tokens", type=positive, metavar="N", help="held-out tokens scored (default: all)")


def _add_optimization(add: Any) -> None:
    modes = ", ".join(f"{mode.lr:g} {name}" for name, mode in MODES.items())
    warmups = ", ".join(f"{mode.warmup} {name}" for name, mode in MODES.items())
    targets = ", ".join(f"{mode.target_loss:g} {name}" for name, mode in MODES.items())
    add("--num-steps", type=positive, required=True, metavar="N", help="optimizer steps")
    add("--batch-size", type=positive, default=8, metavar="N", help="micro-batch (default: 8)")
    add("--accumulation", type=positive, default=1, metavar="N", help="micro-batches a step")
    add("--lr", type=learning_rate, metavar="RATE", help=f"peak (default: {modes})")
    add("--warmup", type=natural, metavar="N", help=f"steps (default: {warmups})")
    add("--target-loss", type=non_negative, metavar="NATS", help=f"(default: {targets})")
    add("--steps-per-epoch", type=positive, metavar="N", help="default: one pass over the data")
    add("--seed", type=seed, default=0, metavar="N", help="weights and data order (default: 0)")


def _add_running(add: Any) -> None:
    add("--device", default="auto", help="cpu, cuda, cuda:N or auto (default: auto)")
    add("--compile", choices=("auto", "on", "off"), default="auto", help="default: on with CUDA")
    add("--parallel", choices=PARALLEL, help="how processes of torchrun share work (default: ddp)")
    add("--deterministic", action="store_true", help="the same bits every time, a little slower")
    add("--min-tokens-per-sec", type=non_negative, metavar="RATE", help="stop if slower")


def _add_output(add: Any) -> None:
    add("--run-dir", type=path, required=True, metavar="DIR", help="log, checkpoints, outcome")
    add("--resume", action="store_true", help="go on with the run in --run-dir")
    add("--checkpoint-every", type=positive, metavar="N", help="steps, besides each epoch's end")
    add("--embed-tokenizer", action="store_true", help="store the tokenizer in checkpoints")
    add("--json", action="store_true", help="print outcome.json as the last line of stdout")
    add("--no-progress", action="store_true", help="show notices and epochs only")


def run(options: argparse.Namespace) -> int:
    """Check, build, train; returns the exit code of the run's status."""
    began = time.perf_counter()
    arguments: list[str] = options.arguments
    asked = PretrainOptions(
        **{entry.name: getattr(options, entry.name) for entry in fields(PretrainOptions)}
    )
    from trainer.run.preflight import preflight

    plan = preflight(asked, worlds.read_world(os.environ))

    from trainer.parallel.process_group import process_group
    from trainer.run.launch import start

    with process_group(plan.world, plan.device) as connection:
        outcome = start(plan, arguments, shown=not options.no_progress, began=began)
        if outcome.exit_code:
            connection.abandon()
    _report(outcome, plan.world, as_json=options.json)
    return outcome.exit_code


def _report(outcome: Outcome, world: World, *, as_json: bool) -> None:
    if outcome.exit_code:
        message = " ".join(outcome.message.split())
        print(f"aprtrain: {world.speaker}{outcome.status}: {message}", file=sys.stderr)
    if not world.leads:
        return
    if not outcome.exit_code:
        print(f"{outcome.status}: {outcome.steps} steps {outcome.message}".strip(), file=sys.stderr)
    if outcome.resume_command is not None and outcome.checkpoint is not None:
        print(f"go on with: {outcome.resume_command}", file=sys.stderr)
    if as_json:
        print(json.dumps(asdict(outcome)), flush=True)
