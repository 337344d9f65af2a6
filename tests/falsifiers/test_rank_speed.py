"""FALSIFY-DDP-005 without GPUs: a stand-in logs what two of them might, and its claims can fail."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import pytest

from aprverify.contract.lint import Loaded
from aprverify.outcomes import Falsified
from aprverify.plan import Entry
from aprverify.planting import PROTOCOL, Plant, load_defects, planted
from aprverify.plugin.attempt import Attempt
from falsifiers import falsify_data_parallel
from falsifiers.subject import Subject
from falsifiers.suite import SUITE

_TRAINER = """
import json, pathlib, sys
seconds, world, *words = json.loads(sys.argv[1])
option = dict(zip(words, words[1:]))
root = pathlib.Path(option["--run-dir"])
(root / "ckpt").mkdir(parents=True)
(root / "ckpt" / "epoch-001.apr").write_bytes(b"large")
rows, length = int(option["--batch-size"]), int(option["--seq-length"])
identity = {"micro_batch_size": rows, "accumulation": 1, "seq_length": length}
identity |= {"world_size": world, "synthetic": "--synthetic" in words}
(root / "run.json").write_text(json.dumps({"identity": identity}))
steps = int(option["--num-steps"])
# Compilation, an outlier in the middle, and noise on the others.
taken = [10 * seconds] * 20 + [seconds * (1 + 0.001 * (s % 3 - 1)) for s in range(steps - 20)]
taken[40] = 5 * seconds
speeds = [{"tokens_per_sec": world * rows * length / one} for one in taken]
(root / "train.jsonl").write_text("".join(json.dumps(line) + chr(10) for line in speeds))
(root / "outcome.json").write_text("{}")
"""


class _StandIn:
    """A trainer whose step takes so many seconds on each GPU, and so many on both."""

    def __init__(self, alone: tuple[float, float], together: float, world: int = 2) -> None:
        self.seconds = {"cuda:0": alone[0], "cuda:1": alone[1], "cuda": together}
        self.world = world

    def command(self, *words: str, processes: int = 1) -> list[str]:
        device = words[words.index("--device") + 1]
        assert processes == (2 if device == "cuda" else 1)
        world = self.world if processes == 2 else 1
        return [sys.executable, "-c", _TRAINER.replace(
            "json.loads(sys.argv[1])", f"[{self.seconds[device]}, {world}, *sys.argv[1:]]"
        ), *words]  # fmt: skip

    def run_directory(self, path: Path) -> Path:
        return path


def _attempt(loaded: Loaded) -> Attempt:
    found = (
        Entry(contract, test, test.cases[0])
        for contract in loaded.contracts
        for test in contract.tests
        if test.id == "FALSIFY-DDP-005"
    )
    return Attempt(next(found), loaded.configurations)


def _judge(loaded: Loaded, subject: Any) -> Attempt:
    attempt = _attempt(loaded)
    with suppress(Falsified):
        falsify_data_parallel.falsify_reduction_hides(
            cast(Subject, subject), attempt.entry.case, attempt.measured
        )
    return attempt


def _failed(attempt: Attempt) -> set[str]:
    return {claim for claim, outcome in attempt.comparisons if not outcome.holds}


def test_a_reduction_that_hides_is_held(loaded: Loaded) -> None:
    """The slower GPU is the yardstick, and the median forgets the outlier and the warm-up."""
    attempt = _judge(loaded, _StandIn((0.096, 0.1), 0.102))
    assert _failed(attempt) == set()
    assert attempt.measures["overhead"] == pytest.approx(1 - 0.1 / 0.102)
    assert attempt.measures["milliseconds_together"] == pytest.approx(102.0)
    assert attempt.measures["gpus_apart"] == pytest.approx(0.1 / 0.096 - 1)
    assert attempt.measures["steps_timed"] == 40


@pytest.mark.parametrize(
    ("alone", "together", "world", "claim"),
    [
        ((0.1, 0.1), 0.106, 2, "hidden"),
        ((0.1, 0.1), 0.300, 2, "hidden"),
        ((0.1, 0.1), 0.094, 2, "credible"),
        ((0.1, 0.1), 0.100, 1, "shared"),
    ],
    ids=["a twentieth and more", "sockets", "faster than alone", "nothing shared"],
)
def test_what_it_must_see(
    loaded: Loaded, alone: tuple[float, float], together: float, world: int, claim: str
) -> None:
    """Each claim fails by itself."""
    assert _failed(_judge(loaded, _StandIn(alone, together, world))) == {claim}


_PROTOCOL = ("reduction-after-the-backward", "throughput-of-one-rank", "ranks-counted-twice")


@pytest.mark.parametrize("overhead", [0.0, 0.03])
@pytest.mark.parametrize("name", _PROTOCOL)
def test_each_protocol_defect_is_caught(
    loaded: Loaded, tmp_path: Path, name: str, overhead: float
) -> None:
    """On a trainer whose reduction hides, and on one that nearly fails already."""
    defect = load_defects(SUITE)[name]
    assert defect.kind == PROTOCOL
    clean = _StandIn((0.1, 0.1), 0.1 / (1 - overhead))
    assert _failed(_judge(loaded, clean)) == set()
    with planted(SUITE, defect, clean, tmp_path / "report") as plant:
        attempt = _judge(loaded, plant.subject)
    assert plant.changed == 1
    assert _failed(attempt) == {"credible" if name == "ranks-counted-twice" else "hidden"}


def test_the_source_defect_takes_the_ways_from_nccl(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it does to the transport shows on two GPUs only; that it asks for it shows here."""
    import torch.distributed as dist

    asked: list[str] = []
    monkeypatch.setattr(dist, "init_process_group", asked.append)
    for name in ("NCCL_P2P_DISABLE", "NCCL_SHM_DISABLE"):
        monkeypatch.setenv(name, "0")  # restored when the test ends
    defect = load_defects(SUITE)["ranks-talk-by-sockets"]
    plant = Plant(defect)
    defect.plant(plant)
    for backend in ("cpu:gloo,cuda:nccl", "gloo"):
        dist.init_process_group(backend)
    plant.leave()
    assert asked == ["cpu:gloo,cuda:nccl", "gloo"]
    assert (plant.reached, plant.changed) == (2, 1)
    assert (os.environ["NCCL_P2P_DISABLE"], os.environ["NCCL_SHM_DISABLE"]) == ("1", "1")
