"""Which documents are held out: a function of a document's content, so that copies stay together.

A document is held out or trained on as a whole. Near-copies have different content and may still
land on both sides.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

TRAIN, HELDOUT = "train", "heldout"
SPLITS = (TRAIN, HELDOUT)


@dataclass(frozen=True)
class HashRule:
    """Hold out about `fraction` of the documents, chosen by ``sha256(sha256(content) + seed)``.

    The hash is read as a number in [0, 1) and compared with `fraction`. What is held out at one
    fraction stays so at every larger one, whatever else joins the corpus.
    """

    fraction: float
    seed: int

    def holds_out(self, content_sha256: bytes) -> bool:
        """Whether the document with this content is held out."""
        keyed = hashlib.sha256(content_sha256 + str(self.seed).encode()).digest()
        return int.from_bytes(keyed[:8], "big") < self.fraction * 2**64
