"""Does a run through the command line leave what it must, and is what it leaves true?

Claims are read from the files of a run: one that was recorded, given as an asset, or a tiny one
that is made here through the subject's command line. Nothing of a recorded run is trained again.
"""

from __future__ import annotations

from falsifiers.fixtures import Assets, Case, Configuration, Measured, Series, Subject
from falsifiers.run_directory import RunRecord
from falsifiers.runs_under_test import run_under_test


def falsify_every_step_is_logged(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration, assets: Assets
) -> None:
    """Each optimizer step left one line with all six metrics, and the lines are in order."""
    from falsifiers.run_rules import has_six_metrics

    run = run_under_test(subject, case, configuration, assets)
    measured(
        steps_taken=run.outcome["steps"],
        lines=len(run.log),
        out_of_order=sum(line.get("step") != step for step, line in enumerate(run.log)),
        incomplete=sum(not has_six_metrics(line) for line in run.log),
        record=run.sha256(),
    )


def falsify_every_epoch_leaves_its_files(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration, assets: Assets
) -> None:
    """Each epoch left a whole checkpoint of this model at its own step, and nine fields."""
    from falsifiers.reference.model import parameter_shapes
    from falsifiers.run_rules import has_nine_fields

    run = run_under_test(subject, case, configuration, assets)
    shapes = parameter_shapes(configuration)
    places = [
        (n, e.number, e.metadata.get("epoch", -1), e.checkpoint.training.get("epoch", -1) - 1)
        for n, e in enumerate(run.epochs)
    ]
    faults = [epoch.checkpoint.fault for epoch in run.epochs if epoch.checkpoint.fault]
    measured(
        epochs_ended=run.outcome["epochs"],
        epochs_left=len(run.epochs),
        damaged=len(faults),
        fault="; ".join(faults),
        misshapen=sum(dict(epoch.checkpoint.shapes) != shapes for epoch in run.epochs),
        incomplete=sum(not has_nine_fields(epoch.metadata) for epoch in run.epochs),
        misplaced=sum(len(set(numbers)) > 1 for numbers in places),
        record=run.sha256(),
    )


def falsify_epoch_numbers_follow_from_the_log(
    subject: Subject,
    case: Case,
    measured: Measured,
    series: Series,
    configuration: Configuration,
    assets: Assets,
) -> None:
    """Loss, norm and tokens of each epoch are those of its lines, perplexity exp of the loss."""
    import math

    run = run_under_test(subject, case, configuration, assets)
    loss_error, norm_error, perplexity_error, miscounted = 0.0, 0.0, 0.0, 0
    for index, epoch in enumerate(run.epochs):
        lines, stored = run.epoch_lines(index), epoch.metadata
        mean = math.fsum(line["train_loss"] for line in lines) / len(lines)
        largest = max(line["grad_norm"] for line in lines)
        loss_error = max(loss_error, abs(stored["train_loss"] - mean) / mean)
        norm_error = max(norm_error, abs(stored["grad_norm_max"] - largest))
        for name in ("train", "val"):
            exact = math.exp(stored[f"{name}_loss"])
            perplexity_error = max(perplexity_error, abs(stored[f"{name}_ppl"] - exact) / exact)
        position = epoch.checkpoint.training
        counts = {position["step"] * run.step_tokens, position["tokens_seen"]}
        miscounted += counts != {stored["tokens_seen"]}
        miscounted += list(position["history"]) != run.val_losses[: index + 1]
    _record_losses(run, series)
    measured(
        epochs_left=len(run.epochs),
        loss_error=loss_error,
        norm_error=norm_error,
        perplexity_error=perplexity_error,
        miscounted=miscounted,
        record=run.sha256(),
    )


def falsify_optimizer_digest_is_that_of_the_file(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration, assets: Assets
) -> None:
    """The digest beside each checkpoint is that of the moments and the step in the file."""
    run = run_under_test(subject, case, configuration, assets)
    stored = [epoch.metadata.get("optimizer_state_sha") for epoch in run.epochs]
    found = [epoch.checkpoint.optimizer_sha for epoch in run.epochs]
    measured(
        epochs_left=len(found),
        wrong=sum(a != b for a, b in zip(stored, found, strict=True)),
        repeated=len(found) - len(set(found)),
        record=run.sha256(),
    )


def falsify_early_stop_follows_the_rule(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration, assets: Assets
) -> None:
    """A run ends in EARLY_STOP exactly where its own held-out losses say so, and else goes on."""
    from falsifiers.run_rules import early_stop

    run = run_under_test(subject, case, configuration, assets)
    due = early_stop(run.val_losses, case.patience, case.earliest)
    status = run.outcome["status"]
    measured(
        status=status,
        stopped=status == "EARLY_STOP",
        stop_is_due=due is not None,
        epochs_left=len(run.epochs),
        epochs_until_due=len(run.epochs) if due is None else due + 1,
        record=run.sha256(),
    )


