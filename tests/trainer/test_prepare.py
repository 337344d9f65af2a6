"""`aprtrain prepare`: which documents, which split, the same bytes every time, what is refused."""

from __future__ import annotations

import errno
import hashlib
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers.pre_tokenizers import ByteLevel

from trainer import cli
from trainer.corpus.corpus import Corpus
from trainer.corpus.documents import DocumentReader, EncodeTask, Piece
from trainer.corpus.journal import JOURNAL_NAME, Journal
from trainer.corpus.preparation import PrepareSettings, prepare
from trainer.corpus.sources import DEFAULT_INCLUDE
from trainer.corpus.split import HashRule
from trainer.corpus.tokenizer_identity import tokenizer_sha256
from trainer.corpus.workers import Workers
from trainer.errors import DataError, Interrupted, TokenizerError
from trainer.tokenizer import load_tokenizer
from trainer.weights import durable

END = 256
"""End-of-text of the tests' tokenizer, whose other ids are the 256 bytes."""


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    """GPT-2's two files with one token a byte and no merges."""
    return write_tokenizer(tmp_path / "tokenizer", "<|endoftext|>")


def write_tokenizer(folder: Path, *extra: str) -> Path:
    """One token a byte, then `extra`."""
    folder.mkdir()
    symbols = [*sorted(ByteLevel.alphabet()), *extra]
    (folder / "encoder.json").write_text(json.dumps({s: i for i, s in enumerate(symbols)}))
    (folder / "vocab.bpe").write_text("#version: 0.2\n")
    return folder


def write_files(folder: Path, files: dict[str, str | bytes]) -> Path:
    """Files by relative name."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


@pytest.fixture
def make(tmp_path: Path, tokenizer: Path) -> Callable[..., PrepareSettings]:
    """Settings for the folder `texts`, half of it held out; keyword arguments override."""
    base = PrepareSettings(
        sources=[tmp_path / "texts"],
        tokenizer=tokenizer,
        out=tmp_path / "dataset",
        heldout=HashRule(0.5, 0),
        include=DEFAULT_INCLUDE,
        max_file_bytes=1000,
        shard_tokens=100,
        workers=1,
    )
    return lambda **changes: replace(base, **changes)


@pytest.fixture
def forty(tmp_path: Path) -> Path:
    """Forty texts of 10 to 400 bytes in nested folders."""
    generator = random.Random(0)
    return write_files(
        tmp_path / "texts",
        {
            f"{i % 4}/{i % 3}/{i}.txt": "".join(generator.choices("abc \n", k=10 + 10 * i))
            for i in range(40)
        },
    )


def documents(out: Path, tokenizer: Path, split: str) -> list[str]:
    """Texts of a split's stream, in order."""
    engine = load_tokenizer(tokenizer)
    ids = [i for path in sorted(out.glob(f"{split}-*.bin")) for i in np.fromfile(path, "<u4")]
    assert not ids or ids[-1] == END
    texts: list[list[int]] = [[]]
    for token in ids:
        if token == END:
            texts.append([])
        else:
            texts[-1].append(int(token))
    return [engine.decode(text) for text in texts[:-1]]


def contents(out: Path) -> dict[str, bytes]:
    """Every file of a dataset."""
    return {path.name: path.read_bytes() for path in out.iterdir()}


def test_documents_are_ordered_by_name_and_end_with_end_of_text(
    tmp_path: Path, make: Callable[..., PrepareSettings], tokenizer: Path
) -> None:
    """Names are relative, and order is by bytes: ``-`` before ``/``, capitals first."""
    write_files(
        tmp_path / "texts", {"b.txt": "3", "a/z.txt": "2", "a-b.md": "1", "Z.py": "0", "é.rst": "4"}
    )
    held = write_files(tmp_path / "held", {"h.txt": "<|endoftext|>"})
    manifest = prepare(make(heldout=[held]))
    assert documents(tmp_path / "dataset", tokenizer, "train") == ["0", "1", "2", "3", "4"]
    # Text that spells the token is text: 13 bytes and one end.
    assert manifest.heldout_tokens == 14
    assert Corpus.open(tmp_path / "dataset").manifest == manifest


