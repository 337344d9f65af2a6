"""Whether somebody who is trusted answers for a run, in the terms of the reader: or it is refused.

A signature is looked at only after the run was read and not refused; it adds who, never whether.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aprverify.evidence.reader import RUN_FILE, read_run
from aprverify.evidence.records import Run
from aprverify.trust.envelope import PAYLOAD_TYPE, Envelope, load_envelope
from aprverify.trust.keys import KeyProblem, PublicKey
from aprverify.trust.refusals import (
    BadSignature,
    DamagedEnvelope,
    UnknownSigner,
    Unsigned,
    UnusableKeys,
    WrongSigner,
    WrongSubject,
)
from aprverify.trust.trusted import Trusted

SIGNATURE_FILE = "run.dsse.json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://in-toto.io/attestation/test-result/v0.1"


@dataclass(frozen=True)
class Signature:
    """A signature that was checked. `others`: further trusted names that signed the same."""

    identity: str
    key_id: str
    path: Path
    others: tuple[str, ...]


def verify(path: Path, trusted: Trusted, identity: str | None = None) -> Signature:
    """The signature of a run, by anybody who is trusted, or by `identity`.

    `path` is a run's folder or its run.jsonl.

    Raises:
        EvidenceRefused: the run itself is refused.
        SignatureRefused: one subclass a reason.
    """
    return verify_run(read_run(path), trusted, identity)


def verify_run(run: Run, trusted: Trusted, identity: str | None = None) -> Signature:
    """As `verify`, of a run that was read before.

    Raises:
        SignatureRefused: one subclass a reason.
    """
    file = run.path.with_name(SIGNATURE_FILE)
    envelope = read_envelope(file)
    # Before who: what lies beside the run must be about it, whoever signed it.
    _check_statement(file, envelope, run)
    try:
        signers = dict(_signers(file, envelope, trusted))
    except KeyProblem as problem:
        raise UnusableKeys(file, None, str(problem)) from None
    if not signers:
        ids = ", ".join(
            sorted({one.key_id or "a key without a name" for one in envelope.signatures})
        )
        raise UnknownSigner(file, None, f"signed by {ids}, and {_whom(trusted)}")
    names = sorted(set(signers.values()))
    if identity is not None and identity not in names:
        raise WrongSigner(file, None, f"signed by {', '.join(names)}, not by {identity}")
    chosen = identity or names[0]
    key_id = min(key for key, name in signers.items() if name == chosen)
    return Signature(chosen, key_id, file, tuple(name for name in names if name != chosen))


def read_envelope(file: Path) -> Envelope:
    """The envelope in a file.

    Raises:
        Unsigned: there is no such file.
        DamagedEnvelope: it is no envelope around a statement.
    """
    if not file.exists():
        raise Unsigned(file, None, "there is no such file: the run is unsigned")
    if not file.is_file():
        raise DamagedEnvelope(file, None, "is no file")
    try:
        envelope = load_envelope(file.read_bytes())
    except (ValueError, OSError) as error:
        raise DamagedEnvelope(file, None, f"no DSSE envelope: {error}") from None
    if envelope.payload_type != PAYLOAD_TYPE:
        raise DamagedEnvelope(file, None, f"it holds {envelope.payload_type!r}, no statement")
    return envelope


def is_signature_beside(run: Run) -> bool:
    """Whether there is a signature to check; it may be of anybody, of another run, or damaged."""
    return run.path.with_name(SIGNATURE_FILE).exists()


def signature_words(run: Run, trusted: Trusted) -> str:
    """Who answers for the run, in a few words for the first lines of what is printed.

    Raises:
        SignatureRefused: it is said to be signed, and is not.
    """
    try:
        signature = verify_run(run, trusted)
    except Unsigned:
        return "unsigned: anybody may have made or edited it"
    except UnknownSigner:
        return f"signed, but by nobody who is known ({_whom(trusted)}): as good as unsigned"
    except UnusableKeys as refusal:
        return f"signed, and not checked by whom: {refusal}"
    also = f", and by {', '.join(signature.others)}" if signature.others else ""
    key = f"verified against its key {signature.key_id} in {trusted.path}"
    return f"signed by {signature.identity} ({key}){also}"


def _signers(file: Path, envelope: Envelope, trusted: Trusted) -> Iterator[tuple[str, str]]:
    """Key id and name of every trusted key that made one of the signatures."""
    signed = envelope.signed_bytes
    for one in envelope.signatures:
        made_by = _maker(one.signature, signed, trusted)
        if made_by is not None:
            yield made_by.key_id, trusted.keys[made_by.key_id][0]
        elif one.key_id in trusted.keys:
            name = trusted.keys[one.key_id][0]
            raise BadSignature(file, None, f"the signature of {name} does not fit what is signed")


def _maker(signature: bytes, signed: bytes, trusted: Trusted) -> PublicKey | None:
    # Key ids are not signed, so they decide nothing.
    keys = (key for _, key in trusted.keys.values())
    return next((key for key in keys if key.verifies(signature, signed)), None)


def _check_statement(file: Path, envelope: Envelope, run: Run) -> None:
    try:
        statement: Any = json.loads(envelope.payload)
    except (ValueError, RecursionError):
        statement = None
    if not isinstance(statement, Mapping) or (
        statement.get("_type"),
        statement.get("predicateType"),
    ) != (STATEMENT_TYPE, PREDICATE_TYPE):
        raise DamagedEnvelope(file, None, "what is signed is no test-result statement")
    if run.sha256 not in _digests(statement.get("subject")):
        raise WrongSubject(file, None, f"what is signed is not this {RUN_FILE} ({run.sha256})")


def _digests(subjects: Any) -> set[Any]:
    listed = subjects if isinstance(subjects, list) else []
    return {
        subject["digest"].get("sha256")
        for subject in listed
        if isinstance(subject, dict)
        and subject.get("name") == RUN_FILE
        and isinstance(subject.get("digest"), dict)
        and isinstance(subject["digest"].get("sha256"), str)
    }


def _whom(trusted: Trusted) -> str:
    if not trusted.keys:
        return f"{trusted.path} trusts nobody"
    return f"{trusted.path} trusts {', '.join(trusted.names)}"
