"""Where a run comes from: the machines, the command, the files by hash."""

from __future__ import annotations

from collections.abc import Iterator

from aprverify.evidence.markdown import count, number
from aprverify.evidence.provenance import differences, where
from aprverify.evidence.records import Environment
from aprverify.views.html.markup import Markup, element, join
from aprverify.views.html.outline import Outline
from aprverify.views.html.values import facts


def environments(outline: Outline) -> Markup:
    """Every machine that rows of the run come from."""
    return element(
        "section",
        element("h2", "Environments"),
        [_environment(outline, found) for found in outline.environments.values()],
        id="environments",
    )


def _environment(outline: Outline, environment: Environment) -> Markup:
    rows = sum(row.environment == environment.id for row in outline.run.rows)
    return element(
        "section",
        element("h3", where(environment) + differences(environment, outline.run.environments)),
        facts(list(_machine(environment, rows))),
        id=outline.fragment("environment", environment.id),
    )


def _machine(environment: Environment, rows: int) -> Iterator[tuple[str, str | list[str]]]:
    memory = f"{number(environment.memory_gib)} GiB"
    yield "Id", element("code", environment.id)
    yield "Entries", str(rows)
    yield "Processor", f"{environment.cpu}, {count(environment.cores, 'core')}, {memory}"
    yield (
        "GPU",
        [
            f"{gpu.name}, {number(gpu.memory_gib)} GiB, compute capability {gpu.compute_capability}"
            for gpu in environment.gpus
        ],
    )
    yield "Driver", environment.driver or ""
    yield "System", environment.platform
    yield "Python", environment.python
    packages = sorted(environment.packages.items())
    yield "Packages", [f"{name} {version}" for name, version in packages]
    variables = sorted(environment.variables.items())
    yield "Variables", [element("code", f"{name}={value}") for name, value in variables]


def provenance(outline: Outline) -> Markup:
    """What was asked for, of which files, and the hash of what all of this was made from."""
    return element(
        "section",
        element("h2", "Provenance"),
        facts(list(_facts(outline))),
        element(
            "p",
            "This page is a function of run.jsonl alone. ",
            element("code", "aprverify check"),
            " reads that file again, with distrust.",
        ),
        id="provenance",
    )


def _facts(outline: Outline) -> Iterator[tuple[str, str | list[str]]]:
    run, header, source = outline.run, outline.run.header, outline.run.header.source
    yield "Run", element("code", header.run_id)
    yield "SHA-256 of run.jsonl", element("code", run.sha256)
    yield "Subject", element("code", header.subject)
    yield "Suite", element("code", header.suite)
    yield "Command", element("code", " ".join(header.command))
    yield "Selection", _selection(outline)
    yield "Required devices", ", ".join(header.require) or "none"
    yield "Started, finished", f"{header.started}, {run.footer.finished}"
    yield "Duration", f"{number(run.footer.seconds)} s"
    yield "Interrupted", "yes" if run.footer.interrupted else "no"
    dirty = {True: ", with uncommitted changes", False: ", clean", None: ""}[source.dirty]
    known = source.commit is not None
    yield "Commit", f"{source.commit}{dirty}" if known else "unknown (no git)"
    yield (
        "aprverify",
        join((source.aprverify_version, ", ", element("code", source.aprverify_sha256))),
    )
    assets = sorted({item for row in run.rows for item in row.assets.items()})
    yield "Artifacts used", [join((name, " ", element("code", sha))) for name, sha in assets]


def _selection(outline: Outline) -> str:
    selection = outline.run.header.selection
    if selection.everything:
        return "everything"
    asked = {
        "-k": selection.keyword,
        "-m": selection.markers,
        "paths": " ".join(selection.paths),
        "lane": selection.lane,
        "teeth": selection.teeth,
        "up to": selection.dearest,
    }
    return "a part: " + ", ".join(f"{name} {value}" for name, value in asked.items() if value)
