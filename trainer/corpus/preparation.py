"""`aprtrain prepare`: sources to a dataset, the same bytes whatever the machine does meanwhile.

Files are surveyed, the plan is made, then each split's documents are encoded in order and written.
Which worker encoded what, how many there were, and whether the command was killed and run again,
has no influence on a single byte.
"""

from __future__ import annotations

import errno
import hashlib
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.corpus.documents import (
    PIECE_IDS,
    Document,
    DocumentReader,
    EncodeTask,
    Piece,
    require_unchanged,
)
from trainer.corpus.journal import JOURNAL_NAME, Journal
from trainer.corpus.manifest import MANIFEST_NAME, Manifest, read_manifest
from trainer.corpus.plan import Plan, plan_by_rule, plan_by_sources
from trainer.corpus.progress import Progress
from trainer.corpus.shards import WrittenShard, map_shard, skip_written, write_shards
from trainer.corpus.sources import Skip, SourceFile, find_files
from trainer.corpus.split import SPLITS, HashRule
from trainer.corpus.tokenizer_identity import tokenizer_sha256
from trainer.corpus.workers import Workers
from trainer.errors import DataError, Interrupted, TokenizerError

SURVEY_TASK_BYTES, ENCODE_TASK_BYTES, TASK_FILES = 2**23, 2**19, 256
"""A task ends at either limit: large enough to make hand-over cheap, small enough to spread."""


@dataclass(frozen=True)
class PrepareSettings:
    """What `aprtrain prepare` was asked for.

    Attributes:
        sources: folders, texts and ``.bin`` shards.
        heldout: sources that are held out, or the rule that holds out documents of `sources`.
        include: patterns of file names in folders.
        max_file_bytes: larger texts are skipped.
        shard_tokens: ids of a shard.
        workers: processes; no influence on the result.
    """

    sources: Sequence[Path]
    tokenizer: Path
    out: Path
    heldout: Sequence[Path] | HashRule
    include: Sequence[str]
    max_file_bytes: int
    shard_tokens: int
    workers: int


@dataclass(frozen=True)
class _Survey:
    plan: Plan
    files: int


def prepare(settings: PrepareSettings) -> Manifest:
    """Make the dataset, go on with it, or find it finished. Returns its manifest.

    Raises:
        DataError: the sources, the split or the output folder are unusable, or the disk is full.
        TokenizerError: the tokenizer is unusable or has no end-of-text token.
        Interrupted: Ctrl-C; finished shards stay and the same command goes on.
    """
    out = settings.out
    _require_ours(out)
    identity = tokenizer_sha256(settings.tokenizer)
    try:
        with Workers(settings.workers, settings.tokenizer, settings.max_file_bytes) as workers:
            tokenizer = workers.reader.tokenizer
            if tokenizer.end_of_text is None:
                raise TokenizerError(
                    f"{settings.tokenizer}: no <|endoftext|> token, and documents must end with "
                    "one; use a tokenizer that has it"
                )
            survey = _survey(settings, workers)
            plan_sha256 = survey.plan.sha256(
                identity, tokenizer.vocab_size, tokenizer.end_of_text, settings.shard_tokens
            )
            if (out / MANIFEST_NAME).exists():
                return _require_finished(out, plan_sha256)
            out.mkdir(parents=True, exist_ok=True)
            with Journal(out, plan_sha256, tokenizer.vocab_size) as journal:
                for split in SPLITS:
                    _write_split(settings, workers, survey.plan, split, journal)
                manifest = Manifest(
                    tokenizer_sha256=identity,
                    vocab_size=tokenizer.vocab_size,
                    end_of_text=tokenizer.end_of_text,
                    shards={s: tuple(w.shard for w in _finished(journal, s)) for s in SPLITS},
                    plan_sha256=plan_sha256,
                    details=_details(settings, survey, journal),
                )
                manifest.write(out)
                journal.path.unlink()
            return manifest
    except KeyboardInterrupt:
        raise Interrupted(
            f"interrupted; finished shards are kept in {out}, run the same command to go on"
        ) from None
    except OSError as error:
        raise DataError(_describe(error, out)) from error


def _require_ours(out: Path) -> None:
    if not out.exists():
        return
    if not out.is_dir():
        raise DataError(f"{out}: not a folder; choose another --out")
    ours = (out / MANIFEST_NAME).is_file() or (out / JOURNAL_NAME).is_file()
    if not ours and any(out.iterdir()):
        raise DataError(f"{out}: not empty, and not a dataset of ours; choose another --out")


def _require_finished(out: Path, plan_sha256: str) -> Manifest:
    manifest = read_manifest(out)
    if manifest.plan_sha256 != plan_sha256:
        raise DataError(f"{out}: holds a dataset of other sources or options; choose another --out")
    for split in SPLITS:
        for shard in manifest.shards[split]:
            map_shard(out / shard.file, shard)
    # Killed between the two: the dataset is complete, only its journal is left.
    (out / JOURNAL_NAME).unlink(missing_ok=True)
    return manifest


