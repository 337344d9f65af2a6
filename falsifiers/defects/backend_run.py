"""GPUs that are claimed and not used, and slow steps."""

from __future__ import annotations

from typing import Any

from aprverify.planting import PROTOCOL, SOURCE, Plant, defect
from falsifiers.edited_runs import edit_json, edit_lines, edit_runs
from falsifiers.wrapping import SubjectWrapper, wrap_configuration


@defect(
    "residency-proof-missing",
    kind=PROTOCOL,
    imitates="a proof that is skipped where the driver lists no processes",
    symptom="the record of a CUDA run holds no proof of residency",
    hidden="the run says that its device is cuda:0",
)
def residency_proof_missing(plant: Plant) -> None:
    """Remove the proof from the record."""
    edit_runs(
        plant,
        lambda run: edit_json(run / "run.json", lambda content: content.update(residency=None)),
    )


@defect(
    "residency-of-weights-only",
    kind=PROTOCOL,
    imitates="optimizer state that is kept on the host",
    symptom="a third of the training state is on the GPU: the weights",
    hidden="the weights are there, and losses are right",
)
def residency_of_weights_only(plant: Plant) -> None:
    """Divide the bytes of state by three."""

    def change(content: Any) -> None:
        if content["residency"]:
            content["residency"]["state_bytes"] //= 3

    edit_runs(plant, lambda run: edit_json(run / "run.json", change))


@defect(
    "residency-proof-made-up",
    kind=PROTOCOL,
    imitates="a proof that is a constant",
    symptom="the proof names the strongest kind and saw no memory",
    hidden="the word is the right one",
)
def residency_proof_made_up(plant: Plant) -> None:
    """Claim the strongest proof without a number."""

    def change(content: Any) -> None:
        content["residency"] = {
            "proof": "nvml-process",
            "reason": None,
            "device": content["device"],
            "state_bytes": 0,
            "process_bytes": None,
            "device_bytes_grown": None,
            "allocated_bytes": 0,
        }

    edit_runs(plant, lambda run: edit_json(run / "run.json", change))


@defect(
    "cpu-run-logs-no-norm",
    kind=PROTOCOL,
    imitates="the seed: the CPU path has a placeholder for the gradient norm",
    symptom="a run on the CPU logs null for the gradient norm",
    hidden="the CPU path is for tests only, people say",
)
def cpu_run_logs_no_norm(plant: Plant) -> None:
    """Blank the norm."""
    edit_runs(plant, edit_lines(lambda line: {"grad_norm": None}))


@defect(
    "steps-made-slow",
    kind=SOURCE,
    imitates="a synchronisation with a slow disk in every step",
    symptom="each step takes 600 ms longer",
    hidden="losses are right; only the bill is higher",
)
def steps_made_slow(plant: Plant) -> None:
    """Sleep in every step from number 20 on, those that are timed."""
    import time

    def make(original: Any) -> Any:
        def measured(pending: Any, *arguments: Any) -> Any:
            if pending.step >= 20:
                plant.effect(True)
                time.sleep(0.6)
            return original(pending, *arguments)

        return measured

    plant.patch("trainer.run.loop:measured", make)


@defect(
    "recorded-speed-of-the-cpu",
    kind=PROTOCOL,
    imitates="a trainer that was asked for CUDA and ran on the CPU",
    symptom="the recorded rate is a hundredth of the GPU's",
    hidden="losses are right, forty times more slowly",
)
def recorded_speed_of_the_cpu(plant: Plant) -> None:
    """Divide the logged rates by a hundred."""
    edit_runs(plant, edit_lines(lambda line: {"tokens_per_sec": line["tokens_per_sec"] / 100}))


def _halved(config: dict[str, Any]) -> dict[str, Any]:
    return {**config, "num_layers": config["num_layers"] // 2}


@defect(
    "half-the-layers-built",
    kind=PROTOCOL,
    imitates="a benchmark of the small configuration that a test left behind",
    symptom="steps are timed of a model with half of the layers",
    hidden="it is fast, and its loss falls",
)
def half_the_layers_built(plant: Plant) -> None:
    """Halve the number of layers."""
    wrap_configuration(plant, _halved)


def _report(plant: Plant, name: str) -> None:
    def make(original: Any) -> Any:
        def state(cuda_version: Any, count: int) -> str:
            clean = original(cuda_version, count)
            plant.effect(clean != name)
            return name

        return state

    plant.patch("trainer.device_report:_state", make)


@defect(
    "report-knows-no-build",
    kind=SOURCE,
    imitates="torch.cuda.is_available(), which is False for two reasons",
    symptom="a torch without CUDA is reported as a machine without a GPU",
    hidden="people then look for the driver, which is there",
)
def report_knows_no_build(plant: Plant) -> None:
    """Report one state for all."""
    _report(plant, "CUDA_BUILD_NO_GPU")


class _OtherMachine(SubjectWrapper):
    def command(self, *arguments: str, processes: int = 1) -> list[str]:
        """The devices command as another machine would answer it."""
        import json
        import sys

        command: list[str] = self.inner.command(*arguments, processes=processes)
        if arguments[:1] != ("devices",):
            return command
        self.plant.effect(True)
        devices = [{"device": "cuda:0", "name": ""}, {"device": "cuda:1", "name": ""}]
        report = {"state": "CUDA_VISIBLE", "torch": "", "devices": devices}
        return [sys.executable, "-c", f"print({json.dumps(json.dumps(report))})"]


@defect(
    "report-of-another-machine",
    kind=PROTOCOL,
    imitates="a report that was cached where an image was built",
    symptom="the report shows two nameless GPUs, in a state that does not exist",
    hidden="on the machine of the cache it is right",
)
def report_of_another_machine(plant: Plant) -> None:
    """See the class."""
    plant.wrap_subject(lambda subject: _OtherMachine(subject, plant))
