"""Private keys stay private and are never lost; public ones are read with distrust."""

from __future__ import annotations

import builtins
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from aprverify.trust.envelope import Envelope, EnvelopeSignature, load_envelope
from aprverify.trust.keys import KeyProblem, generate_key, load_key, public_key_from
from aprverify.trust.refusals import UnusableKeys
from aprverify.trust.trusted import read_trusted

pytest.importorskip("cryptography", reason="signatures need the extra `sign`")


def test_a_new_key_is_its_owners_alone(tmp_path: Path) -> None:
    """Mode 0600 whatever the umask says, and the public half is what was told."""
    before = os.umask(0)
    try:
        public = generate_key(tmp_path / "key.pem")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "key.pem").stat().st_mode) == 0o600
    assert load_key(tmp_path / "key.pem").public == public


@pytest.mark.parametrize("there", ["a key", "a dangling link"])
def test_a_key_is_never_overwritten(tmp_path: Path, there: str) -> None:
    """Nor written through a link to somewhere else."""
    path = tmp_path / "key.pem"
    if there == "a key":
        generate_key(path)
        before = path.read_bytes()
    else:
        path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileExistsError):
        generate_key(path)
    if there == "a key":
        assert path.read_bytes() == before
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_key_that_others_may_read_is_not_used(tmp_path: Path, mode: int) -> None:
    """It may be known to anybody by now."""
    generate_key(tmp_path / "key.pem")
    (tmp_path / "key.pem").chmod(mode)
    with pytest.raises(KeyProblem, match=f"mode {mode:04o}"):
        load_key(tmp_path / "key.pem")


def test_what_is_no_key_is_not_quoted(tmp_path: Path) -> None:
    """It may be a secret of another kind; a key of another algorithm is refused as such."""
    path = tmp_path / "key.pem"
    path.write_text("hunter2")
    path.chmod(0o600)
    with pytest.raises(KeyProblem, match="no private key in PEM") as caught:
        load_key(path)
    assert "hunter2" not in str(caught.value)
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    other = generate_private_key(SECP256R1())
    path.write_bytes(other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(KeyProblem, match="Ed25519 only"):
        load_key(path)


def test_a_private_key_has_no_text(tmp_path: Path) -> None:
    """Neither printing it nor formatting it shows anything of it."""
    generate_key(tmp_path / "key.pem")
    key = load_key(tmp_path / "key.pem")
    secret = (tmp_path / "key.pem").read_text().splitlines()[1]
    assert secret not in f"{key} {key!r} {vars(key)}"


def test_without_the_library_the_message_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything else works without it, so it is asked for only here."""
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.partition(".")[0] == "cryptography":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(KeyProblem, match=r"pip install 'aprverify\[sign\]'"):
        generate_key(tmp_path / "key.pem")
    assert not (tmp_path / "key.pem").exists()


def test_signatures_are_those_of_rfc_8032() -> None:
    """The second test vector of its section 7.1: key, message and signature."""
    public = public_key_from("ed25519:PUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw=")
    signature = bytes.fromhex(
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    )
    assert public.verifies(signature, b"\x72")
    assert not public.verifies(signature, b"\x73")
    assert not public.verifies(signature[:-1], b"\x72")


def test_the_bytes_that_are_signed_are_those_of_the_dsse_protocol() -> None:
    """The example of its specification, and the envelope comes back as it was."""
    envelope = Envelope(
        b"hello world", "http://example.com/HelloWorld", (EnvelopeSignature("a", b"b"),)
    )
    assert envelope.signed_bytes == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    assert load_envelope(envelope.dump().encode()) == envelope


KEY = "ed25519:PUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw="


def test_trusted_keys_are_read_by_name(tmp_path: Path) -> None:
    """And no file trusts nobody."""
    path = tmp_path / "trusted-keys.yaml"
    assert read_trusted(path).names == []
    path.write_text(f"identities:\n  - name: gpu-runner\n    keys: ['{KEY}']\n")
    trusted = read_trusted(path)
    assert trusted.names == ["gpu-runner"]
    assert trusted.owner(public_key_from(KEY)) == "gpu-runner"


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("identities: [", 2, "not YAML"),
        ("identities: []\nidentities: []", 2, "identities"),
        ("- a", 1, "holds `identities:`"),
        ("identities: []\nmore: 1", 1, "nothing else"),
        ("identities: 3", 1, "is a list"),
        ("identities:\n  - name: a", 2, "a name and keys"),
        (f"identities:\n  - name: ''\n    keys: ['{KEY}']", 2, "is no name"),
        ("identities:\n  - name: a\n    keys: []", 2, "no list of keys"),
        ("identities:\n  - name: a\n    keys: [ed25519:AAAA]", 2, "32 bytes"),
        ("identities:\n  - name: a\n    keys: [rsa:AAAA]", 2, "a public key reads"),
        ("identities:\n  - name: a\n    keys: ['ed25519:!']", 2, "is no key"),
        (
            f"identities:\n  - name: a\n    keys: ['{KEY}']\n  - name: b\n    keys: ['{KEY}']",
            4,
            "listed twice",
        ),
    ],
)
def test_a_file_of_keys_with_a_fault_is_refused_with_its_line(
    tmp_path: Path, text: str, line: int, says: str
) -> None:
    """A slip must not make somebody trusted, or nobody, in silence."""
    path = tmp_path / "trusted-keys.yaml"
    path.write_text(text)
    with pytest.raises(UnusableKeys) as caught:
        read_trusted(path)
    assert caught.value.line == line, caught.value
    assert says in str(caught.value)
