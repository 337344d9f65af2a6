"""Whose signature counts: a small YAML (or JSON) file of names and public keys.

    identities:
      - name: gpu-runner
        keys: ["ed25519:…"]

Several keys of one name let a key be changed without a gap; a key that is taken out counts no more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aprverify.contract.document import DocumentError, read_document
from aprverify.trust.keys import PublicKey, public_key_from
from aprverify.trust.refusals import UnusableKeys

TRUSTED_FILE = "trusted-keys.yaml"
"""At the root of the suite."""


@dataclass(frozen=True)
class Trusted:
    """Public keys by key id, each with the name of its owner; `path`: where they were read."""

    path: Path
    keys: Mapping[str, tuple[str, PublicKey]] = field(default_factory=dict)

    def owner(self, key: PublicKey) -> str | None:
        """Whose key it is; None for nobody's."""
        found = self.keys.get(key.key_id)
        return found[0] if found else None

    @property
    def names(self) -> list[str]:
        """Every name, once."""
        return sorted({name for name, _ in self.keys.values()})


def read_trusted(path: Path) -> Trusted:
    """The trusted keys; none where there is no such file.

    Raises:
        UnusableKeys: not a file of this form; names the line.
    """
    if not path.exists():
        return Trusted(path)
    try:
        document = read_document(path)
    except DocumentError as error:
        raise UnusableKeys(path, error.line, str(error)) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UnusableKeys(path, None, f"cannot be read: {error}") from None
    data: Any = document.data
    if not isinstance(data, dict) or data.keys() != {"identities"}:
        raise UnusableKeys(path, 1, "it holds `identities:` and nothing else")
    if not isinstance(data["identities"], list):
        raise UnusableKeys(path, document.line("identities"), "identities is a list")
    keys: dict[str, tuple[str, PublicKey]] = {}
    for index, identity in enumerate(data["identities"]):
        line = document.line("identities", index)
        name, texts = _identity(path, line, identity)
        for text in texts:
            key = _key(path, line, text)
            if key.key_id in keys:
                raise UnusableKeys(path, line, f"{text} is listed twice")
            keys[key.key_id] = (name, key)
    return Trusted(path, keys)


def _identity(path: Path, line: int, identity: Any) -> tuple[str, list[Any]]:
    if not isinstance(identity, dict) or identity.keys() != {"name", "keys"}:
        raise UnusableKeys(path, line, "an identity has a name and keys, and nothing else")
    name, keys = identity["name"], identity["keys"]
    if not isinstance(name, str) or not name or not name.isprintable():
        raise UnusableKeys(path, line, f"{name!r} is no name")
    if not isinstance(keys, list) or not keys:
        raise UnusableKeys(path, line, f"{name} has no list of keys")
    return name, keys


def _key(path: Path, line: int, text: Any) -> PublicKey:
    try:
        return public_key_from(str(text))
    except ValueError as error:
        raise UnusableKeys(path, line, f"{text!r:.60} is no key: {error}") from None
