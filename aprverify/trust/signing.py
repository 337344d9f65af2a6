"""Signs a run: an envelope beside run.jsonl around the statement that the run itself makes."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from aprverify.evidence.records import Run
from aprverify.trust.envelope import PAYLOAD_TYPE, Envelope, EnvelopeSignature
from aprverify.trust.keys import PrivateKey
from aprverify.trust.refusals import Unsigned
from aprverify.trust.verify import SIGNATURE_FILE, read_envelope

Statement = Callable[[Run], dict[str, Any]]


class NotSigned(Exception):
    """The run is sound, and yet not signed: the message says why and what to do."""


def sign_run(run: Run, key: PrivateKey, statement: Statement) -> Path:
    """Sign a run that was read, beside those who signed it before. Returns the envelope's file.

    Raises:
        NotSigned: this key signed it before, or what is signed there is another statement.
        SignatureRefused: the file that is there is no envelope.
        OSError: it cannot be written.
    """
    file = run.path.with_name(SIGNATURE_FILE)
    text = json.dumps(statement(run), ensure_ascii=False, sort_keys=True, allow_nan=False)
    payload = text.encode()
    try:
        envelope = read_envelope(file)
    except Unsigned:
        envelope = Envelope(payload, PAYLOAD_TYPE, ())
    if envelope.payload != payload:
        raise NotSigned(f"{file}: signs another statement. Remove it, and sign again")
    signature = key.sign(envelope.signed_bytes)
    if any(one.signature == signature for one in envelope.signatures):
        raise NotSigned(f"{file}: this key signed it before. Nothing to do")
    signed = EnvelopeSignature(key.public.key_id, signature)
    _replace(file, replace(envelope, signatures=(*envelope.signatures, signed)).dump())
    return file


def _replace(file: Path, text: str) -> None:
    # Whole or not at all: others' signatures may be in it.
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=".signing-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as scratch:
            scratch.write(text)
        os.chmod(name, 0o644)
        os.replace(name, file)
    except BaseException:
        os.unlink(name)
        raise
