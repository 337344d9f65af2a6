"""The report of a run: what it does not show, the score with its interval, and every survivor."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping

from aprverify.evidence.markdown import code, count, details, escape, table
from aprverify.mutants.record import Body, Record
from aprverify.mutants.score import OUTCOMES, Score
from aprverify.mutants.settings import Settings
from aprverify.mutants.triage import ALIVE, stub, survivors, untriaged

FILE = "report.md"
_MEANING = {
    "killed": "a claim was falsified",
    "crashed": "the trainer raised or died under a falsifier, and no claim that was tried fell",
    "timed_out": "a falsifier took twenty times as long, and twenty seconds, and no claim fell",
    "broken": "the falsifier itself broke on what it got: `verify` would be red, without a verdict",
    "survived": "every falsifier that was tried held",
    "unreached": "no falsifier on the CPU executes the statement",
}


def render(record: Record, settings: Settings) -> str:
    """Markdown."""
    return "\n".join([*_lines(record, settings), ""])


def summary(record: Record, settings: Settings) -> list[str]:
    """A few lines for a terminal."""
    score = _score(record.mutants.values(), settings)
    told = ", ".join(f"{score.counts[name]} {name.replace('_', ' ')}" for name in OUTCOMES)
    return [
        f"{score.total} of {len(record.header['drawn'])} mutants: {told}",
        f"noticed {score.noticed}; by a claim alone {score.by_claim}",
        f"of those not argued to be equivalent: {score.without_equivalent}",
        f"{count(len(untriaged(settings, record)), 'survivor')} without a word said of them",
    ]


def _lines(record: Record, settings: Settings) -> Iterator[str]:
    header, score = record.header, _score(record.mutants.values(), settings)
    yield (
        "This does not show that the trainer is right, nor what share of real faults would be "
        "found: mutants are small, one at a time, drawn from the files below, and tried on the CPU "
        "by uncompiled cases only. CUDA code is not mutated."
    )
    yield ""
    yield "# Unplanned mutants"
    yield ""
    yield from _totals(score)
    yield ""
    if header["named"]:
        yield "These mutants were named and not drawn: their share says nothing of others."
        yield ""
    if record.missing:
        missing = count(record.missing, "drawn mutant")
        yield f"{missing} were not tried: the budget was spent. They count nowhere."
        yield ""
    yield from _controls(record)
    yield ""
    yield from _counts(score)
    yield ""
    yield "## By file"
    yield ""
    yield from _strata(record, settings, lambda body: str(body["file"]), "file")
    yield ""
    yield "## By kind of change"
    yield ""
    yield from _strata(record, settings, lambda body: str(body["family"]), "kind")
    yield ""
    yield "## Survivors"
    yield ""
    yield from _survivors(record, settings)
    yield ""
    yield from _noticed(record)
    yield ""
    yield "## Where it comes from"
    yield ""
    yield from _provenance(header, record)


def _totals(score: Score) -> Iterator[str]:
    yield from table(
        ("share of mutants, with its 95 % interval (Wilson)", ""),
        [
            ("noticed: a claim fell, or the trainer broke or hung", f"**{score.noticed}**"),
            ("a claim fell", str(score.by_claim)),
            ("noticed, of those not argued to be equivalent", str(score.without_equivalent)),
        ],
        "lr",
    )
    yield ""
    yield (
        "The draw is stratified in proportion, for which this interval, that of a simple draw, is "
        "a little too wide. It is that of the draw alone: operators and files were chosen."
    )


def _controls(record: Record) -> Iterator[str]:
    fell = [body for body in record.controls if body["outcome"] != "survived"]
    named = ", ".join(sorted({str(body["module"]) for body in record.controls})) or "none"
    tried = sum(body.get("tried", 0) for body in record.controls)
    yield (
        f"{count(len(record.controls), 'control')}, the source of {named} served unchanged: "
        f"{len(fell)} fell, over {count(tried, 'falsifier')} run."
    )
    for body in fell:
        yield f"A CONTROL FELL: {escape(str(body.get('by')))}"


def _counts(score: Score) -> list[str]:
    rows = [(name.replace("_", " "), str(score.counts[name]), _MEANING[name]) for name in OUTCOMES]
    return table(("outcome", "mutants", "meaning"), rows, "lrl")


def _strata(
    record: Record, settings: Settings, name_of: Callable[[Body], str], head: str
) -> list[str]:
    groups: dict[str, list[Body]] = {}
    for body in record.mutants.values():
        groups.setdefault(name_of(body), []).append(body)
    rows = []
    for name, bodies in sorted(groups.items()):
        score = _score(bodies, settings)
        alive = sum(score.counts[outcome] for outcome in ALIVE)
        figures = (score.counts["killed"], alive, score.equivalent, score.noticed)
        rows.append((code(name), *map(str, figures)))
    return table((head, "killed", "alive", "equivalent", "noticed"), rows, "lrrrr")


def _survivors(record: Record, settings: Settings) -> Iterator[str]:
    alive = survivors(record)
    told = Counter(
        settings.triage[b["id"]].kind if b["id"] in settings.triage else "untriaged" for b in alive
    )
    counted = ", ".join(f"{told[name]} {name}" for name in sorted(told)) or "none"
    yield f"{count(len(alive), 'mutant')} alive: {counted}."
    yield ""
    rows = []
    for body in alive:
        said = settings.triage.get(body["id"])
        words = "**untriaged**" if said is None else f"{said.kind}: {escape(said.text)}"
        rows.append((code(body["id"]), _change(body), _ended(body), words))
    yield from table(("mutant", "change", "outcome", "what is said of it"), rows)
    if missing := untriaged(settings, record):
        yield ""
        yield from details("to paste into the settings", ["```yaml", *map(stub, missing), "```"])


def _change(body: Body) -> str:
    place, _, change = str(body["label"]).partition(" ")
    was, _, becomes = change.strip("`").partition("` → `")
    return f"{escape(place)}:{body['line']}<br>{code(was)}<br>{code(becomes) if becomes else '–'}"


def _ended(body: Body) -> str:
    told = str(body["outcome"])
    if body["outcome"] == "survived":
        told = f"survived {body['tried']} of {body['planned']}"
    others = "; ".join(sorted({str(other["detail"]) for other in body.get("others", ())})[:2])
    return told + (f" ({escape(others[:120])})" if others else "")


def _noticed(record: Record) -> list[str]:
    rows = []
    for body in sorted(record.mutants.values(), key=lambda b: (b["file"], b["line"], b["id"])):
        if body["outcome"] not in ALIVE:
            by = body.get("by") or {}
            rows.append(
                (code(body["id"]), _change(body), str(body["outcome"]).replace("_", " "),
                 code(str(by.get("entry", ""))), escape(str(by.get("detail", ""))[:120]))
            )  # fmt: skip
    head = ("mutant", "change", "outcome", "first falsifier", "what it said")
    return details(f"every mutant that changed an outcome ({len(rows)})", table(head, rows))


def _provenance(header: Body, record: Record) -> Iterator[str]:
    facts: list[tuple[str, str]] = [
        ("commit", f"{header['commit']}{' with changes' if header['dirty'] else ''}"),
        ("command", header["command"]),
        ("seed", str(header["seed"])),
        ("operators", header["tool"]),
        *((f"sha256 of {name}", value) for name, value in header["sources"].items()),
        *((name, str(header["environment"][name])) for name in ("python", "platform", "cpu")),
        ("torch", str(header["environment"]["packages"].get("torch"))),
        ("falsifiers", f"{record.falsifiers.get('usable', 0)} cases"),
        ("seconds", f"{record.seconds:.0f}"),
        ("processes", str(header["workers"])),
    ]
    yield from table(("what", "value"), [(name, code(value)) for name, value in facts])
    population = header["population"]
    yield ""
    yield (
        f"Drawn from {population['sites']} sites with {population['mutants']} mutants in "
        f"{population['strata']} strata. Not mutated, by spots:"
    )
    yield ""
    left_out: Mapping[str, int] = population["left_out"]
    rows: Iterable[tuple[str, str]] = [(escape(why), str(n)) for why, n in left_out.items()]
    yield from table(("why", "spots"), rows, "lr")
    unused: Mapping[str, str] = record.falsifiers.get("left_out", {})
    yield ""
    yield from details(
        f"cases on the CPU that were not used ({len(unused)})",
        table(("case", "why"), [(code(k), escape(w[:120])) for k, w in unused.items()]),
    )


def _score(bodies: Iterable[Body], settings: Settings) -> Score:
    said = settings.triage
    return Score.of(
        (str(b["outcome"]), b["id"] in said and said[b["id"]].kind == "equivalent") for b in bodies
    )
