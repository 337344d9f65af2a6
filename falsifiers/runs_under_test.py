"""The run that a claim about a finished run is about: a recorded one, or a tiny one made here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aprverify.outcomes import NotRun
from falsifiers.fixtures import Assets, Case, Configuration, Subject
from falsifiers.run_directory import RunRecord

RECORDED = "recorded"


def run_under_test(
    subject: Subject, case: Case, configuration: Configuration, assets: Assets
) -> RunRecord:
    """The run that `case.run` names, of the model that `configuration` is.

    Raises:
        NotRun: what was given as the recorded run is a run of another model, not on a GPU, or of
            another trainer.
    """
    from falsifiers.tiny_runs import tiny_run

    if case.run != RECORDED:
        folder = tiny_run(subject, case.run, configuration, case.device).folder
        return RunRecord(subject.run_directory(folder))
    folder = assets("recorded-run").parent
    subject.require_own_run(folder)
    run = RunRecord(subject.run_directory(folder))
    if differing := _differences(run.run, configuration):
        raise NotRun(
            "asset",
            f"{run.root} is no run of {case.arch} on a GPU: {'; '.join(differing)}",
            f"give the outcome.json of one that is, by --asset {RECORDED}-run=FILE",
        )
    return run


def _differences(run: Mapping[str, Any], configuration: Configuration) -> list[str]:
    config = run.get("config", {})
    names = [name for name, value in configuration.items() if config.get(name) != value]
    differing = [f"{name} is {config.get(name)!r}, not {configuration[name]!r}" for name in names]
    if not str(run.get("device", "")).startswith("cuda"):
        differing.append(f"device is {run.get('device')!r}")
    return differing
