"""What a dataset will consist of, decided before the first token: documents, order and split."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from trainer.corpus.documents import Document
from trainer.corpus.sources import Skip
from trainer.corpus.split import HELDOUT, TRAIN, HashRule
from trainer.errors import DataError


@dataclass(frozen=True)
class Plan:
    """The documents of both splits, in the order in which their tokens are written.

    Attributes:
        documents: by split.
        skipped: how many files were left out, by reason.
    """

    documents: dict[str, Sequence[Document]]
    skipped: Counter[Skip]

    def sha256(self, *context: object) -> str:
        """Digest of every document, its split and place, and of whatever else decides the bytes."""
        digest = hashlib.sha256(repr(context).encode())
        for split, documents in self.documents.items():
            digest.update(f"{split} {len(documents)}\n".encode())
            for document in documents:
                digest.update(b"ids " if document.file.is_shard else b"text")
                digest.update(document.sha256)
        return digest.hexdigest()


def plan_by_rule(surveyed: Iterable[Document | Skip], rule: HashRule) -> Plan:
    """Split documents by their content; of exact copies the first is kept.

    Raises:
        DataError: a split is left without documents.
    """
    skipped: Counter[Skip] = Counter()
    documents: dict[str, Sequence[Document]] = {}
    kept = _distinct(surveyed, skipped)
    for split in (TRAIN, HELDOUT):
        documents[split] = [d for d in kept if rule.holds_out(d.sha256) == (split == HELDOUT)]
    if kept and not documents[HELDOUT]:
        raise DataError(
            f"the held-out set is empty: the rule takes none of {len(kept)} documents at "
            f"--heldout-fraction {rule.fraction}; raise it, or name --heldout sources"
        )
    return _require_training(Plan(documents, skipped))


def plan_by_sources(train: Iterable[Document | Skip], heldout: Iterable[Document | Skip]) -> Plan:
    """Hold out given documents; what is in both is held out.

    Raises:
        DataError: a split is left without documents.
    """
    skipped: Counter[Skip] = Counter()
    held = _distinct(heldout, skipped)
    if not held:
        raise DataError(
            f"the held-out set is empty: no usable document in the --heldout sources "
            f"({describe_skipped(skipped)}); check the paths and --include"
        )
    hashes = {document.sha256 for document in held}
    distinct = _distinct(train, skipped)
    kept = [document for document in distinct if document.sha256 not in hashes]
    skipped[Skip.ALSO_HELD_OUT] += len(distinct) - len(kept)
    return _require_training(Plan({TRAIN: kept, HELDOUT: held}, skipped))


def describe_skipped(skipped: Counter[Skip]) -> str:
    """Counts by reason in one line."""
    reasons = [f"{count} {reason.value}" for reason, count in sorted(skipped.items()) if count]
    return "skipped: " + (", ".join(reasons) or "none")


def _distinct(surveyed: Iterable[Document | Skip], skipped: Counter[Skip]) -> list[Document]:
    kept, seen = [], set()
    for entry in surveyed:
        if isinstance(entry, Skip):
            skipped[entry] += 1
        elif entry.sha256 in seen:
            skipped[Skip.DUPLICATE] += 1
        else:
            seen.add(entry.sha256)
            kept.append(entry)
    return kept


def _require_training(plan: Plan) -> Plan:
    if not plan.documents[TRAIN]:
        raise DataError(
            f"no document is left to train on ({describe_skipped(plan.skipped)}); "
            "check the sources, --include and --max-file-bytes"
        )
    return plan
