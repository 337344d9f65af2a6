"""Runs that end wrongly, or leave files that say something else than what happened."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aprverify.planting import PROTOCOL, SOURCE, Defect, Plant, defect
from falsifiers.edited_runs import (
    checkpoints,
    edit_epochs,
    edit_json,
    edit_lines,
    edit_log,
    edit_runs,
    metadata_files,
    replace_bytes,
)

ZEROS = "0" * 64


def _edited(
    id: str, edit: Callable[[Path], None], *, imitates: str, symptom: str, hidden: str
) -> Any:
    def plant_edit(plant: Plant) -> None:
        """Edit a copy of each run directory before it is read."""
        edit_runs(plant, edit)

    return defect(id, kind=PROTOCOL, imitates=imitates, symptom=symptom, hidden=hidden)(plant_edit)


# --- the log


def _drop_middle(lines: list[Any]) -> list[Any]:
    return [line for number, line in enumerate(lines) if number != len(lines) // 2]


log_line_dropped = _edited(
    "log-line-dropped",
    edit_log(_drop_middle),
    imitates="a buffer that was lost when a run was moved to another machine",
    symptom="one step in the middle of the log is missing",
    hidden="no curve shows one missing point",
)
logged_steps_shifted = _edited(
    "logged-steps-shifted",
    edit_lines(lambda line: {"step": line["step"] + 1}),
    imitates="a counter that is advanced before it is logged",
    symptom="every line of the log names the step after its own",
    hidden="every curve is shifted by one step",
)
logged_rate_left_out = _edited(
    "logged-rate-left-out",
    edit_log(lambda lines: [{k: v for k, v in line.items() if k != "lr"} for line in lines]),
    imitates="a metric that was renamed and is written by nobody",
    symptom="the log holds five metrics instead of six",
    hidden="nobody plots the learning rate",
)
nan_in_the_log = _edited(
    "nan-in-the-log",
    edit_log(
        lambda lines: [
            {**line, "train_loss": float("nan")} if number == len(lines) // 2 else line
            for number, line in enumerate(lines)
        ]
    ),
    imitates="a guard that runs after the line was written",
    symptom="a step with loss NaN stands in the log as a good one",
    hidden="plots leave NaN out",
)
utilisation_above_hundred = _edited(
    "utilisation-above-hundred",
    edit_lines(lambda line: {"gpu_util_pct": 130.0}),
    imitates="a utilisation that was added up over engines",
    symptom="the log holds utilisations of 130 per cent",
    hidden="it looks like a GPU that is well used",
)
logged_norm_constant = _edited(
    "recorded-norm-constant",
    edit_lines(lambda line: {"grad_norm": 1.0}),
    imitates="the seed's CPU path: grad_norm is 1.0",
    symptom="the recorded gradient norm is the constant 1.0",
    hidden="it is a plausible norm, and the loss is right",
)
recorded_loss_constant = _edited(
    "recorded-loss-constant",
    edit_lines(lambda line: {"train_loss": 1.0}),
    imitates="the seed: (1.0, 1.0) when the shard stream was empty",
    symptom="the recorded loss is the constant 1.0",
    hidden="a flat curve looks like convergence: four epochs of it were recorded",
)
recorded_losses_shifted = _edited(
    "recorded-losses-shifted",
    edit_lines(lambda line: {"train_loss": line["train_loss"] * 1.01}),
    imitates="a loss that is smoothed, or averaged over other tokens, before it is logged",
    symptom="every recorded loss is one per cent too high",
    hidden="the curve has the right shape",
)


def _padded(run: Path) -> None:
    def pad(lines: list[Any]) -> list[Any]:
        placeholder = {**lines[-1], "train_loss": 1.0, "grad_norm": 1.0}
        more = [{**placeholder, "step": len(lines) + k} for k in range(4)]
        return [*lines, *more]

    edit_log(pad)(run)


recorded_log_padded = _edited(
    "recorded-log-padded",
    _padded,
    imitates="the seed: (1.0, 1.0) from an exhausted shard stream",
    symptom="four steps that never happened stand at the end of the log",
    hidden="the loss seems to have converged",
)


def _source(
    id: str, *, imitates: str, symptom: str, hidden: str
) -> Callable[[Callable[[Plant], None]], Defect]:
    return defect(id, kind=SOURCE, imitates=imitates, symptom=symptom, hidden=hidden)


@_source(
    "every-tenth-step-unlogged",
    imitates="a logger that thins out its own lines",
    symptom="every tenth step leaves no line",
    hidden="curves look the same, and tools interpolate",
)
def every_tenth_step_unlogged(plant: Plant) -> None:
    """Write no line for steps 9, 19, …"""

    def make(original: Any) -> Any:
        def write(log: Any, metrics: Any) -> None:
            left_out = metrics.step % 10 == 9
            plant.effect(left_out)
            if not left_out:
                original(log, metrics)

        return write

    plant.patch("trainer.run.metrics:MetricsLog.write", make)


@_source(
    "loss-computed-once",
    imitates="a loss that is cached with the compiled step",
    symptom="the loss of the first step is logged for every step",
    hidden="the weights move as they should",
)
def loss_computed_once(plant: Plant) -> None:
    """Report the first step's loss for ever."""
    from dataclasses import replace

    first: list[float] = []

    def make(original: Any) -> Any:
        def measured(*arguments: Any) -> Any:
            metrics = original(*arguments)
            first.append(metrics.train_loss)
            plant.effect(metrics.train_loss != first[0])
            return replace(metrics, train_loss=first[0])

        return measured

    plant.patch("trainer.run.loop:measured", make)


