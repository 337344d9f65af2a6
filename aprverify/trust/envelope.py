"""The envelope around a signed statement: DSSE 1.0.2, https://github.com/secure-systems-lab/dsse.

Signed are not the bytes of the payload alone but its type with it, lengths first, so that nothing
can be read as something else.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from typing import Any

PAYLOAD_TYPE = "application/vnd.in-toto+json"
"""What in-toto calls a statement inside an envelope."""


@dataclass(frozen=True)
class EnvelopeSignature:
    """One signature. `key_id` is a hint only: it is not signed itself."""

    key_id: str
    signature: bytes


@dataclass(frozen=True)
class Envelope:
    """A payload with its signatures."""

    payload: bytes
    payload_type: str
    signatures: tuple[EnvelopeSignature, ...]

    @property
    def signed_bytes(self) -> bytes:
        """What signatures are made over: DSSE's pre-authentication encoding."""
        kind = self.payload_type.encode()
        return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(self.payload), self.payload)

    def dump(self) -> str:
        """The envelope as a JSON file."""
        signatures = [
            {"keyid": one.key_id, "sig": base64.b64encode(one.signature).decode()}
            for one in self.signatures
        ]
        body = {
            "payload": base64.b64encode(self.payload).decode(),
            "payloadType": self.payload_type,
            "signatures": signatures,
        }
        return json.dumps(body, indent=2) + "\n"


def load_envelope(data: bytes) -> Envelope:
    """The inverse of `Envelope.dump`.

    Raises:
        ValueError: no envelope; the message says why.
    """
    try:
        body = json.loads(data.decode("utf-8"), object_pairs_hook=_object)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(body, dict) or not {"payload", "payloadType", "signatures"} <= body.keys():
        raise ValueError("it needs payload, payloadType and signatures")
    listed = body["signatures"]
    if not isinstance(listed, list) or not listed:
        raise ValueError("it has no signature")
    return Envelope(
        payload=_bytes(body["payload"]),
        payload_type=_text(body["payloadType"]),
        signatures=tuple(_signature(one) for one in listed),
    )


def _signature(body: Any) -> EnvelopeSignature:
    if not isinstance(body, dict) or "sig" not in body:
        raise ValueError("a signature needs sig")
    return EnvelopeSignature(_text(body.get("keyid", "")), _bytes(body["sig"]))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r:.40} is no text")
    return value


def _bytes(value: Any) -> bytes:
    text = _text(value)
    try:
        # The specification allows the alphabet of URLs too.
        return base64.b64decode(text.replace("-", "+").replace("_", "/"), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"{text[:40]!r} is no base64") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("an object repeats a key")
    return dict(pairs)
