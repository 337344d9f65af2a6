"""Are documents held out as a whole, by their content alone, and is nobody trained on them?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from falsifiers.fixtures import Case, Measured, Subject

if TYPE_CHECKING:
    from collections.abc import Iterable

    from falsifiers.split_corpus import Split


def falsify_copies_are_left_out_and_told(subject: Subject, case: Case, measured: Measured) -> None:
    """Of exact copies the first is kept, a copy of what is held out nowhere; both are counted."""
    from falsifiers.split_corpus import prepared, text, written

    documents = range(case.documents)
    held_out = range(case.documents, case.documents + case.held_out)
    corpus = written(
        {f"train/{n:03}.txt": text(n) for n in documents}
        | {f"train/again-{n:03}.txt": text(n) for n in documents[: case.copies]}
        | {f"train/same-{n:03}.txt": text(n) for n in held_out}
        | {f"heldout/{n:03}.txt": text(n) for n in held_out}
    )
    found = prepared(subject, corpus / "train", "--heldout", str(corpus / "heldout"))
    told = dict(found.left_out())
    measured(
        status=found.status,
        misplaced=_misplaced(found.train, [text(n) for n in documents]),
        misplaced_held_out=_misplaced(found.heldout, [text(n) for n in held_out]),
        trained_on=len(set(found.train) & set(found.heldout)),
        told_copies=told.pop("duplicate", 0),
        told_held_out=told.pop("also_held_out", 0),
        told_others=sum(told.values()),
    )


def falsify_fraction_is_held_out_by_content(
    subject: Subject, case: Case, measured: Measured
) -> None:
    """About the share asked for, whole documents, copies together, and more of it keeps them."""
    from falsifiers.split_corpus import prepared, text, written

    names = {f"{n:03}.txt": text(n) for n in range(case.documents)}
    copies = {f"again-{n:03}.txt": text(n) for n in range(case.copies)}
    corpus = written(names | copies)
    smaller, larger = (
        prepared(subject, corpus, "--heldout-fraction", str(fraction))
        for fraction in (case.fraction, case.larger)
    )
    measured(
        failed=sum(split.status != 0 for split in (smaller, larger)),
        held_out=len(smaller.heldout),
        held_out_more=len(larger.heldout),
        on_both_sides=_shared(smaller) + _shared(larger),
        not_once=_not_once(smaller, names.values()) + _not_once(larger, names.values()),
        given_back=len(set(smaller.heldout) - set(larger.heldout)),
    )


def falsify_nothing_held_out_is_refused(subject: Subject, case: Case, measured: Measured) -> None:
    """A fraction that takes none of the documents is refused by its option, and nothing is left."""
    from falsifiers.split_corpus import prepared, text, written

    corpus = written({f"{n:03}.txt": text(n) for n in range(case.documents)})
    found = prepared(subject, corpus, "--heldout-fraction", str(case.fraction))
    measured(
        status=found.status,
        shards_left=found.shards,
        message=found.told.strip(),
        crashed="Traceback" in found.told,
    )


def _misplaced(found: tuple[str, ...], expected: list[str]) -> int:
    """Places that hold another document, or none, or are too many."""
    wrong = sum(a != b for a, b in zip(found, expected, strict=False))
    return wrong + abs(len(found) - len(expected))


def _shared(split: Split) -> int:
    return len(set(split.train) & set(split.heldout))


def _not_once(split: Split, texts: Iterable[str]) -> int:
    """Documents that both streams together hold never, or more than once; foreign ones too."""
    from collections import Counter

    found = Counter(split.train + split.heldout)
    return sum(found[one] != 1 for one in found.keys() | set(texts))
