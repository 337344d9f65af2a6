"""Is a GGUF file with a header that was cut off or damaged refused, whatever is asked of it?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from falsifiers.fixtures import Case, Configuration, Measured, Subject

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


def falsify_damaged_header_is_refused(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration, tmp_path: Path
) -> None:
    """Cut at every few bytes, and with a byte that is no UTF-8 in each text, it is refused."""
    from falsifiers.gguf_files import LAST_TOKEN, write_model, write_vocabulary
    from falsifiers.refused_files import Tried

    model, vocabulary = tmp_path / "model.gguf", tmp_path / "vocabulary.gguf"
    write_model(model, configuration)
    write_vocabulary(vocabulary)
    architecture, tokenizer = subject.read_architecture, subject.tokenizer
    texts = {
        model: (configuration["architecture"], "context_length", "token_embd.weight"),
        vocabulary: ("gpt2", "gpt-2", "ggml.tokens", "a b", LAST_TOKEN),
    }
    attempts: list[tuple[str, Callable[[], object]]] = []
    for whole, read in ((model, architecture), (vocabulary, tokenizer)):
        for path in _damaged(whole, case.stride, texts[whole]):
            attempts.append((path.name, lambda p=path, read=read: read(p)))  # type: ignore[misc]
    tried = Tried().each(attempts)
    measured(
        positions=architecture(model)["max_position_embeddings"],
        ids=tokenizer(vocabulary).vocab_size,
        tried=tried.count,
        accepted=len(tried.accepted),
        crashed=len(tried.crashed),
        unnamed=len(tried.unnamed({label: label for label, _ in attempts})),
        faults=tried.faults(),
    )


def _damaged(whole: Path, stride: int, texts: tuple[str, ...]) -> Iterator[Path]:
    """Copies cut at every `stride` bytes up to the end of the last text, and with texts damaged."""
    content = whole.read_bytes()
    places = {text: content.index(text.encode()) for text in texts}
    last = max(place + len(text) for text, place in places.items())
    for kept in sorted({*range(0, last, stride), last - 1}):
        yield _written(whole.with_name(f"cut-at-{kept}-{whole.name}"), content[:kept])
    for number, place in enumerate(places.values()):
        spoiled = content[:place] + b"\xff" + content[place + 1 :]
        yield _written(whole.with_name(f"text-{number}-{whole.name}"), spoiled)


def _written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path