# --- epochs


def _stale_checkpoint(run: Path) -> None:
    first, *_, last = checkpoints(run)
    target = first.readlink()
    last.unlink()
    last.symlink_to(target)


epoch_checkpoint_stale = _edited(
    "epoch-checkpoint-stale",
    _stale_checkpoint,
    imitates="a writer whose buffer was not refreshed between two checkpoints",
    symptom="the last epoch's file holds the state of the first epoch",
    hidden="it loads, and its loss is plausible",
)


def _flip(content: bytearray) -> None:
    content[len(content) // 2] ^= 0x10


checkpoint_bit_flipped = _edited(
    "checkpoint-bit-flipped",
    lambda run: replace_bytes(checkpoints(run)[0], _flip),
    imitates="a disk or a copy that lost one bit",
    symptom="one bit in the middle of a checkpoint is wrong",
    hidden="one weight of many is a little off",
)


def _drop_last_epoch(run: Path) -> None:
    checkpoints(run)[-1].unlink()


epoch_checkpoint_missing = _edited(
    "epoch-checkpoint-missing",
    _drop_last_epoch,
    imitates="the seed: a checkpoint write that failed was printed and forgotten",
    symptom="the last epoch has metadata and no checkpoint",
    hidden="it is missed when somebody wants to load it",
)
epoch_field_left_out = _edited(
    "epoch-field-left-out",
    edit_epochs(lambda fields: fields.pop("tokens_seen")),
    imitates="metadata of eight fields from an earlier layout",
    symptom="no epoch says how many tokens were seen",
    hidden="a reader with defaults takes it for zero",
)


def _previous_metadata(run: Path) -> None:
    *_, before, last = metadata_files(run)
    number = int(last.name.split(".")[0].removeprefix("epoch-"))
    last.write_bytes(before.read_bytes())
    edit_json(last, lambda fields: fields.update(epoch=number))


epoch_metadata_of_previous = _edited(
    "epoch-metadata-of-previous",
    _previous_metadata,
    imitates="an object that is filled once and written for each epoch",
    symptom="the last epoch's metadata are those of the epoch before, under its own number",
    hidden="every number is plausible",
)
perplexity_is_loss = _edited(
    "perplexity-is-loss",
    edit_epochs(lambda fields: fields.update(val_ppl=fields["val_loss"])),
    imitates="a perplexity without its exponential",
    symptom="the held-out perplexity is the held-out loss",
    hidden="both numbers fall together",
)
perplexity_in_bits = _edited(
    "perplexity-in-bits",
    edit_epochs(lambda fields: fields.update(train_ppl=2 ** fields["train_loss"])),
    imitates="a perplexity of base two from a loss in nats",
    symptom="the training perplexity is 2 to the loss",
    hidden="it falls as it should and looks like a better model",
)


@_source(
    "epoch-loss-of-last-step",
    imitates="a running value that is overwritten where it should be added up",
    symptom="an epoch's training loss is that of its last step",
    hidden="it is a loss of the right size, and lower",
)
def epoch_loss_of_last_step(plant: Plant) -> None:
    """Forget what was added before."""

    def make(original: Any) -> Any:
        def add(tally: Any, metrics: Any, targets: int) -> None:
            plant.effect(tally.targets > 0)
            tally.loss_sum, tally.targets = 0.0, 0
            original(tally, metrics, targets)

        return add

    plant.patch("trainer.run.session:EpochTally.add", make)


@_source(
    "epoch-files-counted-from-one",
    imitates="a file name made from the number of epochs done",
    symptom="the first epoch's files are called epoch-001",
    hidden="every file is there and loads",
)
def epoch_files_counted_from_one(plant: Plant) -> None:
    """Name files one too high."""

    def make(original: Any) -> Any:
        def epoch_checkpoint(directory: Any, epoch: int) -> Any:
            plant.effect(True)
            return original(directory, epoch + 1)

        return epoch_checkpoint

    plant.patch("trainer.checkpoint.run_directory:RunDirectory.epoch_checkpoint", make)


optimizer_sha_of_zeros = _edited(
    "optimizer-sha-placeholder",
    edit_epochs(lambda fields: fields.update(optimizer_state_sha=ZEROS)),
    imitates="the seed: the digest is deferred on the GPU",
    symptom="the digest of the optimizer's state is a placeholder",
    hidden="nobody computes it a second time",
)


def _reuse_sha(run: Path) -> None:
    first = metadata_files(run)[0]
    content: list[str] = []
    edit_json(first, lambda fields: content.append(fields["optimizer_state_sha"]))
    edit_epochs(lambda fields: fields.update(optimizer_state_sha=content[0]))(run)


optimizer_sha_of_first_epoch = _edited(
    "optimizer-sha-of-first-epoch",
    _reuse_sha,
    imitates="the seed: the digest falls back to a hash that does not see the state",
    symptom="every epoch has the digest of the first",
    hidden="the first one can be reproduced",
)


def _swap_moments(content: bytearray) -> None:
    """Exchange the places of one parameter's two moments in the index; both checksums are right."""
    first = content.index(b".exp_avg", content.index(b"__training__.optim."))
    second = content.index(b".exp_avg_sq", first + 1)
    places = []
    for at, suffix in ((first, b".exp_avg"), (second, b".exp_avg_sq")):
        after = at + len(suffix)
        places.append(after + 2 + 8 * content[after + 1])
    one, other = places
    content[one : one + 8], content[other : other + 8] = (
        content[other : other + 8],
        content[one : one + 8],
    )
    content[-4:] = zlib.crc32(bytes(content[:-4])).to_bytes(4, "little")


moments_swapped = _edited(
    "moments-swapped",
    lambda run: replace_bytes(checkpoints(run)[-1], _swap_moments),
    imitates="a writer that zips two lists in different orders",
    symptom="one parameter's first and second moment have exchanged their places in the file",
    hidden="checksums and shapes are right, and a resumed run recovers",
)


@_source(
    "digest-of-weights",
    imitates="a digest over what is at hand: the weights",
    symptom="the optimizer's digest is computed over parameters and sees no moments",
    hidden="it changes from epoch to epoch and is reproducible",
)
def digest_of_weights(plant: Plant) -> None:
    """Hash the weights where the moments belong."""

    def make(original: Any) -> Any:
        def optimizer_state_sha(tensors: Any, step: int) -> str:
            def weight_of(name: str) -> Any:
                owner = name.removeprefix("__training__.optim.")
                return tensors[owner.removesuffix(".exp_avg_sq").removesuffix(".exp_avg")]

            clean = original(tensors, step)
            spoiled: str = original({name: weight_of(name) for name in tensors}, step)
            plant.effect(spoiled != clean)
            return spoiled

        return optimizer_state_sha

    plant.patch("trainer.checkpoint.writer:optimizer_state_sha", make)


# --- how a run ends


def _ends(**fields: Any) -> Callable[[Path], None]:
    return lambda run: edit_json(run / "outcome.json", lambda outcome: outcome.update(fields))


ending_called_ok = _edited(
    "ending-called-ok",
    _ends(status="OK", exit_code=0),
    imitates="an except clause that logs a warning and goes on to report success",
    symptom="a run that was stopped is recorded as OK",
    hidden="a script that looks at the status sees nothing",
)
ending_called_early_stop = _edited(
    "ending-called-early-stop",
    _ends(status="EARLY_STOP"),
    imitates="a default status that nobody overwrote",
    symptom="a run that took all its steps is recorded as stopped early",
    hidden="both are good endings with exit code 0",
)


def _last_loss_tripled(run: Path) -> None:
    edit_json(
        metadata_files(run)[-1], lambda fields: fields.update(val_loss=3 * fields["val_loss"])
    )


held_out_loss_tripled = _edited(
    "divergence-passed-over",
    _last_loss_tripled,
    imitates="a divergence check that is a warning",
    symptom="the last held-out loss is three times as high and the run is recorded as OK",
    hidden="nobody reads the epochs of a run that ended well",
)


def _stops_early(plant: Plant, decide: Callable[[Any], bool]) -> None:
    def make(original: Any) -> Any:
        def stops_early(losses: Any) -> bool:
            spoiled = decide(losses)
            plant.effect(spoiled != original(losses))
            return spoiled

        return stops_early

    plant.patch("trainer.run.guards:stops_early", make)


@_source(
    "patience-of-one",
    imitates="a comparison with > where >= belongs in the count of bad epochs",
    symptom="a run stops after one epoch without a new best",
    hidden="it does stop early, and the model is nearly as good",
)
def patience_of_one(plant: Plant) -> None:
    """Stop when the last epoch brought no new best, from epoch 3 on."""
    _stops_early(plant, lambda x: len(x) > 3 and x[-1] >= min(x[:-1]))


@_source(
    "early-stop-before-epoch-three",
    imitates="a guard without its least number of epochs",
    symptom="a run may stop after its third epoch, number 2",
    hidden="it does stop early, by the right patience",
)
def early_stop_before_epoch_three(plant: Plant) -> None:
    """Let patience alone decide."""
    _stops_early(plant, lambda x: len(x) > 2 and min(x[-2:]) >= min(x[:-2]))


@_source(
    "early-stop-ignores-improvement",
    imitates="a best loss that is never updated",
    symptom="every run stops after epoch 3",
    hidden="a run that stops early looks well-behaved",
)
def early_stop_ignores_improvement(plant: Plant) -> None:
    """Stop after epoch 3."""
    _stops_early(plant, lambda x: len(x) > 3)


@_source(
    "divergence-is-a-warning",
    imitates="a warning mode for the divergence check",
    symptom="a run whose held-out loss explodes goes on to its end",
    hidden="the log has the warning, and the exit code is 0",
)
def divergence_is_a_warning(plant: Plant) -> None:
    """Swallow the guard's error."""

    def make(original: Any) -> Any:
        def require_convergence(losses: Any, mode: str, vocab_size: int) -> None:
            try:
                original(losses, mode, vocab_size)
            except Exception:
                plant.effect(True)

        return require_convergence

    plant.patch("trainer.run.guards:require_convergence", make)


@_source(
    "divergence-limit-halved",
    imitates="a growth limit that is read as a share instead of a multiple",
    symptom="a held-out loss above half of the one before ends the run",
    hidden="a run that is stopped is blamed on its data",
)
def divergence_limit_halved(plant: Plant) -> None:
    """Compare with half the loss before."""

    def make(original: Any) -> Any:
        def require_convergence(losses: Any, mode: str, vocab_size: int) -> None:
            too_high = len(losses) > 1 and losses[-1] > 0.5 * losses[-2]
            plant.effect(too_high)
            doubled = [*losses[:-1], losses[-1] * 4 if too_high else losses[-1]]
            original(doubled, mode, vocab_size)

        return require_convergence

    plant.patch("trainer.run.guards:require_convergence", make)


# --- seeds, modes, data


def _jittered() -> Callable[[Path], None]:
    count = 0

    def edit(run: Path) -> None:
        nonlocal count
        count += 1
        edit_lines(lambda line: {"train_loss": line["train_loss"] + 1e-5 * count})(run)

    return edit


@defect(
    "losses-jittered",
    kind=PROTOCOL,
    imitates="a kernel that adds up in whatever order its threads finish",
    symptom="the losses of two equal runs differ by 1e-5",
    hidden="no curve shows it",
)
def losses_jittered(plant: Plant) -> None:
    """Add to each run's losses a little more than to the run before."""
    edit_runs(plant, _jittered())


@defect(
    "seed-ignored",
    kind=PROTOCOL,
    imitates="a --seed that is parsed and never passed on",
    symptom="every run is the first run again, whatever its seed",
    hidden="runs are wonderfully reproducible",
)
def seed_ignored(plant: Plant) -> None:
    """Hand out the log of the first run for ever."""
    first: list[bytes] = []

    def edit(run: Path) -> None:
        first.append((run / "train.jsonl").read_bytes())
        (run / "train.jsonl").write_bytes(first[0])

    edit_runs(plant, edit)


@_source(
    "data-order-unseeded",
    imitates="a shuffle from the global generator of a fresh process",
    symptom="two runs with one seed see the data in different orders",
    hidden="each run is a good run",
)
def data_order_unseeded(plant: Plant) -> None:
    """Seed the order of windows with the process's id."""
    import os
    from dataclasses import replace

    def make(original: Any) -> Any:
        def windows(order: Any, numbers: Any) -> Any:
            spoiled = original(replace(order, seed=os.getpid()), numbers)
            plant.effect(bool((spoiled != original(order, numbers)).any()))
            return spoiled

        return windows

    plant.patch("trainer.corpus.sampler:WindowOrder.windows", make)


def _other_peak(run: Path) -> None:
    other = {5e-5: 3e-4, 3e-4: 5e-5}

    def swap(content: Any) -> None:
        schedule = content["identity"]["schedule"]
        schedule["lr_max"] = other.get(schedule["lr_max"], schedule["lr_max"] / 6)

    edit_json(run / "run.json", swap)


recorded_mode_mixed = _edited(
    "recorded-mode-mixed",
    _other_peak,
    imitates="defaults that are looked up one by one",
    symptom="a run is recorded with one mode's warm-up and the other mode's rate",
    hidden="a model trains with either rate",
)


@_source(
    "mode-rate-mixed",
    imitates="a parser default that wins over the mode",
    symptom="a run without --lr takes 3e-4 in either mode",
    hidden="fine-tuning works, and forgets a little more",
)
def mode_rate_mixed(plant: Plant) -> None:
    """Use from-scratch's rate wherever none was given."""
    from dataclasses import replace

    def make(original: Any) -> Any:
        def choose(name: Any, **options: Any) -> Any:
            chosen = original(name, **options)
            spoiled = chosen if options.get("lr") is not None else replace(chosen, lr=3e-4)
            plant.effect(spoiled != chosen)
            return spoiled

        return choose

    plant.patch("trainer.run.modes:choose", make)


@_source(
    "rate-never-rises",
    imitates="a warm-up that divides integers",
    symptom="the learning rate is zero at every step",
    hidden="step 0 of a right run moves nothing either",
)
def rate_never_rises(plant: Plant) -> None:
    """Return zero."""

    def make(original: Any) -> Any:
        def rate(schedule: Any, step: int) -> float:
            plant.effect(original(schedule, step) != 0.0)
            return 0.0

        return rate

    plant.patch("trainer.schedule:WarmupCosine.__call__", make)


def _synthetic(run: Path) -> None:
    def change(content: Any) -> None:
        content["identity"].update(synthetic=True, dataset_sha256=None)

    edit_json(run / "run.json", change)


synthetic_unasked = _edited(
    "synthetic-unasked",
    _synthetic,
    imitates="the seed: the default command trained on synthetic data",
    symptom="a run that named a dataset trained on random tokens",
    hidden="losses come out, step after step",
)


def _target_raised(run: Path) -> None:
    edit_json(run / "run.json", lambda content: content["identity"].update(target_loss=99.0))


recorded_target_raised = _edited(
    "recorded-target-raised",
    _target_raised,
    imitates="a target that was moved to where the model is",
    symptom="the run is judged by a target of 99 nats",
    hidden="the model has reached its target",
)


def _val_is_train(fields: Any) -> None:
    fields["val_loss"] = fields["train_loss"]


held_out_loss_of_training = _edited(
    "held-out-loss-of-training",
    edit_epochs(_val_is_train),
    imitates="a validation that reads the training loss",
    symptom="the held-out loss of an epoch is its training loss",
    hidden="both are of one size",
)


@_source(
    "synthetic-by-default",
    imitates="the seed: the default command trained on synthetic data",
    symptom="the stream of a prepared dataset yields random tokens",
    hidden="losses come out, step after step",
)
def synthetic_by_default(plant: Plant) -> None:
    """Replace every token id by a random one."""
    from dataclasses import replace

    import torch

    def make(original: Any) -> Any:
        def training_steps(corpus: Any, **options: Any) -> Any:
            generator = torch.Generator().manual_seed(0)
            for batches in original(corpus, **options):
                plant.effect(True)
                yield [
                    replace(
                        batch,
                        tokens=torch.randint(256, batch.tokens.shape, generator=generator),
                    )
                    for batch in batches
                ]

        return training_steps

    plant.patch("trainer.corpus.corpus:Corpus.training_steps", make)


@_source(
    "halt-goes-on",
    imitates="an option that is parsed and never passed on",
    symptom="--data-end halt begins the data again",
    hidden="the run takes all its steps, as runs do",
)
def halt_goes_on(plant: Plant) -> None:
    """Cycle whatever was asked for."""

    def make(original: Any) -> Any:
        def training_steps(corpus: Any, *, cycle: bool, **options: Any) -> Any:
            plant.effect(not cycle)
            return original(corpus, cycle=True, **options)

        return training_steps

    plant.patch("trainer.corpus.corpus:Corpus.training_steps", make)


@_source(
    "cycle-without-notice",
    imitates="an iterator that is made anew where it ends",
    symptom="the data begins again and nobody is told",
    hidden="the loss falls nicely: the corpus is being memorised",
)
def cycle_without_notice(plant: Plant) -> None:
    """Say nothing at the end of a pass."""

    def make(original: Any) -> Any:
        def epoch_notice(progress: Any) -> Any:
            return lambda epoch: plant.effect(epoch > 0)

        return epoch_notice

    plant.patch("trainer.run.launch:_epoch_notice", make)


cycle_called_exhausted = _edited(
    "cycle-called-exhausted",
    _ends(status="STREAM_EXHAUSTED", exit_code=13),
    imitates="a status that is set when the first pass ends",
    symptom="a run that took all its steps is recorded as out of data",
    hidden="the log is complete",
)
