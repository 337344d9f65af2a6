"""One run: what falsifiers execute, then mutant after mutant, and the controls among them."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from aprverify.matrix.pool import Command, Pool, taking
from aprverify.mutants.order import Watched, candidates
from aprverify.mutants.population import Mutant, Population
from aprverify.mutants.record import Writer
from aprverify.plugin.in_process import FIXTURES
from aprverify.suite import Suite
from aprverify.talk import Talk, WorkerDied

Body = dict[str, Any]
PATIENT = 6.0
"""A falsifier may take so many times the processor time that it may cost, by the clock."""
AFTER_FALL = 6
"""How many falsifiers may crash, break or hang under a mutant while a claim is looked for that
falls; a module that cannot be imported breaks all of them."""
REACH_FILE = "reach.jsonl"
WORKER = "aprverify.mutants.worker"


class Session:
    """Tries mutants with a pool of workers. `told` is called with a line for whoever waits."""

    def __init__(
        self,
        suite: Suite,
        package: str,
        population: Population,
        writer: Writer,
        pool: Pool,
        told: Callable[[str], None],
    ) -> None:
        self._suite, self._package, self._population = suite, package, population
        self._writer, self._pool, self._told = writer, pool, told

    def watch(
        self, keys: Sequence[str], cache: Path, dearest: float
    ) -> tuple[list[Watched], dict[str, str]]:
        """Each falsifier on the trainer as it is; and why some cannot be used.

        Args:
            keys: of the entries.
            cache: a file of what was watched before, and is now.
            dearest: seconds of processor time that one may take.
        """
        answers: dict[str, Body] = {}
        if cache.exists():
            found = map(json.loads, cache.read_text().splitlines())
            answers = {answer["entry"]: answer for answer in found}
        waiting = deque(key for key in keys if key not in answers)
        total = len(waiting)

        def one(talk: Talk, key: str) -> None:
            try:
                talk.tell({"watch": key, "limit": PATIENT * dearest})
                answers[key] = talk.answer()
            except WorkerDied as death:
                answers[key] = {"entry": key, "held": False, "why": str(death)}
            with cache.open("a") as stream:
                stream.write(json.dumps(answers[key]) + "\n")
            self._told(f"watched {len(answers) - len(keys) + total} of {total} falsifiers")

        take = taking(waiting)
        self._pool.share(take, one)
        unused = {key: answers[key]["why"] for key in keys if not answers[key]["held"]}
        held = [Watched.of(answers[key], self._package) for key in keys if key not in unused]
        dear = {w.entry: f"takes {w.seconds:.2g} s" for w in held if w.seconds > dearest}
        return [w for w in held if w.entry not in dear], {**unused, **dear}

    def hunt(
        self,
        mutants: Sequence[Mutant | None],
        watched: Sequence[Watched],
        patience: float,
        deadline: float | None,
    ) -> None:
        """Try each mutant; None is a control: a source served unchanged, which must survive."""
        number, total = [0], len(mutants)

        def one(talk: Talk, drawn: tuple[Mutant | None]) -> None:
            (mutant,) = drawn
            order = self._order(mutant, watched, patience)
            try:
                talk.tell(order)
                answer = talk.answer()
            except WorkerDied as death:
                answer = {"outcome": "crashed", "by": None, "detail": str(death), "served": 0}
            self._write(mutant, order, answer)
            number[0] += 1
            what = "control" if mutant is None else f"{mutant.id} {mutant.file}"
            self._told(f"{number[0]} of {total}: {what} {answer['outcome']}")

        self._pool.share(taking(deque((mutant,) for mutant in mutants), deadline), one)

    def _order(self, mutant: Mutant | None, watched: Sequence[Watched], patience: float) -> Body:
        if mutant is None:
            # The file that most falsifiers use, all of them, and as long as they take.
            file = max(self._population.sources, key=lambda f: sum(f in w.lines for w in watched))
            text, found = self._population.sources[file].text, list(watched)
            patience = 10 * sum(one.seconds for one in watched) + 60
        else:
            file, found = mutant.file, candidates(mutant, watched)
            text = str(self._population.sources[file].after(mutant))
        path = self._suite.root / file
        module = ".".join(path.relative_to(self._suite.root).with_suffix("").parts)
        return {
            "mutant": mutant.id if mutant else "control",
            "change": {
                "module": module.removesuffix(".__init__"),
                "path": str(path),
                "source": text,
            },
            "entries": [[one.entry, one.limit] for one in found],
            "patience": patience,
            "after_fall": AFTER_FALL,
        }

    def _write(self, mutant: Mutant | None, order: Mapping[str, Any], answer: Body) -> None:
        if order["entries"] and answer["outcome"] == "survived" and not answer["served"]:
            answer = {**answer, "outcome": "unreached"}  # nobody imported the module
        body = {name: value for name, value in answer.items() if name != "mutant"}
        if mutant is None:
            self._writer.write("control", {"module": order["change"]["module"], **body})
            return
        about = {
            "id": mutant.id,
            "file": mutant.file,
            "function": mutant.function,
            "family": mutant.spot.family,
            "operator": mutant.spot.operator,
            "line": mutant.spot.start[0],
            "label": self._population.label(mutant),
        }
        self._writer.write("mutant", {**about, **body})


def worker_command(
    suite: str, subject: str, workers: int, assets: Sequence[str], patience: float
) -> Command:
    """How the workers of a run are started."""
    limit = 10 * max(patience, 60.0) + 600
    return Command(suite, subject, "cpu", workers, limit, tuple(assets), module=WORKER)


def unfit(entry: Any, parameters: set[str]) -> str:
    """Why an entry of this device cannot be tried here, or ""."""
    if foreign := parameters - FIXTURES:
        return f"asks for {', '.join(sorted(foreign))}"
    if entry.case.parameters.get("compiled", False):
        return "runs compiled code, which would be compiled anew for every mutant"
    return ""
