"""Whether what is said of survivors fits the sources and what came of the run."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from aprverify.mutants.record import Body, Record
from aprverify.mutants.settings import Settings, Triage

if TYPE_CHECKING:
    from aprverify.mutants.population import Population

ALIVE = ("survived", "unreached")
"""What needs a word. Where a falsifier broke, `aprverify verify` is red already."""


def faults(
    settings: Settings, population: Population, tests: Collection[str], record: Record | None
) -> Iterator[str]:
    """What is wrong with the triage, each with its line."""
    for mutant, said in settings.triage.items():
        where = f"{settings.path}:{said.line}: {mutant}"
        known = population.by_id.get(mutant)
        if known is None:
            yield f"{where}: the sources have no such mutant; drop the entry, or triage anew"
            continue
        if (label := population.label(known)) != said.label:
            yield f"{where}: the mutant is {label}; triage it anew"
        if said.kind == "claim" and said.text not in tests:
            yield f"{where}: no test is called {said.text}"
        body = record.mutants.get(mutant) if record else None
        usable = record.falsifiers.get("tests", ()) if record else ()
        if body is not None and (fault := _contradiction(said, body, usable)):
            yield f"{where}: {fault}"


def _contradiction(said: Triage, body: Body, usable: Collection[str]) -> str:
    if said.kind == "equivalent" and body["outcome"] == "killed":
        by = body["by"]["entry"]
        return f"said to be equivalent, and {by} kills it; drop the entry, or mend the claim"
    all_tried = body["outcome"] in ALIVE and body["tried"] == body["planned"]
    if said.kind == "claim" and all_tried and said.text in usable:
        return f"said to be killed by {said.text}, and lived with all that execute it; triage anew"
    return ""


def untriaged(settings: Settings, record: Record) -> list[Body]:
    """Mutants that live, and of which nothing is said."""
    return [body for body in survivors(record) if body["id"] not in settings.triage]


def gaps(settings: Settings, record: Record) -> list[Body]:
    """Mutants that live and are said to be gaps."""
    said = settings.triage
    return [b for b in survivors(record) if b["id"] in said and said[b["id"]].kind == "open"]


def survivors(record: Record) -> list[Body]:
    """Mutants that changed no outcome of any case that was tried, by place."""
    alive = [body for body in record.mutants.values() if body["outcome"] in ALIVE]
    return sorted(alive, key=lambda body: (body["file"], body["line"], body["id"]))


def stub(body: Body) -> str:
    """The line to paste into the settings."""
    label = str(body["label"]).replace("\\", "\\\\").replace('"', '\\"')
    return f'      {body["id"]}: "{label}"'
