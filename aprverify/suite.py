"""Where a suite keeps its parts. aprverify names everything in it by string and imports none of it.

A package declares a suite by an entry point in the group ``aprverify.suites`` that points at a
`Suite`; a project selects one by ``aprverify_suite = NAME`` in its pytest configuration.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

GROUP = "aprverify.suites"


class SuiteError(Exception):
    """No such suite, or one that cannot be used."""


@dataclass(frozen=True)
class Suite:
    """The parts of a suite.

    Attributes:
        name: what ``--suite`` and ``aprverify_suite`` call it.
        root: the folder that source ids name files relative to.
        contracts_dir: folder of contract files, ``schema/`` and ``configurations.yaml`` in it.
        falsifiers_dir: folder of ``falsify_*.py`` modules.
        package: the import name of `falsifiers_dir`.
        defects_dir: folder of the modules that hold planted defects, inside the package.
        subjects: ``module:attribute`` of each subject by short name; the first is the default.
        canary: ``module:function`` that measures something cheap and clean, as a string.
        on_plant: ``module:function`` called on entering and on leaving a defect, or "".
        assets_file: the registry of assets.
        evidence_dir: the folder that holds ``runs/`` and ``local/``.
        sources: top-level packages whose files count towards a source id.
        after_entry: ``module:function`` called in a worker after each entry, or "". It gives back
            what the entry held and other workers need; it can change no result.
    """

    name: str
    root: Path
    contracts_dir: Path
    falsifiers_dir: Path
    package: str
    defects_dir: Path
    subjects: Mapping[str, str]
    canary: str
    on_plant: str
    assets_file: Path
    evidence_dir: Path
    sources: tuple[str, ...]
    after_entry: str = ""

    def subject(self, name: str) -> str:
        """``module:attribute`` of a subject, by short name or spelled out.

        Raises:
            SuiteError: neither.
        """
        if name in self.subjects:
            return self.subjects[name]
        if ":" in name:
            return name
        known = ", ".join(self.subjects)
        raise SuiteError(f"no subject {name!r}: use one of {known}, or MODULE:ATTRIBUTE")

    @property
    def default_subject(self) -> str:
        """The short name of the suite's own trainer, which source defects are written for."""
        return next(iter(self.subjects))

    @property
    def configurations(self) -> Path:
        """The file of named model configurations."""
        return self.contracts_dir / "configurations.yaml"


def find_suite(name: str) -> Suite:
    """The installed suite called `name`.

    Raises:
        SuiteError: none is installed under that name.
    """
    entry_points = metadata.entry_points(group=GROUP)
    for entry_point in entry_points:
        if entry_point.name == name:
            try:
                suite = entry_point.load()
            except (ImportError, AttributeError) as error:
                raise SuiteError(
                    f"suite {name}: cannot load {entry_point.value}: {error}"
                ) from None
            if not isinstance(suite, Suite):
                raise SuiteError(f"entry point {entry_point.value} is no aprverify.suite.Suite")
            return suite
    known = ", ".join(sorted(e.name for e in entry_points)) or "none"
    raise SuiteError(f"no suite {name!r} is installed (found: {known}); run `pip install -e .`")
