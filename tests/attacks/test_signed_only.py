"""What the reader cannot refuse, the signature does."""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path

import pytest

from aprverify.evidence.reader import RUN_FILE, read_run
from aprverify.trust.envelope import load_envelope
from aprverify.trust.keys import PublicKey, generate_key, load_key
from aprverify.trust.refusals import (
    BadSignature,
    DamagedEnvelope,
    SignatureRefused,
    UnknownSigner,
    Unsigned,
    WrongSigner,
    WrongSubject,
)
from aprverify.trust.signing import sign_run
from aprverify.trust.trusted import Trusted
from aprverify.trust.verify import SIGNATURE_FILE, verify
from aprverify.views.intoto import statement

from .signed_only import ATTACKS, Attack
from .tampering import Evidence
from .test_refused import SOURCES, make

pytest.importorskip("cryptography", reason="signatures need the extra `sign`")


@pytest.fixture(scope="module")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The key of the one who is trusted."""
    path = tmp_path_factory.mktemp("keys") / "key.pem"
    generate_key(path)
    return path


@pytest.fixture(scope="module")
def trusted(key_file: Path) -> Trusted:
    """One who is trusted."""
    return _trust(load_key(key_file).public)


def _trust(key: PublicKey, name: str = "gpu-runner") -> Trusted:
    return Trusted(Path("trusted-keys.yaml"), {key.key_id: (name, key)})


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory, key_file: Path) -> dict[str, Path]:
    """Both runs, signed and unharmed."""
    files = {source: make(source, tmp_path_factory.mktemp(source)) for source in SOURCES}
    for file in files.values():
        sign_run(read_run(file), load_key(key_file), statement)
    return files


@pytest.fixture
def victim(tmp_path: Path, originals: dict[str, Path], request: pytest.FixtureRequest) -> Path:
    """A signed copy to attack."""
    folder = originals[request.param].parent
    return Path(shutil.copytree(folder, tmp_path / folder.name)) / RUN_FILE


both = pytest.mark.parametrize("victim", SOURCES, indirect=True)
small = pytest.mark.parametrize("victim", ["toy"], indirect=True)


@both
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_only_the_signature_stops_it(victim: Path, attack: Attack, trusted: Trusted) -> None:
    """The reader takes it for a run; nobody who is trusted answers for it any more."""
    before = victim.read_bytes()
    assert verify(victim, trusted).identity == "gpu-runner"
    evidence = Evidence(victim)
    attack(evidence)
    evidence.save()
    assert victim.read_bytes() != before
    read_run(victim)
    with pytest.raises(WrongSubject, match=r"not this run\.jsonl"):
        verify(victim, trusted)
    victim.with_name(SIGNATURE_FILE).unlink()
    with pytest.raises(Unsigned, match="the run is unsigned"):
        verify(victim, trusted)


def _attacked(victim: Path) -> None:
    evidence = Evidence(victim)
    evidence.falsify()
    evidence.save()


def _envelope(victim: Path) -> dict[str, object]:
    body: dict[str, object] = json.loads(victim.with_name(SIGNATURE_FILE).read_text())
    return body


def _write(victim: Path, body: object) -> None:
    victim.with_name(SIGNATURE_FILE).write_text(json.dumps(body))


@small
def test_signing_again_with_another_key_is_refused(
    victim: Path, trusted: Trusted, tmp_path: Path
) -> None:
    """Also where the signature says that it is by the trusted key."""
    _attacked(victim)
    victim.with_name(SIGNATURE_FILE).unlink()
    generate_key(tmp_path / "own.pem")
    sign_run(read_run(victim), load_key(tmp_path / "own.pem"), statement)
    with pytest.raises(UnknownSigner, match="trusts gpu-runner"):
        verify(victim, trusted)
    body = json.loads(victim.with_name(SIGNATURE_FILE).read_text())
    (body["signatures"][0]["keyid"],) = trusted.keys
    _write(victim, body)
    with pytest.raises(BadSignature, match="of gpu-runner does not fit"):
        verify(victim, trusted)


@small
def test_the_signature_of_another_run_is_refused(
    victim: Path, trusted: Trusted, originals: dict[str, Path]
) -> None:
    """It is a good signature, and of something else."""
    shutil.copyfile(
        originals["committed"].with_name(SIGNATURE_FILE), victim.with_name(SIGNATURE_FILE)
    )
    with pytest.raises(WrongSubject):
        verify(victim, trusted)


@small
@pytest.mark.parametrize("field", ["payload", "sig", "payloadType", "keyid"])
def test_every_part_of_the_envelope_counts(victim: Path, trusted: Trusted, field: str) -> None:
    """Payload, signature and type; the key id is a hint, and changing it changes nothing."""
    file = victim.with_name(SIGNATURE_FILE)
    body = json.loads(file.read_text())
    if field == "payload":
        payload = load_envelope(file.read_bytes()).payload.replace(b"PASSED", b"FAILED")
        body["payload"] = base64.b64encode(payload + b" ").decode()
    elif field == "sig":
        sig = body["signatures"][0]["sig"]
        body["signatures"][0]["sig"] = ("A" if sig[0] != "A" else "B") + sig[1:]
    elif field == "payloadType":
        body["payloadType"] = "text/plain"
    else:
        body["signatures"][0]["keyid"] = "another"
    _write(victim, body)
    if field == "keyid":
        assert verify(victim, trusted).identity == "gpu-runner"
        return
    with pytest.raises(DamagedEnvelope if field == "payloadType" else BadSignature):
        verify(victim, trusted)


@small
def test_a_type_is_signed_with_its_payload(victim: Path, trusted: Trusted, key_file: Path) -> None:
    """A statement that the key signed as another type of thing is not taken for one."""
    file = victim.with_name(SIGNATURE_FILE)
    envelope = load_envelope(file.read_bytes())
    body = json.loads(file.read_text())
    signature = load_key(key_file).sign(b"DSSEv1 10 text/plain " + envelope.payload)
    body["signatures"][0]["sig"] = base64.b64encode(signature).decode()
    _write(victim, body)
    with pytest.raises(BadSignature):
        verify(victim, trusted)


@small
@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"payload": "!", "payloadType": "x", "signatures": [{"sig": "AA=="}]}',
        '{"payload": "", "payloadType": "x", "signatures": []}',
        '{"payload": "", "payload": "", "payloadType": "x", "signatures": [{"sig": ""}]}',
        '{"payload": 1, "payloadType": "x", "signatures": [{"sig": ""}]}',
        '{"payload": "", "payloadType": "x", "signatures": [{}]}',
        "[" * 100_000,
    ],
)
def test_what_is_no_envelope_is_refused(victim: Path, trusted: Trusted, text: str) -> None:
    """Never taken for unsigned, which a policy might allow."""
    victim.with_name(SIGNATURE_FILE).write_text(text)
    with pytest.raises(DamagedEnvelope):
        verify(victim, trusted)


@small
def test_another_trusted_one_does_not_answer_for_who_is_asked(
    victim: Path, trusted: Trusted
) -> None:
    """Being trusted is not being the one whose signature is required."""
    assert verify(victim, trusted, "gpu-runner").identity == "gpu-runner"
    with pytest.raises(WrongSigner, match="signed by gpu-runner, not by release-manager"):
        verify(victim, trusted, "release-manager")


@small
def test_a_key_that_is_trusted_no_more_counts_for_nothing(victim: Path) -> None:
    """Nobody is trusted where the list is empty."""
    with pytest.raises(UnknownSigner, match="trusts nobody"):
        verify(victim, Trusted(Path("trusted-keys.yaml")))


@small
def test_every_refusal_of_a_signature_is_a_refusal_of_evidence(victim: Path) -> None:
    """So that whoever handles the one handles the other."""
    victim.with_name(SIGNATURE_FILE).unlink()
    with pytest.raises(SignatureRefused, match="What to do: have its maker sign it"):
        verify(victim, Trusted(Path("trusted-keys.yaml")))
