"""Tokenizers: pre-tokenizers by name, and the vocabulary pre-flight."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import pytest
from tokenizers import AddedToken
from tokenizers import Tokenizer as Engine
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE, WordLevel
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import ByteLevel

from trainer.errors import TokenizerError
from trainer.tokenizer import (
    has_tokenizer,
    load_tokenizer,
    require_fitting_vocabulary,
    tokenizer_metadata,
)
from trainer.weights.apr_file import AprFile
from trainer.weights.apr_writer import write_apr

BYTES = sorted(ByteLevel.alphabet())
MERGES = ["1 2", "a b", "Ġ a", "Ġ Ġ"]
TOKENS = ["<|endoftext|>", *BYTES, *(merge.replace(" ", "") for merge in MERGES), "[PAD]"]
CONTROL, NORMAL, UNUSED = 3, 1, 5


@pytest.fixture
def write_gguf_tokenizer(tmp_path: Path) -> Path:
    """A GGUF with bytes, four merges, a control token and an unused last id; smollm."""
    return write(tmp_path / "tokenizer.gguf", "smollm")


def write(path: Path, pre: str) -> Path:
    """A GGUF that holds only a tokenizer."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(TOKENS)
    writer.add_token_types([CONTROL] + [NORMAL] * (len(TOKENS) - 2) + [UNUSED])
    writer.add_token_merges(MERGES)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


def pieces(path: Path, text: str) -> list[str]:
    """Tokens of `text` as strings of the vocabulary."""
    return [TOKENS[index] for index in load_tokenizer(path).encode(text)]


def test_smollm_splits_every_digit(tmp_path: Path) -> None:
    """12 is one token in GPT-2's pre-tokenizer, though not in smollm's or qwen2's."""
    assert pieces(write(tmp_path / "gpt2.gguf", "gpt-2"), "12") == ["12"]
    assert pieces(write(tmp_path / "smollm.gguf", "smollm"), "12") == ["1", "2"]
    assert pieces(write(tmp_path / "qwen2.gguf", "qwen2"), "12") == ["1", "2"]


def test_qwen2_normalises_to_composed_characters(tmp_path: Path) -> None:
    """e and a combining acute become é (NFC); smollm leaves the two characters."""
    qwen2, smollm = write(tmp_path / "q.gguf", "qwen2"), write(tmp_path / "s.gguf", "smollm")
    assert len(pieces(qwen2, "e\u0301")) == 2
    assert len(pieces(smollm, "e\u0301")) == 3


def test_control_tokens_are_not_parsed_from_text(write_gguf_tokenizer: Path) -> None:
    """Text that spells a control token is bytes; the id is known all the same."""
    tokenizer = load_tokenizer(write_gguf_tokenizer)
    ids = tokenizer.encode("<|endoftext|>")
    assert tokenizer.end_of_text == 0
    assert 0 not in ids and len(ids) == 13
    assert tokenizer.decode(ids) == "<|endoftext|>"


def test_unused_ids_do_not_count(write_gguf_tokenizer: Path) -> None:
    """Padding at the end of a GGUF vocabulary is no token."""
    assert load_tokenizer(write_gguf_tokenizer).vocab_size == len(TOKENS) - 1


def test_gpt2_files_are_read(tmp_path: Path) -> None:
    """encoder.json and vocab.bpe give ids, the separator and the exact vocabulary size."""
    (tmp_path / "encoder.json").write_text(json.dumps({t: i for i, t in enumerate(TOKENS)}))
    (tmp_path / "vocab.bpe").write_text("\n".join(["#version: 0.2", *MERGES, ""]))
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.vocab_size == len(TOKENS)
    assert tokenizer.end_of_text == 0
    assert [TOKENS[index] for index in tokenizer.encode("ab 12")] == ["ab", "Ġ", "12"]


@pytest.mark.parametrize(
    ("pre", "said"),
    [("llama-bpe", "pre-tokenizer 'llama-bpe'"), ("", r"the metadata has no tokenizer\.ggml\.pre")],
)
def test_unknown_pre_tokenizer_is_refused(tmp_path: Path, pre: str, said: str) -> None:
    """Guessing would give plausible, wrong ids."""
    with pytest.raises(TokenizerError, match=said):
        load_tokenizer(write(tmp_path / "t.gguf", pre))