def _survey(settings: PrepareSettings, workers: Workers) -> _Survey:
    files, skipped = find_files(settings.sources, settings.include, settings.out)
    surveyed = _survey_files("survey", files, workers)
    if isinstance(settings.heldout, HashRule):
        plan, count = plan_by_rule(surveyed, settings.heldout), len(files)
    else:
        held, held_skipped = find_files(settings.heldout, settings.include, settings.out)
        plan = plan_by_sources(surveyed, _survey_files("survey held-out", held, workers))
        skipped, count = skipped + held_skipped, len(files) + len(held)
    plan.skipped.update(skipped)
    return _Survey(plan, count)


def _survey_files(
    label: str, files: Sequence[SourceFile], workers: Workers
) -> Iterator[Document | Skip]:
    tasks = (tuple(chunk) for chunk in _chunks(files, SURVEY_TASK_BYTES))
    with Progress(label, sum(file.size for file in files)) as progress:
        position = 0
        for results in workers.map(DocumentReader.survey, tasks):
            progress.advance(sum(f.size for f in files[position : position + len(results)]))
            position += len(results)
            yield from results


def _chunks(files: Iterable[SourceFile], limit: int) -> Iterator[list[SourceFile]]:
    chunk: list[SourceFile] = []
    size = 0
    for file in files:
        chunk.append(file)
        size += file.size
        if size >= limit or len(chunk) == TASK_FILES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _write_split(
    settings: PrepareSettings, workers: Workers, plan: Plan, split: str, journal: Journal
) -> None:
    finished = _finished(journal, split)
    document, token = (finished[-1].document, finished[-1].next_token) if finished else (0, 0)
    documents = plan.documents[split]
    sizes = [entry.file.size for entry in documents]
    with Progress(f"encode {split}", sum(sizes), sum(sizes[:document])) as progress:
        pieces = _encode(documents, document, workers, progress)
        for written in write_shards(
            settings.out,
            split,
            len(finished),
            skip_written(pieces, document, token),
            settings.shard_tokens,
        ):
            journal.append(written)


def _encode(
    documents: Sequence[Document], first: int, workers: Workers, progress: Progress
) -> Iterator[Piece]:
    shard_digest = hashlib.sha256()
    for pieces in workers.map(DocumentReader.encode, _encode_tasks(documents, first)):
        for piece in pieces:
            document = documents[piece.document]
            progress.advance(4 * len(piece.ids) if document.file.is_shard else document.file.size)
            if document.file.is_shard:
                # Its pieces come from several workers, so only here can its content be checked.
                shard_digest = hashlib.sha256() if piece.start == 0 else shard_digest
                shard_digest.update(piece.ids.data)
                if 4 * (piece.start + len(piece.ids)) >= document.file.size:
                    require_unchanged(document, shard_digest)
            yield piece


def _encode_tasks(documents: Sequence[Document], first: int) -> Iterator[EncodeTask]:
    texts: list[Document] = []
    size = 0
    for index in range(first, len(documents)):
        document = documents[index]
        if document.file.is_shard:
            for start in range(0, document.file.size // 4, PIECE_IDS):
                yield EncodeTask(index, (document,), start)
            continue
        texts.append(document)
        size += document.file.size
        following = documents[index + 1] if index + 1 < len(documents) else None
        if (
            size >= ENCODE_TASK_BYTES
            or len(texts) == TASK_FILES
            or following is None
            or following.file.is_shard
        ):
            yield EncodeTask(index + 1 - len(texts), tuple(texts))
            texts, size = [], 0


def _finished(journal: Journal, split: str) -> list[WrittenShard]:
    return [w for w in journal.finished if w.shard.file.startswith(f"{split}-")]


def _details(settings: PrepareSettings, survey: _Survey, journal: Journal) -> dict[str, Any]:
    if isinstance(settings.heldout, HashRule):
        rule: dict[str, Any] = {"rule": "content-hash", **vars(settings.heldout)}
    else:
        rule = {"rule": "sources", "sources": list(map(str, settings.heldout))}
    return {
        "options": {
            "sources": list(map(str, settings.sources)),
            "include": list(settings.include),
            "max_file_bytes": settings.max_file_bytes,
            "shard_tokens": settings.shard_tokens,
        },
        "heldout": rule,
        "files": survey.files,
        "skipped": {r.value: survey.plan.skipped[r] for r in Skip if survey.plan.skipped[r]},
        "counts": {
            split: {
                "documents": len(survey.plan.documents[split]),
                "bytes": sum(d.file.size for d in survey.plan.documents[split]),
                "tokens": sum(w.shard.tokens for w in _finished(journal, split)),
            }
            for split in SPLITS
        },
    }


def _describe(error: OSError, out: Path) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        free = shutil.disk_usage(out if out.exists() else out.parent).free
        return (
            f"{out}: the disk is full ({free:,} bytes free); finished shards are kept, make room "
            "and run the same command to go on"
        )
    return f"{error.filename or out}: {error.strerror or error}; check the path and permissions"