def falsify_divergence_follows_the_rule(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration, assets: Assets
) -> None:
    """A run ends in DIVERGENCE at the first held-out loss above the limit, and only there."""
    import math

    from falsifiers.run_rules import divergence

    run = run_under_test(subject, case, configuration, assets)
    losses = run.val_losses
    if run.outcome["epochs"] > len(losses):  # the one that ended the run has no checkpoint
        losses.append(run.outcome["final_val_loss"])
    scratch = run.identity["mode"] == "from-scratch"
    guessing = math.log(configuration["vocab_size"])
    ceiling = case.scratch_factor * guessing if scratch else case.finetune_ceiling
    due = divergence(losses, case.growth, ceiling)
    status = run.outcome["status"]
    measured(
        status=status,
        exit_code=run.outcome["exit_code"],
        stopped=status == "DIVERGENCE",
        stop_is_due=due is not None,
        epochs_ended=len(losses),
        epochs_until_due=len(losses) if due is None else due + 1,
        record=run.sha256(),
    )


def falsify_seed_decides_the_run(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration
) -> None:
    """The same command again gives the same numbers; with another seed others, soon."""
    from falsifiers.tiny_runs import tiny_run

    names = ("learning", "repeated", "other-seed")
    first, again, other = (
        RunRecord(
            subject.run_directory(tiny_run(subject, name, configuration, case.device).folder)
        ).log
        for name in names
    )
    pairs = list(zip(first, again, strict=False))
    measured(
        steps_compared=len(pairs) if len(first) == len(again) else 0,
        loss_difference=max(abs(a["train_loss"] - b["train_loss"]) for a, b in pairs),
        norm_difference=max(abs(a["grad_norm"] - b["grad_norm"]) for a, b in pairs),
        other_rates=sum(a["lr"] != b["lr"] for a, b in pairs),
        seed_difference=max(
            abs(a["train_loss"] - b["train_loss"])
            for a, b in zip(first[:10], other[:10], strict=True)
        ),
    )


def falsify_logged_numbers_are_possible(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration, assets: Assets
) -> None:
    """No NaN and nothing out of range was logged, and norms and rates are no constants."""
    from falsifiers.run_rules import is_possible

    run = run_under_test(subject, case, configuration, assets)
    lines = len(run.log)
    measured(
        lines=lines,
        impossible=sum(not is_possible(line) for line in run.log),
        distinct_norms=len({line["grad_norm"] for line in run.log}) / lines,
        distinct_speeds=len({line["tokens_per_sec"] for line in run.log}) / lines,
        record=run.sha256(),
    )


def falsify_mode_defaults_come_together(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration, assets: Assets
) -> None:
    """Rate, warm-up and target are those of the mode, an explicit one replaces its own field."""
    from falsifiers.run_rules import rate_error

    run = run_under_test(subject, case, configuration, assets)
    schedule = run.identity["schedule"]
    measured(
        recorded_mode=run.identity["mode"],
        recorded_peak=schedule["lr_max"],
        recorded_warmup=schedule["warmup_steps"],
        recorded_target=run.identity["target_loss"],
        steps_logged=len(run.log),
        rate_error=rate_error(run.log, case.peak, case.warmup, case.planned),
        record=run.sha256(),
    )


def falsify_training_is_real_compute(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration, assets: Assets
) -> None:
    """Nobody asked for synthetic data and none was used; each step's loss is its own."""
    run = run_under_test(subject, case, configuration, assets)
    losses = [line["train_loss"] for line in run.log]
    dataset = run.identity.get("dataset_sha256")
    measured(
        synthetic=run.identity["synthetic"],
        dataset_named=isinstance(dataset, str) and len(dataset) == 64,
        first_loss=losses[0],
        distinct_losses=len(set(losses)) / len(losses),
        last_losses=sum(losses[-5:]) / 5,
        record=run.sha256(),
    )


def falsify_command_trains_on_the_data(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration
) -> None:
    """First loss and norm, and the held-out loss at the end, are the oracle's on the same data.

    A step holds every window of the corpus, so that their order does not matter.
    """
    import numpy as np
    import torch

    from falsifiers.reference.gradients import global_norm, loss_and_gradients
    from falsifiers.run_directory import weights_of
    from falsifiers.tiny_runs import LENGTH, dataset, init_weights, tiny_run, windows

    made = tiny_run(subject, "whole", configuration, case.device)
    run = RunRecord(subject.run_directory(made.folder))
    corpus = dataset(subject, "few")
    tokens, _ = windows(corpus / "train-00000.bin", LENGTH, padded=False)
    initial = init_weights(configuration)
    loss, gradients = loss_and_gradients(initial, configuration, tokens)
    norm, first, last = global_norm(gradients), run.log[0], run.epochs[-1]
    held_out, mask = windows(corpus / "heldout-00000.bin", LENGTH, padded=True)
    weights = {n: torch.from_numpy(np.array(w)) for n, w in weights_of(last.path).items()}
    exact, _ = loss_and_gradients(weights, configuration, held_out, mask)
    measured(
        windows=len(tokens),
        sequences=run.step_tokens // LENGTH,
        loss_error=abs(first["train_loss"] - loss) / loss,
        norm_error=abs(first["grad_norm"] - norm) / norm,
        held_out_error=abs(last.metadata["val_loss"] - exact) / exact,
        moved=max(float((weights[n] - w).abs().max()) for n, w in initial.items()),
    )