@pytest.mark.parametrize("name", ["absent.json", "empty-folder", "broken.json"])
def test_unreadable_tokenizer_is_refused_by_path(tmp_path: Path, name: str) -> None:
    """Missing file, folder without a tokenizer, file that is none."""
    (tmp_path / "empty-folder").mkdir()
    (tmp_path / "broken.json").write_text("{}")
    with pytest.raises(TokenizerError, match=name):
        load_tokenizer(tmp_path / name)


TEXT = "1 22 ab <|endoftext|> [PAD] e\u0301 Ġa  aab\n\t x-1"


@pytest.mark.parametrize("kind", ["gpt-2", "smollm", "qwen2", "hugging-face"])
def test_embedded_tokenizer_gives_the_same_ids(tmp_path: Path, kind: str) -> None:
    """Out of an APR file: ids, text, size and separator, with tokens added beside the model."""
    if kind == "hugging-face":
        engine = Engine(BPE({t: i for i, t in enumerate(TOKENS[:-1])}, [("1", "2"), ("a", "b")]))
        engine.pre_tokenizer = ByteLevel(add_prefix_space=True)
        engine.normalizer = Lowercase()
        engine.decoder = ByteLevelDecoder()
        engine.add_tokens([AddedToken("aab", normalized=False)])
        engine.add_special_tokens([AddedToken("<|endoftext|>", special=True)])
        engine.save(str(tmp_path / "tokenizer.json"))
        source = tmp_path / "tokenizer.json"
    else:
        source = write(tmp_path / "source.gguf", kind)
    original, path = load_tokenizer(source), tmp_path / "embedded.apr"
    write_apr(path, tokenizer_metadata(original), {})
    found = load_tokenizer(path)
    ids = original.encode(TEXT)
    assert found.encode(TEXT) == ids
    assert found.decode(ids) == original.decode(ids)
    assert (found.vocab_size, found.end_of_text) == (original.vocab_size, original.end_of_text)
    assert AprFile(path).header.flags & 0x200
    assert has_tokenizer(path) and has_tokenizer(tmp_path) == (kind == "hugging-face")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tokenizer.pipeline": None}, "does not say how it splits text"),
        ({"tokenizer.vocabulary": "abc"}, "tokenizer.vocabulary must be a list of strings"),
        ({"tokenizer.merges": [["a", "b"]]}, "tokenizer.merges must be a list of strings"),
        ({"tokenizer.merges": ["a b c"]}, "a merge is not two tokens"),
        ({"tokenizer.merges": ["a no-such-token"]}, "the embedded tokenizer is damaged"),
        ({"tokenizer.outside_model": "x"}, "tokenizer.outside_model must be a list of ids"),
    ],
)
def test_damaged_embedded_tokenizer_is_refused(
    tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    """Also one of another writer, that does not say how text is split."""
    metadata = tokenizer_metadata(load_tokenizer(write(tmp_path / "s.gguf", "smollm")))
    path = tmp_path / "embedded.apr"
    write_apr(path, metadata | changes, {})
    with pytest.raises(TokenizerError, match=said):
        load_tokenizer(path)


def test_only_byte_pair_encodings_are_embedded(tmp_path: Path) -> None:
    """Other models have no merges."""
    Engine(WordLevel({"a": 0}, unk_token="a")).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(TokenizerError, match="type 'WordLevel' cannot be embedded"):
        tokenizer_metadata(load_tokenizer(tmp_path))


@pytest.mark.parametrize(
    ("size", "rows", "with_init", "accepted"),
    [
        (50257, 50257, False, True),
        (50256, 50257, False, False),
        (50281, 50257, False, False),
        (151665, 151936, True, True),
        (151936, 151936, True, True),
        (151937, 151936, True, False),
        (151665, 50257, False, False),
    ],
)
def test_vocabulary_must_fit_the_embedding(
    size: int, rows: int, with_init: bool, accepted: bool
) -> None:
    """Exactly from scratch, at most with initial weights; both sizes are named."""
    if accepted:
        require_fitting_vocabulary(size, rows, with_init=with_init)
        return
    with pytest.raises(TokenizerError, match=f"{size} ids.*vocab_size is {rows}"):
        require_fitting_vocabulary(size, rows, with_init=with_init)
