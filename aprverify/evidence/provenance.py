"""Where a run comes from: commit, command, machines, versions and hashes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from aprverify.evidence.markdown import code, count, details, escape, number, table, wrapped_code
from aprverify.evidence.records import Environment, Run

_COMMAND = 80


def provenance_lines(run: Run) -> list[str]:
    """What somebody needs who wants the same run; the long lists open on a click."""
    facts = [(name, value) for name, value in _facts(run) if value]
    lines = table(("what", "value"), facts)
    contracts = ([code(c.path), escape(c.version), code(c.sha256)] for c in run.contracts)
    hashes = table(("contract", "version", "sha256"), contracts)
    lines += ["", *details(f"{count(len(run.contracts), 'contract')} with their hashes", hashes)]
    assets = sorted({item for row in run.rows for item in row.assets.items()})
    if assets:
        named = table(
            ("asset used", "sha256"), ([code(name), code(sha256)] for name, sha256 in assets)
        )
        lines += ["", *details(f"{count(len(assets), 'asset')} with their hashes", named)]
    for environment in run.environments:
        machine = f"{where(environment)}{differences(environment, run.environments)}"
        about = f"{escape(environment.id)}: {escape(machine)}"
        lines += ["", *details(about, table(("what", "value"), _machine(environment)))]
    return lines


def where(environment: Environment) -> str:
    """The machine in a few words: its accelerators, or else its processor."""
    if not environment.gpus:
        return f"{environment.cpu}, {count(environment.cores, 'core')}"
    names = Counter(gpu.name for gpu in environment.gpus)
    return ", ".join(f"{amount} × {name}" for name, amount in sorted(names.items()))


def differences(environment: Environment, others: Sequence[Environment]) -> str:
    """What tells an environment from those that `where` calls the same, in brackets; else ""."""
    alike = [e for e in others if e.id != environment.id and where(e) == where(environment)]
    own = _flat(environment)
    names = sorted(
        {
            name
            for flat in map(_flat, alike)
            for name in {*own, *flat}
            if own.get(name) != flat.get(name)
        }
    )
    told = ", ".join(f"{name}: {own.get(name, 'none')}" for name in names)
    return f" ({told})" if told else ""


def _flat(environment: Environment) -> dict[str, str]:
    """Every field by name, as texts."""
    return {
        **environment.packages,
        **{name: value or "empty" for name, value in environment.variables.items()},
        "Python": environment.python,
        "system": environment.platform,
        "processor": environment.cpu,
        "cores": str(environment.cores),
        "GiB of memory": number(environment.memory_gib),
        "driver": environment.driver or "none",
        "GPUs": "; ".join(
            f"{gpu.name}, {number(gpu.memory_gib)} GiB, {gpu.compute_capability}"
            for gpu in environment.gpus
        ),
    }


def commit(run: Run) -> str:
    """The commit as code, and whether the tree was as committed."""
    source = run.header.source
    dirty = {True: ", with uncommitted changes", False: ", clean", None: ""}[source.dirty]
    return f"{code(source.commit)}{dirty}" if source.commit else "unknown (no git)"


def _facts(run: Run) -> Iterator[tuple[str, str]]:
    header, source = run.header, run.header.source
    yield "run", code(header.run_id)
    yield "started, finished", f"{header.started}, {run.footer.finished}"
    yield "duration", f"{number(run.footer.seconds)} s"
    yield "subject", code(header.subject)
    yield "suite", code(header.suite)
    yield "command", wrapped_code(" ".join(header.command), _COMMAND, " @")
    yield "selection", escape(_selection(run))
    yield "required devices", escape(", ".join(header.require) or "none")
    yield "commit", commit(run)
    yield "aprverify", f"{escape(source.aprverify_version)}, {code(source.aprverify_sha256)}"
    yield "sha256 of run.jsonl", code(run.sha256)


def _selection(run: Run) -> str:
    selection = run.header.selection
    if selection.everything:
        return "everything"
    asked = {
        "-k": selection.keyword,
        "-m": selection.markers,
        "paths": " ".join(selection.paths),
        "lane": "" if selection.lane == "all" else selection.lane,
        "teeth": "" if selection.teeth == "declared" else selection.teeth,
        "up to": selection.dearest,
    }
    return ", ".join(f"{name} {value}" for name, value in asked.items() if value) or "a part"


def _machine(environment: Environment) -> Iterator[tuple[str, str]]:
    memory = f"{number(environment.memory_gib)} GiB"
    yield "processor", f"{escape(environment.cpu)}, {count(environment.cores, 'core')}, {memory}"
    for gpu in environment.gpus:
        capability = f"compute capability {escape(gpu.compute_capability)}"
        yield "GPU", f"{escape(gpu.name)}, {number(gpu.memory_gib)} GiB, {capability}"
    if environment.driver:
        yield "driver", escape(environment.driver)
    yield "system", escape(environment.platform)
    yield "Python", escape(environment.python)
    for name, version in sorted(environment.packages.items()):
        yield escape(name), escape(version)
    for name, value in sorted(environment.variables.items()):
        yield code(name), code(value)
