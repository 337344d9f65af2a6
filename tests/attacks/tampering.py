"""A run taken apart into lines, to be put together again in a way that no honest run is."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from aprverify.contract.claims import compare, slack_and_margin
from aprverify.evidence.values import canonical_json, environment_id
from tests.evidence.builder import (
    ENVIRONMENT,
    GPU,
    Body,
    comparison,
    contract,
    rewrite,
    row,
    write_run,
)

_PLACE = ("type", "seq", "prev", "id")


class Evidence:
    """The lines of a run, and the parts of it that attacks are about."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.bodies: list[Body] = [json.loads(x) for x in file.read_text("utf-8").splitlines()]

    def of(self, kind: str) -> list[Body]:
        """The lines of one kind."""
        return [body for body in self.bodies if body["type"] == kind]

    @property
    def header(self) -> Body:
        """The first line."""
        return self.bodies[0]

    @property
    def footer(self) -> Body:
        """The last line."""
        return self.bodies[-1]

    @property
    def held(self) -> Body:
        """A clean row, the first that held and has teeth and a bound to attack."""
        return self.target[0]

    @property
    def compared(self) -> Body:
        """The comparison of that row with a bound that is not written in the claim."""
        return self.target[1]

    @property
    def target(self) -> tuple[Body, Body]:
        """`held` and `compared`."""
        planted = {(r["test"], tuple(r["case"].items())) for r in self.rows_of("caught")}
        for body in self.rows_of("held"):
            for made in body["comparisons"]:
                left, op, right = made["text"].partition(" <= ")
                if (
                    op
                    and left in body["measures"]
                    and right.isidentifier()
                    and right not in {**body["measures"], **body["case"]}
                    and (body["test"], tuple(body["case"].items())) in planted
                    and sum(left in other["text"] for other in body["comparisons"]) == 1
                ):
                    return body, made
        raise AssertionError("no row to attack")

    @property
    def caught(self) -> Body:
        """A row with teeth."""
        return self.rows_of("caught")[0]

    def rows_of(self, outcome: str) -> list[Body]:
        """The rows that ended so."""
        return [body for body in self.of("row") if body["outcome"] == outcome]

    def declared(self, body: Body) -> tuple[Body, Body]:
        """The contract line and its test that a row is about."""
        for line in self.of("contract"):
            for test in line["tests"]:
                if test["id"] == body["test"]:
                    return line, test
        raise AssertionError(body["test"])

    def measure(self, value: float, body: Body | None = None) -> None:
        """Let the attacked row, or another, have observed `value`: in its measures too."""
        body, made = self.target if body is None else (body, body["comparisons"][0])
        body["measures"][made["text"].partition(" <= ")[0]] = value
        self.observe(made, value)

    def observe(self, made: Body, value: Any) -> None:
        """Let a comparison have observed `value`, evaluated honestly."""
        made["observed"] = value
        self.evaluate(made)

    def evaluate(self, made: Body) -> None:
        """Evaluate a comparison again."""
        made["holds"] = compare(made["op"], made["observed"], made["bound"])
        made["slack"], made["margin"] = slack_and_margin(
            made["op"], made["observed"], made["bound"]
        )

    def falsify(self) -> tuple[Body, Body]:
        """Make the attacked row an honest falsified one, which attacks then hide."""
        body, made = self.target
        self.measure(made["bound"] * 2 + 1)
        body["outcome"] = "falsified"
        self.recount()
        return body, made

    def recount(self) -> None:
        """Let header and footer count what is there."""
        rows = self.of("row")
        self.header["planned"] = self.footer["planned"] = self.footer["rows"] = len(rows)
        self.footer["outcomes"] = dict(Counter(body["outcome"] for body in rows))

    def drop(self, *lines: Body) -> None:
        """Take lines out."""
        self.bodies = [body for body in self.bodies if not any(body is line for line in lines)]

    def rename_environment(self, line: Body) -> None:
        """Give a changed environment its own hash, and its rows that name."""
        old = line["id"]
        line["id"] = environment_id({k: v for k, v in line.items() if k not in _PLACE})
        for body in self.of("row"):
            if body["environment"] == old:
                body["environment"] = line["id"]

    def save(self, mended: bool = True) -> None:
        """Write the lines, with a chain that fits unless told not to mend it."""
        if mended:
            rewrite(self.file, self.bodies)
        else:
            self.file.write_text(
                "".join(canonical_json(body) + "\n" for body in self.bodies), "utf-8"
            )

    def lines(self) -> list[bytes]:
        """The bytes of each line, with its end."""
        return self.file.read_bytes().splitlines(keepends=True)

    def write(self, *lines: bytes) -> None:
        """Write bytes."""
        self.file.write_bytes(b"".join(lines))


def toy_run(file: Path) -> Path:
    """A small run with what attacks need: two devices, teeth, a GPU, two contracts."""
    cases = {f"device={d},dtype=float32": ("full", d) for d in ("cpu", "cuda")}
    cases["device=cpu,dtype=bfloat16"] = ("reduced", "cpu")
    bodies = (_toy_contract("A", cases), _toy_contract("B", cases))
    machine = {**ENVIRONMENT, "gpus": [GPU], "driver": "580.1"}
    rows = tuple(
        body for name in "AB" for case in cases for body in _toy_rows(name, case, *cases[case])
    )
    header = {"run_id": file.parent.name, "require": ["cuda"]}
    return write_run(file, rows, bodies, environment=machine, **header)


def _toy_contract(name: str, cases: dict[str, tuple[str, str]]) -> Body:
    text = json.dumps(contract(dict.fromkeys(cases, "full"))).replace("-A", f"-{name}")
    body: Body = json.loads(text.replace("a.yaml", f"{name.lower()}.yaml"))
    test = body["tests"][0]
    test["cases"] = [{"id": c, "scale": s, "device": d} for c, (s, d) in cases.items()]
    test["claims"].append({"id": "c2", "expr": "count == 3"})
    test["counter_examples"] = ["drop-bias", "eps"]
    return body


def _toy_rows(name: str, case: str, scale: str, device: str) -> Iterator[Body]:
    for outcome, defect in (("held", None), ("caught", "drop-bias"), ("caught", "eps")):
        observed = 0.5 if outcome == "held" else 2.0
        made = [
            comparison(observed),
            comparison(3, 3, "==", claim="c2", text="count == 3", unit="1"),
        ]
        text = json.dumps(
            row(
                outcome,
                case,
                defect,
                comparisons=made,
                measures={"loss": observed, "count": 3},
                scale=scale,
            )
        )
        body: Body = json.loads(text.replace("-A", f"-{name}"))
        dtype = case.rpartition("=")[2]
        yield {**body, "case": {"device": device, "dtype": dtype}}