def test_every_skipped_file_is_counted_under_its_reason(
    tmp_path: Path, make: Callable[..., PrepareSettings], tokenizer: Path
) -> None:
    """Nothing unusable gets in, and nothing vanishes without being counted."""
    source = write_files(
        tmp_path / "texts",
        {
            "good.txt": "good",
            "copy.txt": "good",
            "copies/again.md": "good",
            "empty.txt": "",
            "latin.txt": b"caf\xe9",
            "binary.txt": b"a\0b",
            "exact.txt": "x" * 1000,
            "large.txt": "x" * 1001,
            "held copy.txt": "held",
            "image.png": "not asked for",
        },
    )
    (source / "dangling.txt").symlink_to(tmp_path / "nothing")
    held = write_files(tmp_path / "held", {"h.txt": "held", "again.txt": "held"})
    manifest = prepare(make(heldout=[held]))
    assert manifest.details["skipped"] == {
        "empty": 1,
        "binary": 1,
        "not_utf8": 1,
        "too_large": 1,
        "duplicate": 3,
        "also_held_out": 1,
        "unreadable": 1,
    }
    assert documents(tmp_path / "dataset", tokenizer, "train") == ["good", "x" * 1000]
    assert documents(tmp_path / "dataset", tokenizer, "heldout") == ["held"]
    assert manifest.details["counts"] == {
        "train": {"documents": 2, "bytes": 1004, "tokens": 1006},
        "heldout": {"documents": 1, "bytes": 4, "tokens": 5},
    }


def test_links_are_followed_once(
    tmp_path: Path, make: Callable[..., PrepareSettings], tokenizer: Path
) -> None:
    """A link out of the folder is followed, a second one and a loop are not."""
    elsewhere = write_files(tmp_path / "elsewhere", {"far.txt": "far"})
    source = write_files(tmp_path / "texts", {"near.txt": "near"})
    (source / "out").symlink_to(elsewhere)
    (source / "out2").symlink_to(elsewhere)
    (source / "loop").symlink_to(source)
    (source / "file.txt").symlink_to(source / "near.txt")
    held = write_files(tmp_path / "held", {"h.txt": "held"})
    manifest = prepare(make(heldout=[held], sources=[source, source / "near.txt"]))
    assert documents(tmp_path / "dataset", tokenizer, "train") == ["near", "far"]
    assert manifest.details["skipped"] == {"reached_again": 2}


def test_include_replaces_the_patterns_but_not_for_files_named_themselves(
    tmp_path: Path, make: Callable[..., PrepareSettings], tokenizer: Path
) -> None:
    """A file given as a source is taken whatever it is called."""
    source = write_files(tmp_path / "texts", {"a.txt": "a", "b.c": "b", "c.log": "c"})
    held = write_files(tmp_path / "held", {"h.c": "h"})
    prepare(make(heldout=[held], include=["*.c"], sources=[source, source / "c.log"]))
    assert documents(tmp_path / "dataset", tokenizer, "train") == ["b", "c"]


def test_a_document_is_on_one_side_whatever_its_name_and_company(
    tmp_path: Path, make: Callable[..., PrepareSettings], forty: Path, tokenizer: Path
) -> None:
    """The split of a corpus is that of a renamed half of it."""
    half = tmp_path / "half"
    half.mkdir()
    for index, path in enumerate(sorted(forty.rglob("*.txt"))[::2]):
        (half / f"{100 - index}.md").write_bytes(path.read_bytes())
    prepare(make())
    prepare(make(sources=[half], out=tmp_path / "of half"))
    for split in ("train", "heldout"):
        whole = set(documents(tmp_path / "dataset", tokenizer, split))
        part = set(documents(tmp_path / "of half", tokenizer, split))
        assert part and part < whole


