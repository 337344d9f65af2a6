"""Ed25519 keys (RFC 8032): made, kept, read. The library is asked for where it is needed only."""

from __future__ import annotations

import base64
import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_PREFIX = "ed25519:"
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


class KeyProblem(Exception):
    """A key cannot be made, read or used: the message says what and what to do."""


@dataclass(frozen=True)
class PublicKey:
    """The half of a key that anybody may know, its 32 bytes."""

    raw: bytes

    @property
    def text(self) -> str:
        """As a file of trusted keys writes it."""
        return _PREFIX + base64.b64encode(self.raw).decode()

    @property
    def key_id(self) -> str:
        """A name for the key: SHA-256 of its bytes."""
        return f"sha256:{hashlib.sha256(self.raw).hexdigest()}"

    def verifies(self, signature: bytes, signed: bytes) -> bool:
        """Whether the private half made `signature` over `signed`.

        Raises:
            KeyProblem: the library is not installed, or takes these bytes for no key.
        """
        _need_library()
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, signed)
        except InvalidSignature:
            return False
        except ValueError as error:
            raise KeyProblem(f"{self.text}: {error}") from None
        return True


class PrivateKey:
    """The half that signs. It has no text, so that it is never printed by accident."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key

    def sign(self, signed: bytes) -> bytes:
        """The signature over `signed`, 64 bytes."""
        return self._key.sign(signed)

    @property
    def public(self) -> PublicKey:
        """Its other half."""
        return PublicKey(self._key.public_key().public_bytes_raw())


def public_key_from(text: str) -> PublicKey:
    """The inverse of `PublicKey.text`.

    Raises:
        ValueError: not of that form.
    """
    encoded = text.removeprefix(_PREFIX)
    if encoded == text:
        raise ValueError(
            f"a public key reads {_PREFIX}…, as `aprverify sign --generate-key` prints"
        )
    raw = base64.b64decode(encoded, validate=True)
    if len(raw) != 32:
        raise ValueError(f"an Ed25519 key has 32 bytes, this one {len(raw)}")
    return PublicKey(raw)


def generate_key(path: Path) -> PublicKey:
    """Make a key and keep its private half at `path`: PKCS #8 PEM, readable by its owner only.

    Raises:
        KeyProblem: the library is not installed.
        FileExistsError: there is something at `path`; a key is never overwritten.
        OSError: it cannot be written; names `path`.
    """
    _need_library()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    # Never for a moment readable by others, and through no link.
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
    with os.fdopen(os.open(path, flags, 0o600), "wb") as file:
        file.write(pem)
    return PrivateKey(key).public


def load_key(path: Path) -> PrivateKey:
    """The private key at `path`, PKCS #8 PEM without a password.

    Raises:
        KeyProblem: the library is not installed, others can read the file, or it is no such key.
        OSError: it cannot be read; names `path`.
    """
    _need_library()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    mode = stat.S_IMODE(path.stat().st_mode)
    if os.name == "posix" and mode & _OTHERS:
        raise KeyProblem(
            f"{path}: others may read it (mode {mode:04o}). Make a new key, or `chmod 600` it if "
            "nobody could"
        )
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError):
        # The library's own message could quote the file.
        raise KeyProblem(
            f"{path}: no private key in PEM without a password. `aprverify sign --generate-key` "
            "makes one"
        ) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyProblem(f"{path}: a key of another kind; this signs with Ed25519 only")
    return PrivateKey(key)


def _need_library() -> None:
    try:
        import cryptography  # noqa: F401
    except ImportError:
        raise KeyProblem(
            "signatures need the package `cryptography`: `pip install 'aprverify[sign]'`"
        ) from None
