"""One process of `workers.py`.

python -m benchmarks.compared.worker JOB.json ANSWERS.jsonl
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from aprverify.planting import call_by_name, load_defects
from benchmarks.compared.bands import Bands, loss_numbers, norm_numbers
from benchmarks.compared.curves import watch
from benchmarks.compared.hf_modeling import record_golden_values
from benchmarks.compared.trial import Watch, as_json, trials, try_clean
from benchmarks.compared.workers import LEFT_BEHIND
from falsifiers.adapters.bundled import BundledSubject
from falsifiers.suite import SUITE


def main() -> int:
    """Answer every item of the job."""
    job, answers = (Path(word) for word in sys.argv[1:])
    order = json.loads(job.read_text())
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    with answers.open("w", buffering=1) as stream:

        def answer(item: str, **fields: Any) -> None:
            stream.write(json.dumps({"item": item, **fields}) + "\n")

        if order["what"] == "watch":
            for item in order["items"]:
                answer(item, **_clean_numbers(int(item)), over=True)
            return 0
        observer = observer_of(order["observer"])
        if order["what"] == "clean":
            for item in order["items"]:
                findings = as_json(try_clean(_seeded(observer, int(item))))
                answer(item, findings=findings, over=True)
            return 0
        return _defects(order, observer, answer)


def _defects(order: Mapping[str, Any], observer: Watch, answer: Any) -> int:
    """Answer with each trial as it begins, with what it found, and when a defect is done with."""
    defects = load_defects(SUITE)
    clean = call_by_name(SUITE.canary)
    record_golden_values()  # while nothing is planted; all other expected values are others'
    for item in order["items"]:
        if time.time() > order["until"]:
            break
        for checks, trial in trials(defects[item], observer).items():
            if not set(checks) & set(order["done"].get(item, ())):
                answer(item, begun=checks)
                answer(item, findings=as_json(trial()))
        if call_by_name(SUITE.canary) != clean:
            answer(item, broken="the defect left something behind", over=True)
            return LEFT_BEHIND
        answer(item, over=True)
    return 0


def _clean_numbers(seed: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="compared-") as folder:
        curves = watch(BundledSubject(), Path(folder), seed)
    endings = {name: curve.ending for name, curve in curves.items()}
    return {"losses": loss_numbers(curves), "norms": norm_numbers(curves), "endings": endings}


def _seeded(observer: Watch, seed: int) -> Watch:
    return Watch(seed, observer.losses, observer.norms)


def observer_of(body: Mapping[str, Any]) -> Watch:
    """The observer that `observer_as_json` wrote down."""
    bands = {
        name: Bands({n: (low, high) for n, (low, high) in body[name].items()}, body["endings"])
        for name in ("losses", "norms")
    }
    return Watch(int(body["seed"]), bands["losses"], bands["norms"])


if __name__ == "__main__":
    sys.exit(main())