@settings(derandomize=True, max_examples=50, deadline=None)
@given(
    content=st.binary(),
    seed=st.integers(0, 100),
    fractions=st.tuples(st.floats(0.001, 0.999), st.floats(0.001, 0.999)),
)
def test_what_is_held_out_stays_so_at_a_larger_fraction(
    content: bytes, seed: int, fractions: tuple[float, float]
) -> None:
    """So nothing that was evaluated on is trained on later."""
    small, large = sorted(fractions)
    digest = hashlib.sha256(content).digest()
    assert HashRule(small, seed).holds_out(digest) <= HashRule(large, seed).holds_out(digest)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_share_held_out_is_the_fraction(seed: int) -> None:
    """Of 20,000 documents 1 % is 200 ± 14; five standard deviations are allowed."""
    rule = HashRule(0.01, seed)
    held = sum(rule.holds_out(hashlib.sha256(str(i).encode()).digest()) for i in range(20_000))
    assert abs(held - 200) <= 70


def test_split_seed_chooses_other_documents() -> None:
    """The same share, but not the same documents."""
    digests = [hashlib.sha256(str(i).encode()).digest() for i in range(100)]
    first, second = ([HashRule(0.5, seed).holds_out(d) for d in digests] for seed in (0, 1))
    assert first != second


def test_shards_are_full_but_the_last_and_hashed(
    make: Callable[..., PrepareSettings], forty: Path
) -> None:
    """100 ids each, as the manifest says, and the dataset verifies."""
    manifest = prepare(make())
    for split in ("train", "heldout"):
        sizes = [shard.tokens for shard in manifest.shards[split]]
        assert set(sizes[:-1]) == {100} and 0 < sizes[-1] <= 100
    Corpus.open(make().out).verify()
    assert not (make().out / JOURNAL_NAME).exists()


@pytest.mark.parametrize("workers", [2, 3])
def test_bytes_do_not_depend_on_the_number_of_workers(
    tmp_path: Path,
    make: Callable[..., PrepareSettings],
    forty: Path,
    monkeypatch: pytest.MonkeyPatch,
    workers: int,
) -> None:
    """Every file, the manifest included, with many more tasks than workers."""
    monkeypatch.setattr("trainer.corpus.preparation.ENCODE_TASK_BYTES", 300)
    monkeypatch.setattr("trainer.corpus.preparation.SURVEY_TASK_BYTES", 300)
    prepare(make())
    prepare(make(out=tmp_path / "parallel", workers=workers))
    assert contents(tmp_path / "parallel") == contents(tmp_path / "dataset")


