"""How long a step takes on each of two GPUs by itself, and on both that share it, as runs log it.

Both GPUs are at work in either measurement: what they share besides the step, the host's memory and
processors above all, is then in both and cancels. What is left is the reduction, as far as it does
not hide behind the backward pass, and the agreements between the ranks.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from falsifiers.fixtures import Case
from falsifiers.run_directory import RunRecord
from falsifiers.subject import Subject
from falsifiers.tiny_runs import RUN_DIR, made_run, option_words

RANKS = 2


def run_alone(subject: Subject, case: Case) -> list[RunRecord]:
    """A run on each GPU, at the same time."""
    commands = [_command(subject, case, f"cuda:{index}", 1) for index in range(RANKS)]
    with ThreadPoolExecutor(RANKS) as threads:
        return list(threads.map(lambda command: _record(subject, command), commands))


def run_together(subject: Subject, case: Case) -> RunRecord:
    """The run that both GPUs share."""
    return _record(subject, _command(subject, case, "cuda", RANKS))


def step_seconds(run: RunRecord) -> list[float]:
    """Wall time of each step, by the throughput that it logged over all ranks."""
    return [run.step_tokens / line["tokens_per_sec"] for line in run.log]


def _command(subject: Subject, case: Case, device: str, processes: int) -> list[str]:
    """The trainer's default way to train its default model, on random tokens."""
    options = {
        "device": device, "dtype": case.dtype, "synthetic": True, "run-dir": RUN_DIR,
        "num-steps": case.warm_up + case.timed, "warmup": 1, "seed": case.seed,
        "batch-size": case.batch, "seq-length": case.length,
    }  # fmt: skip
    return subject.command("pretrain", *option_words(options), processes=processes)


def _record(subject: Subject, command: list[str]) -> RunRecord:
    made = made_run("rank-speed", command, "cuda")
    if made.exit_code:
        raise RuntimeError(f"exit code {made.exit_code}: {made.messages[-800:]}")
    for checkpoint in (made.folder / "ckpt").glob("*.apr"):  # gigabytes that nobody looks at
        checkpoint.unlink(missing_ok=True)
    return RunRecord(subject.run_directory(made.folder))
