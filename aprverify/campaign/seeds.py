"""Which seeds a campaign draws: none that a contract names, and none twice.

They follow from the case and a running number, so that a campaign on another machine, or one that
goes on later, can say which evaluations it adds.
"""

from __future__ import annotations

import hashlib

from aprverify.contract.model import LARGEST_SEED

LOWEST = LARGEST_SEED + 1
SPAN = 2**30
_STEP = (
    0x9E3779B1  # odd, so that no seed comes again within SPAN; far from 1, so none is a neighbour
)
RULE = (
    f"number i of a case: {LOWEST} + (h + i · {_STEP}) mod {SPAN}, h the first 8 bytes, "
    "big-endian, of the SHA-256 of TEST[CASE without its seed]"
)


def drawn(target: str, number: int) -> int:
    """Seed `number`, from 0, of ``TEST[CASE without its seed]``."""
    start = int.from_bytes(hashlib.sha256(target.encode()).digest()[:8], "big")
    return LOWEST + (start + number * _STEP) % SPAN