def test_existing_shards_are_taken_as_they_are(
    tmp_path: Path, make: Callable[..., PrepareSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ids in order without an end of their own, in pieces, between texts, over a resume."""
    monkeypatch.setattr("trainer.corpus.preparation.PIECE_IDS", 7)
    monkeypatch.setattr("trainer.corpus.documents.PIECE_IDS", 7)
    ids = [i % END for i in range(250)]
    source = write_files(
        tmp_path / "texts",
        {"a.txt": "a", "b.bin": np.array(ids, dtype="<u4").tobytes(), "c.txt": "c"},
    )
    held = write_files(tmp_path / "held", {"h.txt": "held"})
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "append", killing(1))
        with pytest.raises(Killed):
            prepare(make(heldout=[held], sources=[source, source / "b.bin"]))
    manifest = prepare(make(heldout=[held], sources=[source, source / "b.bin"]))
    parts = [np.fromfile(path, "<u4") for path in sorted(make().out.glob("train-*.bin"))]
    stream = np.concatenate(parts).tolist()
    assert stream[2:-2] == ids
    assert [stream[1], stream[-1]] == [END, END]
    assert manifest.train_tokens == 254


class Killed(BaseException):
    """Stands for the end of the process."""


def killing(after: int) -> Callable[[Any, Any], None]:
    """A `Journal.append` that records `after` shards and then dies before the next."""
    append = Journal.append
    left = iter(range(after))

    def patched(journal: Journal, written: Any) -> None:
        if next(left, None) is None:
            raise Killed
        append(journal, written)

    return patched


@pytest.mark.parametrize("after", [0, 1, 20, 50])
def test_the_same_command_goes_on_after_any_shard(
    tmp_path: Path,
    make: Callable[..., PrepareSettings],
    forty: Path,
    monkeypatch: pytest.MonkeyPatch,
    after: int,
) -> None:
    """Finished shards are kept and not written again, and the result is that of one go."""
    prepare(make(out=tmp_path / "straight"))
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "append", killing(after))
        with pytest.raises(Killed):
            prepare(make())
    lines = (make().out / JOURNAL_NAME).read_bytes().splitlines()
    assert len(lines) == 1 + after
    kept = [json.loads(line)["shard"]["file"] for line in lines[1:]]
    before = {name: (make().out / name).stat().st_mtime_ns for name in kept}
    prepare(make())
    assert contents(make().out) == contents(tmp_path / "straight")
    assert before == {name: (make().out / name).stat().st_mtime_ns for name in kept}


@pytest.mark.parametrize(
    "spoil",
    [
        lambda out: (out / "train-00003.bin").write_bytes(b"\0" * 400),
        lambda out: (out / "train-00000.bin").unlink(),
        lambda out: (out / JOURNAL_NAME).open("ab").write(b'{"shard": {"fi'),
        lambda out: (out / JOURNAL_NAME).open("ab").write(b"null\n"),
    ],
    ids=["changed shard", "missing shard", "torn line", "strange line"],
)
def test_what_is_damaged_is_made_again(
    tmp_path: Path,
    make: Callable[..., PrepareSettings],
    forty: Path,
    monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[[Path], object],
) -> None:
    """From the first shard that is not what the journal says, also if that is killed in turn."""
    prepare(make(out=tmp_path / "straight"))
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "append", killing(20))
        with pytest.raises(Killed):
            prepare(make())
    spoil(make().out)
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "append", killing(5))
        with pytest.raises(Killed):
            prepare(make())
    prepare(make())
    assert contents(make().out) == contents(tmp_path / "straight")


def test_a_finished_dataset_is_left_alone(
    make: Callable[..., PrepareSettings], forty: Path
) -> None:
    """The same command again returns the same manifest and writes nothing."""
    manifest = prepare(make())
    before = {path: path.stat().st_mtime_ns for path in make().out.iterdir()}
    assert prepare(make(workers=2)) == manifest
    assert before == {path: path.stat().st_mtime_ns for path in make().out.iterdir()}


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize(
    "change", [{"shard_tokens": 99}, {"heldout": HashRule(0.5, 1)}, {"max_file_bytes": 50}]
)
def test_a_folder_of_another_dataset_is_refused(
    make: Callable[..., PrepareSettings],
    forty: Path,
    monkeypatch: pytest.MonkeyPatch,
    finished: bool,
    change: dict[str, Any],
) -> None:
    """Other options would mix two datasets; nothing is touched."""
    with monkeypatch.context() as patch:
        if not finished:
            patch.setattr(Journal, "append", killing(3))
        try:
            prepare(make())
        except Killed:
            assert not finished
    before = contents(make().out)
    with pytest.raises(DataError, match="of other sources or options"):
        prepare(make(**change))
    assert contents(make().out) == before


def test_changed_sources_do_not_go_on_with_an_old_dataset(
    make: Callable[..., PrepareSettings], forty: Path
) -> None:
    """Another text of the same length at the same place, on the same side of the split."""
    prepare(make(heldout=[forty / "0"]))
    path = next((forty / "1").rglob("*.txt"))
    path.write_bytes(path.read_bytes()[::-1])
    with pytest.raises(DataError, match="of other sources or options"):
        prepare(make(heldout=[forty / "0"]))


def command(settings: PrepareSettings, fraction: float = 0.5) -> list[str]:
    """The command line for `settings`, whose sources are folders."""
    return [
        "prepare",
        *map(str, settings.sources),
        *("--tokenizer", str(settings.tokenizer)),
        *("--out", str(settings.out)),
        *("--heldout-fraction", str(fraction)),
        *("--shard-tokens", str(settings.shard_tokens)),
        *("--workers", str(settings.workers)),
    ]


@contextmanager
def running(arguments: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    """`aprtrain` in a process group of its own."""
    with subprocess.Popen(
        [sys.executable, "-m", "trainer", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        cwd=Path(__file__).parents[2],
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def wait_for(condition: Callable[[], bool]) -> None:
    """Until `condition` holds; a minute means that it never will."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "waited for a minute"
        time.sleep(0.002)


@pytest.fixture
def large(tmp_path: Path, make: Callable[..., PrepareSettings]) -> PrepareSettings:
    """2.4 MB in 600 texts, two workers, half a second of encoding in 60 shards."""
    generator = random.Random(1)
    write_files(
        tmp_path / "texts",
        {f"{i}.txt": "".join(generator.choices("abcdef \n", k=4000)) for i in range(600)},
    )
    return make(shard_tokens=40_000, workers=2, max_file_bytes=2**22)


def members(group: int) -> list[int]:
    """Processes of a process group that are alive."""
    alive = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, its_group = path.read_text().rpartition(") ")[2].split()[:3]
        except OSError:
            continue
        if int(its_group) == group and state != "Z":
            alive.append(int(path.parent.name))
    return alive


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_a_killed_command_leaves_no_process_and_goes_on(
    tmp_path: Path, large: PrepareSettings
) -> None:
    """SIGKILL to the parent alone, while both workers are busy; then the same command again."""
    prepare(replace(large, out=tmp_path / "straight", workers=1))
    for shard in (2, 20):
        with running(command(large)) as process:
            wait_for((large.out / f"train-{shard:05d}.bin").exists)
            process.kill()
        assert not (large.out / "manifest.json").exists()
        wait_for(lambda group=process.pid: not members(group))  # type: ignore[misc]
    prepare(large)
    assert contents(large.out) == contents(tmp_path / "straight")


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_ctrl_c_says_how_to_go_on(large: PrepareSettings) -> None:
    """One line, the code of an interrupted command, no worker left, finished shards kept."""
    with running(command(large)) as process:
        wait_for((large.out / "train-00002.bin").exists)
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "run the same command to go on" in errors
    assert "Traceback" not in errors
    # The resource tracker of multiprocessing ends a moment after its parent.
    wait_for(lambda: not members(process.pid))
    assert (large.out / JOURNAL_NAME).exists()
    assert not list(large.out.glob("*.partial"))


def test_interrupted_in_one_process_too(
    make: Callable[..., PrepareSettings], forty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a single worker the interrupt arrives in the encoding itself."""

    def interrupt(reader: DocumentReader, task: EncodeTask) -> list[Piece]:
        raise KeyboardInterrupt

    monkeypatch.setattr(DocumentReader, "encode", interrupt)
    with pytest.raises(Interrupted, match="run the same command to go on"):
        prepare(make())


def test_a_worker_that_dies_is_one_error(tokenizer: Path) -> None:
    """As when the system runs out of memory; the command ends instead of waiting for ever."""

    def tasks() -> Iterator[tuple[Any, ...]]:
        for number in range(1000):
            if number == 3:
                wait_for(lambda: bool(multiprocessing.active_children()))
                for child in multiprocessing.active_children():
                    os.kill(child.pid or 0, signal.SIGKILL)
            yield ()

    with (
        pytest.raises(DataError, match="worker process was ended"),
        Workers(2, tokenizer, 1000) as workers,
    ):
        list(workers.map(DocumentReader.survey, tasks()))
    assert not multiprocessing.active_children()


def test_results_are_bounded_and_in_order(tokenizer: Path) -> None:
    """No more tasks are taken from the source than a few a worker ahead of their results."""
    taken = 0

    def tasks() -> Iterator[EncodeTask]:
        nonlocal taken
        for number in range(100):
            taken += 1
            yield EncodeTask(number, ())

    with Workers(2, tokenizer, 1000) as workers:
        for done, result in enumerate(workers.map(DocumentReader.encode, tasks()), 1):
            assert result == []
            assert taken - done < 2 * 4 + 1
    assert taken == 100


def full_disk(path: Path, space: int) -> Any:
    """A `durable_file` on a disk with room for `space` bytes."""
    original = durable.durable_file

    @contextmanager
    def opened(target: Path) -> Iterator[BinaryIO]:
        with original(target) as file:
            yield Limited(file, space)  # type: ignore[misc]

    return opened


class Limited:
    """A file that has no room left after `space` bytes."""

    def __init__(self, file: BinaryIO, space: int) -> None:
        self._file, self._space = file, space

    def write(self, content: memoryview) -> None:
        """Write, or fail as a full disk does."""
        self._space -= content.nbytes
        if self._space < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._file.write(content)


def test_a_full_disk_is_one_error_and_leaves_no_half_shard(
    tmp_path: Path,
    make: Callable[..., PrepareSettings],
    forty: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It says how much is free; once there is room the command goes on."""
    prepare(make(out=tmp_path / "straight"))
    with monkeypatch.context() as patch:
        patch.setattr("trainer.corpus.shards.durable_file", full_disk(make().out, 250))
        with pytest.raises(DataError, match=r"the disk is full \([0-9,]+ bytes free\)"):
            prepare(make())
    assert not list(make().out.glob("*.partial"))
    prepare(make())
    assert contents(make().out) == contents(tmp_path / "straight")


@pytest.mark.parametrize("name", ["10.txt", "ids.bin"])
@pytest.mark.parametrize("content", [b"", b"\x05\0\0\0" * 40])
def test_a_file_that_changes_meanwhile_is_refused(
    make: Callable[..., PrepareSettings],
    forty: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    content: bytes,
) -> None:
    """After the survey it is shorter, or has other content of the same length."""
    path = forty / "1/1" / name
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_bytes(b"\x01\0\0\0" * 40 if name == "ids.bin" else b"b" * 160)
    encode = DocumentReader.encode

    def change_first(reader: DocumentReader, task: EncodeTask) -> list[Piece]:
        path.write_bytes(content)
        return encode(reader, task)

    monkeypatch.setattr(DocumentReader, "encode", change_first)
    with pytest.raises(DataError, match="the file changed while"):
        prepare(make(sources=[forty, path]))


def test_two_commands_do_not_write_one_dataset(
    make: Callable[..., PrepareSettings], forty: Path
) -> None:
    """The journal is locked while a command is at work."""
    make().out.mkdir()
    with (
        Journal(make().out, "0" * 64, 257),
        pytest.raises(DataError, match="another aprtrain prepare is writing"),
    ):
        prepare(make())


REFUSED: dict[str, tuple[dict[str, str | bytes], dict[str, Any], str]] = {
    "missing source": ({"a.txt": "a"}, {"sources": ["absent"]}, "absent: No such file"),
    "missing held-out source": ({"a.txt": "a"}, {"heldout": ["absent"]}, "absent: No such file"),
    "nothing matches": ({"a.png": "a"}, {}, r"no document is left to train on \(skipped: none\)"),
    "all unusable": ({"a.txt": "", "b.txt": b"\xff"}, {}, "skipped: 1 empty, 1 not_utf8"),
    "all held out": (
        {"a.txt": "a"},
        {"heldout": ["texts"]},
        r"no document is left to train on \(skipped: 1 also_held_out\)",
    ),
    "nothing held out": (
        {"a.txt": "a"},
        {"heldout": HashRule(1e-9, 0)},
        "takes none of 1 documents at --heldout-fraction 1e-09",
    ),
    "empty held-out source": (
        {"a.txt": "a", "held/h.txt": ""},
        {"heldout": ["texts/held"]},
        r"no usable document in the --heldout sources \(skipped: 1 empty\)",
    ),
    "half an id": (
        {"a.bin": b"12345"},
        {"sources": ["texts/a.bin"]},
        "a.bin: 5 bytes are not whole",
    ),
    "id outside the vocabulary": (
        {"a.bin": b"\1\1\0\0"},
        {"sources": ["texts/a.bin"]},
        "a.bin: token id 257 is outside the tokenizer's 257 ids",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_unusable_sources_are_refused_before_anything_is_written(
    tmp_path: Path, make: Callable[..., PrepareSettings], name: str
) -> None:
    """One DataError that says what and where."""
    files, changes, said = REFUSED[name]
    write_files(tmp_path / "texts", files)
    for field in {"sources", "heldout"} & set(changes):
        if isinstance(changes[field], list):
            changes = changes | {field: [tmp_path / path for path in changes[field]]}
    with pytest.raises(DataError, match=said) as caught:
        prepare(make(**changes))
    assert "\n" not in str(caught.value)
    assert not make().out.exists()


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"dataset/mine.txt": "precious"}, "not empty, and not a dataset of ours"),
        ({"dataset": "precious"}, "not a folder"),
    ],
)
def test_foreign_output_is_not_touched(
    tmp_path: Path,
    make: Callable[..., PrepareSettings],
    forty: Path,
    files: dict[str, str | bytes],
    said: str,
) -> None:
    """Whatever stands there is somebody's."""
    write_files(tmp_path, files)
    with pytest.raises(DataError, match=said):
        prepare(make())
    assert (tmp_path / next(iter(files))).read_text() == "precious"


def test_tokenizer_without_end_of_text_is_refused(
    tmp_path: Path, make: Callable[..., PrepareSettings], forty: Path
) -> None:
    """Documents would run into each other."""
    bare = write_tokenizer(tmp_path / "bare")
    with pytest.raises(TokenizerError, match=r"no <\|endoftext\|> token"):
        prepare(make(tokenizer=bare))
    assert not make().out.exists()


def test_tokenizer_hash_is_that_of_the_file_read(tmp_path: Path, tokenizer: Path) -> None:
    """A folder stands for its tokenizer.json if it has one, else for GPT-2's two files in order."""
    pair = (tokenizer / "encoder.json").read_bytes() + (tokenizer / "vocab.bpe").read_bytes()
    assert tokenizer_sha256(tokenizer) == hashlib.sha256(pair).hexdigest()
    (tokenizer / "tokenizer.json").write_text("{}")
    of_file = tokenizer_sha256(tokenizer / "tokenizer.json")
    assert tokenizer_sha256(tokenizer) == of_file == hashlib.sha256(b"{}").hexdigest()
    with pytest.raises(TokenizerError, match="absent: No such file"):
        tokenizer_sha256(tmp_path / "absent")


def test_command_line_makes_a_dataset_and_says_what_is_in_it(
    make: Callable[..., PrepareSettings], forty: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same dataset as `prepare`, exit code 0, and a summary on stdout."""
    arguments = command(make())
    assert cli.main(arguments) == 0
    manifest = Corpus.open(make().out).manifest
    assert manifest.details["options"]["shard_tokens"] == 100
    printed = capsys.readouterr().out
    assert f"{manifest.train_tokens:,} tokens" in printed
    assert manifest.sha256 in printed


@pytest.mark.parametrize(
    ("extra", "code", "said"),
    [
        (["--heldout-fraction", "0"], 2, "'0' is not a number between 0 and 1"),
        (["--heldout-fraction", "nan"], 2, "'nan' is not a number between 0 and 1"),
        (["--heldout", "x"], 2, "not allowed with"),
        (["--shard-tokens", "0"], 2, "'0' is not an integer of at least 1"),
        (["--include", "*.none"], 7, "no document is left"),
        (["--tokenizer", "nowhere"], 6, "nowhere: No such file"),
    ],
)
def test_command_line_refuses_with_the_code_of_its_reason(
    make: Callable[..., PrepareSettings],
    forty: Path,
    capsys: pytest.CaptureFixture[str],
    extra: list[str],
    code: int,
    said: str,
) -> None:
    """One line on stderr; nothing is written."""
    assert cli.main([*command(make()), *extra]) == code
    assert said in capsys.readouterr().err
    assert not make().out.exists()