def falsify_data_end_halts(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration
) -> None:
    """With --data-end halt the run takes the steps that there are windows for, and says why."""
    from falsifiers.tiny_runs import LENGTH, dataset, tiny_run, windows

    made = tiny_run(subject, "halted", configuration, case.device)
    run = RunRecord(subject.run_directory(made.folder))
    tokens, _ = windows(dataset(subject, "few") / "train-00000.bin", LENGTH, padded=False)
    measured(
        status=run.outcome["status"],
        exit_code=made.exit_code,
        message=run.outcome["message"],
        windows=len(tokens),
        sequences=run.step_tokens // LENGTH,
        steps_logged=len(run.log),
    )


def falsify_data_end_cycles(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration
) -> None:
    """By default the data begins again, with one notice for the whole run."""
    from falsifiers.tiny_runs import LENGTH, RUNS, dataset, tiny_run, windows

    made = tiny_run(subject, case.run, configuration, case.device)
    run = RunRecord(subject.run_directory(made.folder))
    shard = dataset(subject, RUNS[case.run].corpus) / "train-00000.bin"
    tokens, _ = windows(shard, LENGTH, padded=False)
    measured(
        status=run.outcome["status"],
        passes=run.step_tokens * len(run.log) / tokens[:, 1:].numel(),
        steps_logged=len(run.log),
        notices=made.messages.count("INV-TRAIN-011"),
    )


def falsify_final_loss_reaches_the_target(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration, assets: Assets
) -> None:
    """The last held-out loss of the run is at most the target of its mode."""
    run = run_under_test(subject, case, configuration, assets)
    measured(
        final_val_loss=run.val_losses[-1],
        recorded_target=run.identity["target_loss"],
        record=run.sha256(),
    )


def _record_losses(run: RunRecord, series: Series) -> None:
    """Loss by optimizer step: of each step, and held out at the end of each epoch."""
    axes = {"x": "optimizer steps", "y": "loss", "y_unit": "nats/token"}
    training = [(done, line.get("train_loss")) for done, line in enumerate(run.log, start=1)]
    # By step, since epochs out of place are what claims are for, and no axis runs backwards.
    ends = {epoch.checkpoint.training["step"]: epoch.metadata["val_loss"] for epoch in run.epochs}
    series("training", training, **axes)
    series("held out", sorted(ends.items()), **axes)


def falsify_limits_of_divergence_are_exact(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration
) -> None:
    """Held-out losses at a limit, just above it and between it and others: each decides alone."""
    import math

    from falsifiers.run_rules import divergence

    size = configuration["vocab_size"]
    scratch = case.mode == "from-scratch"
    ceiling = case.scratch_factor * math.log(size) if scratch else case.finetune_ceiling
    wrong, due = [], 0
    histories = _near_the_limits(ceiling, case.growth)
    for losses in histories:
        ends = divergence(losses, case.growth, ceiling) is not None
        due += ends
        expected = "DIVERGENCE" if ends else "OK"
        found = subject.status_after_epoch(losses, mode=case.mode, vocab_size=size)
        wrong += [f"{found} after {losses}"] if found != expected else []
    measured(tried=len(histories), due=due, wrong=len(wrong), faults="; ".join(wrong)[:800])


def _near_the_limits(ceiling: float, growth: float) -> list[list[float]]:
    """Held-out losses of one to three epochs, of which at most the last can be divergence."""
    import math

    firsts = [share * ceiling for share in (0.5, 0.99, 1.01, 1.25, 1.49, 1.6, 3.0)]
    found = [[first] for first in (*firsts, ceiling, math.nextafter(ceiling, math.inf))]
    for before in (0.2, 1.0, 1.9, 3.0, 4.5):
        limit = growth * before
        shares = (0.4, 0.75, 0.99, 1.01, 1.1, 1.4, 2.0)
        lasts = [limit, math.nextafter(limit, math.inf), *(share * limit for share in shares)]
        for start in ([], [before / 1.7], [before * 1.7]):
            found += [[*start, before, last] for last in lasts]
    return found
