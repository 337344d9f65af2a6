"""Whether a row was measured where the policy wants it, in words where it was not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

from aprverify.evidence.records import Environment

RANGES = ("compute_capability", "torch", "driver")
"""The fields that are ranges of versions, as PEP 440 writes them: ``>=2.11,<3``."""


@dataclass(frozen=True)
class Condition:
    """What an environment must be like; None: anything. `card` is a glob over GPU names."""

    card: str | None = None
    compute_capability: SpecifierSet | None = None
    torch: SpecifierSet | None = None
    driver: SpecifierSet | None = None

    @classmethod
    def of(cls, fields: Mapping[str, str]) -> Condition:
        """A condition as a policy without problems writes it."""
        ranges = {name: SpecifierSet(fields[name]) for name in RANGES if name in fields}
        return cls(card=fields.get("card"), **ranges)

    def misfit(self, environment: Environment) -> str | None:
        """Why rows of this environment do not count; None where they do."""
        cards = [gpu.name for gpu in environment.gpus] or ["no GPU"]
        for card in cards:
            if self.card is not None and not fnmatchcase(card, self.card):
                return f"card {card} is not {self.card}"
        capabilities = [gpu.compute_capability for gpu in environment.gpus] or ["none"]
        found = {
            "compute_capability": capabilities,
            "torch": [environment.packages.get("torch", "none")],
            "driver": [environment.driver or "none"],
        }
        for name in RANGES:
            wanted: SpecifierSet | None = getattr(self, name)
            for version in found[name]:
                if wanted is not None and not _in(version, wanted):
                    return f"{name.replace('_', ' ')} {version} is not {wanted}"
        return None


def _in(version: str, wanted: SpecifierSet) -> bool:
    try:
        found = Version(version)
    except InvalidVersion:
        return False
    # Images of vendors bring builds such as 2.11.0a0: they were cut from what became 2.11, and PEP
    # 440 sorts them before it.
    names = [found, Version(found.base_version)] if found.is_prerelease else [found]
    return any(wanted.contains(name, prereleases=True) for name in names)
