"""Why a signature is not believed: one class a reason, each saying where and what to do."""

from __future__ import annotations

from aprverify.evidence.refusals import EvidenceRefused


class SignatureRefused(EvidenceRefused):
    """Nobody who is trusted answers for the run."""

    advice = "have its maker sign it with `aprverify sign`, or do without a signature"


class Unsigned(SignatureRefused):
    """There is no signature beside the run."""


class DamagedEnvelope(SignatureRefused):
    """The file beside the run is no envelope of this kind."""


class BadSignature(SignatureRefused):
    """A signature names a trusted key, and was not made by it over these bytes."""

    advice = "get the run and its signature from its maker again; one of the two was changed"


class UnknownSigner(SignatureRefused):
    """Signed, but by no key that is trusted."""

    advice = "add the signer's public key to the trusted keys, if you know whose it is"


class WrongSigner(SignatureRefused):
    """Signed by a trusted key that belongs to somebody else."""

    advice = "have the one who is asked for sign it"


class WrongSubject(SignatureRefused):
    """What is signed is another run, or what this one was before."""

    advice = "get the run and its signature from its maker again; they do not belong together"


class UnusableKeys(SignatureRefused):
    """The file of trusted keys cannot be read, or the library for signatures is not installed."""

    advice = "mend that; without it no signature can be checked"
