"""The commands that show a failure again, exact and safe to paste; and what they need."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence

from aprverify.contract.model import spell
from aprverify.evidence.markdown import number
from aprverify.evidence.provenance import where
from aprverify.evidence.records import Environment, Row, Run
from aprverify.evidence.reproduction import command, given_assets, options
from aprverify.explain.story import Reproduction

_SELECTABLE = re.compile(r"[A-Za-z0-9._+-]+")
"""What a value may hold that ``-k name:value`` takes."""
_NUMERIC = ("torch", "numpy", "triton", "transformers")


def reproduction(run: Run, row: Row) -> Reproduction:
    """How the entry is run again, by itself and as evidence."""
    expression, others = selection(run, row)
    teeth = "declared" if row.defect is not None else "none"
    recorded = ["aprverify", "verify", *options(run, row), "--teeth", teeth, "-k", expression]
    source = run.header.source
    dirty = {True: " with uncommitted changes", False: ", clean", None: ""}[source.dirty]
    machine = next(e for e in run.environments if e.id == row.environment)
    return Reproduction(
        entry=command(run, row) if row.nodeid else "",
        recorded=shlex.join(recorded),
        needs=tuple(_needs(row, given_assets(run, row))),
        others=others,
        seed=_seed(row),
        commit=f"{source.commit}{dirty}" if source.commit else "unknown (no git)",
        machine=f"{where(machine)}; {machine.platform}",
        versions=_versions(machine),
    )


def selection(run: Run, row: Row) -> tuple[str, int]:
    """A ``-k`` expression for one entry: its test, and its whole case as far as it can be said.

    The whole case and not what tells it apart in this run: the run may be of one device or lane,
    and the contract may have gained cases since, one for several GPUs for instance.

    Returns:
        The expression, and how many other entries of the run it selects too, since ``-k`` cannot
        name every value.
    """
    siblings = sorted(
        test.id
        for contract in run.contracts
        for test in contract.tests
        if test.id.partition(".")[0] == row.test and test.id != row.test
    )
    words = [row.test, *(f"not {name}" for name in siblings)]
    alike = [other for other in run.rows if (other.test, other.kind) == (row.test, row.kind)]
    others = [_pairs(other) for other in alike]
    for name, value in _pairs(row).items():
        if not _SELECTABLE.fullmatch(value):
            continue
        words.append(f"{name}:{value}")
        others = [pairs for pairs in others if pairs.get(name) == value]
    return " and ".join(words), len(others) - 1


def _pairs(row: Row) -> dict[str, str]:
    pairs = {name: spell(value) for name, value in {**row.case, "scale": row.scale}.items()}
    return {**pairs, **({"defect": row.defect} if row.defect else {})}


def _needs(row: Row, given: Sequence[str]) -> Iterator[str]:
    for name, digest in sorted(row.assets.items()):
        # A file that a variable or a merged run's command named looks like one that was fetched.
        how = "`aprverify fetch` gets it if a package ships it; else name its file"
        how = "name its file" if name in given else f"{how}, --asset {name}=FILE"
        yield f"asset {name}, SHA-256 {digest}: {how}"


def _seed(row: Row) -> str:
    return spell(row.case["seed"]) if "seed" in row.case else "none: its case has no seed"


def _versions(machine: Environment) -> str:
    packages = [f"{n} {machine.packages[n]}" for n in _NUMERIC if n in machine.packages]
    driver = [f"driver {machine.driver}"] if machine.driver else []
    variables = [f"{name}={value}" for name, value in sorted(machine.variables.items())]
    memory = f"{number(machine.memory_gib)} GiB"
    return ", ".join([f"Python {machine.python}", *packages, *driver, memory, *variables])
