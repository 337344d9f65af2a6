"""The command line: ``aprtrain pretrain`` and ``aprtrain devices``.

torch is imported only after the arguments and the device have been checked, so that a wrong command
fails in milliseconds; the run directory is made last, so that a refused run leaves nothing behind.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from trainer import device as devices
from trainer.config import LLAMA_370M
from trainer.errors import EXIT_CODES, ConfigurationError, TrainerError, UsageError

if TYPE_CHECKING:
    from trainer.metrics import StepMetrics
    from trainer.trainer import PretrainTrainer

LOG_NAME = "train.jsonl"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see {self.prog} --help")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code of `errors.EXIT_CODES`."""
    try:
        options = _parser().parse_args(arguments)
        return int(options.run(options))
    except TrainerError as error:
        return _fail(error.status, str(error))
    except OSError as error:
        return _fail("CONFIGURATION", f"{error}; check the path, its permissions and the disk")
    except KeyboardInterrupt:
        return _fail("INTERRUPTED", "interrupted")


def _fail(status: str, message: str) -> int:
    print(f"aprtrain: {status}: {' '.join(message.split())}", file=sys.stderr)
    return EXIT_CODES[status]


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="aprtrain", description="Pre-train Llama-family decoders.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_Parser)

    pretrain = commands.add_parser("pretrain", help="train Llama-370M, or weights given by --init")
    pretrain.set_defaults(run=_pretrain)
    add = pretrain.add_argument
    add("--device", default="auto", help="cpu, cuda, cuda:N or auto (default: auto)")
    add("--init", type=Path, metavar="PATH", help="initial weights: safetensors or GGUF")
    add("--tokenizer", type=Path, required=True, metavar="PATH", help="tokenizer.json, GGUF, GPT-2")
    add("--dataset", type=Path, required=True, nargs="+", metavar="PATH", help="texts, .bin shards")
    add("--run-dir", type=Path, required=True, metavar="DIR", help=f"where {LOG_NAME} goes")
    add("--num-steps", type=_positive, required=True, metavar="N", help="optimizer steps")
    add("--batch-size", type=_positive, default=8, metavar="N", help="sequences (default: 8)")
    add("--seq-length", type=_positive, default=1024, metavar="N", help="tokens (default: 1024)")
    add("--lr", type=_rate, default=3e-4, help="peak learning rate (default: 3e-4)")
    add("--warmup", type=_natural, default=0, metavar="N", help="warm-up steps (default: 0)")
    add("--seed", type=_natural, default=0, metavar="N", help="weights and data order (default: 0)")
    add("--dtype", choices=("float32", "bfloat16"), help="default: bfloat16 on CUDA, else float32")

    devices = commands.add_parser("devices", help="report torch, CUDA and GPUs as JSON")
    devices.set_defaults(run=_devices)
    return parser


def _devices(options: argparse.Namespace) -> int:
    from trainer.device_report import device_report

    print(json.dumps(device_report(), indent=2))
    return 0


def _pretrain(options: argparse.Namespace) -> int:
    device = devices.resolve_device(options.device)
    log_path = options.run_dir / LOG_NAME
    if log_path.exists():
        raise ConfigurationError(f"{log_path} exists; choose another --run-dir")

    from trainer.build import (
        build_shared_trainer_with_init,
        declared_architecture,
        require_positions,
    )
    from trainer.data import cycle_epochs, read_windows
    from trainer.loop import run_steps
    from trainer.schedule import WarmupCosine
    from trainer.tokenizer import load_tokenizer, require_fitting_vocabulary

    schedule = WarmupCosine(options.lr, options.warmup, options.num_steps)
    init_arch = None if options.init is None else declared_architecture(options.init)
    config = LLAMA_370M if init_arch is None else init_arch
    require_positions(config, options.seq_length)
    tokenizer = load_tokenizer(options.tokenizer)
    require_fitting_vocabulary(
        tokenizer.vocab_size, config.vocab_size, with_init=init_arch is not None
    )
    windows = read_windows(options.dataset, tokenizer, options.seq_length, config.vocab_size)
    trainer = build_shared_trainer_with_init(
        options.lr,
        options.seq_length,
        options.seed,
        init_arch,
        options.init,
        device=device,
        compute_dtype=options.dtype or ("float32" if device == "cpu" else "bfloat16"),
    )
    batches = cycle_epochs(windows, options.batch_size, seed=options.seed, on_epoch=_announce_epoch)
    log_path.parent.mkdir(parents=True, exist_ok=True)
    _announce_start(trainer, len(windows))
    outcome = run_steps(
        trainer,
        batches,
        steps=options.num_steps,
        log_path=log_path,
        lr_schedule=schedule,
        on_metrics=_print_metrics,
    )
    if outcome.status != "OK":
        return _fail(outcome.status, outcome.message)
    return 0


def _announce_start(trainer: PretrainTrainer, windows: int) -> None:
    parameters = sum(parameter.numel() for parameter in trainer.model.parameters())
    print(
        f"{parameters:,} parameters on {trainer.device} in {trainer.compute_dtype}, "
        f"{windows:,} windows an epoch"
    )


def _announce_epoch(epoch: int) -> None:
    if epoch == 1:
        print("aprtrain: notice: the dataset is used up; going on with epoch 1", file=sys.stderr)


def _print_metrics(metrics: StepMetrics) -> None:
    print(
        f"step {metrics.step}  loss {metrics.train_loss:.4f}  grad_norm {metrics.grad_norm:.3f}  "
        f"lr {metrics.lr:.2e}  {metrics.tokens_per_sec:,.0f} tokens/s",
        flush=True,
    )


def _positive(text: str) -> int:
    return _integer(text, least=1)


def _natural(text: str) -> int:
    return _integer(text, least=0)


def _integer(text: str, *, least: int) -> int:
    value = int(text) if text.isascii() and text.isdigit() else least - 1
    if value < least:
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer of at least {least}")
    return value


def _rate(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a finite learning rate of at least 0")
    return value
