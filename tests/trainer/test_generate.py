"""Decoding with a cache gives what the whole forward gives, and the text follows from the seed."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel

from tests.trainer.conftest import LLAMA
from trainer import cli
from trainer.commands import generate as command
from trainer.config import ModelConfig
from trainer.errors import ConfigurationError, TokenizerError
from trainer.generate import Sampling, generate
from trainer.model.decoder import Decoder
from trainer.model.kv_cache import KvCache, cached_logits
from trainer.weights.apr_metadata import config_metadata
from trainer.weights.apr_writer import write_apr

MakeModel = Callable[..., Decoder]
TOKENS = [*sorted(ByteLevel.alphabet())[:63], "<|endoftext|>"]


def some_tokens(count: int) -> torch.Tensor:
    """Random ids of the tiny vocabulary, ``[1, count]``."""
    return torch.randint(64, (1, count), generator=torch.Generator().manual_seed(5))


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Relative L2 distance."""
    return float((found.float() - expected.float()).norm() / expected.float().norm())


@pytest.mark.parametrize("prefill", [1, 5, 31])
def test_cached_logits_equal_the_full_forward(
    config: ModelConfig, make_model: MakeModel, prefill: int
) -> None:
    """Every position after a prefill of 1, 5 or all but one; grouped queries, both families.

    In float32 the two differ by the order of sums: at most 1.8e-6 of a token's norm over 36 models,
    where the full forward itself differs by 1.1e-6 between two lengths. 2^-17 is four times that;
    a position that is off by one changes every token by 6e-2 or more.
    """
    model, tokens = make_model(config), some_tokens(32)
    with torch.no_grad():
        full = model.logits(tokens)[0]
        cache = KvCache(model, 32)
        found = [cached_logits(model, cache, tokens[:, :prefill], cache.slots[:prefill])]
        for position in range(prefill, 32):
            token, slot = tokens[:, position : position + 1], cache.slots[position : position + 1]
            found.append(cached_logits(model, cache, token, slot))
    for logits, expected in zip(found, full[prefill - 1 :], strict=True):
        assert relative(logits, expected) <= 2**-17


def test_bfloat16_cache_holds_what_the_full_forward_holds(
    config: ModelConfig, make_model: MakeModel
) -> None:
    """bfloat16 logits within 2^-5 of the norm: a few of its roundings, 2^-8 each, over 2 layers."""
    model, tokens = make_model(config, dtype=torch.bfloat16), some_tokens(20)
    with torch.no_grad():
        cache = KvCache(model, 20)
        assert cache.keys.dtype == torch.bfloat16
        cached_logits(model, cache, tokens[:, :19], cache.slots[:19])
        found = cached_logits(model, cache, tokens[:, 19:], cache.slots[19:20])
        assert relative(found, model.logits(tokens)[0, -1]) <= 2**-5


def test_what_later_slots_hold_changes_nothing(llama: ModelConfig, make_model: MakeModel) -> None:
    """The mask hides slots that are not written yet, bit for bit."""
    model, tokens = make_model(llama), some_tokens(4)
    with torch.no_grad():
        clean, used = KvCache(model, 32), KvCache(model, 32)
        used.keys.fill_(3.0)
        used.values.fill_(3.0)
        found = [cached_logits(model, cache, tokens, cache.slots[:4]) for cache in (clean, used)]
    assert torch.equal(*found)


def test_greedy_takes_the_most_likely_token_each_time(
    config: ModelConfig, make_model: MakeModel
) -> None:
    """The same ids as the argmax of a whole forward for every token."""
    model, ids = make_model(config), some_tokens(6)[0].tolist()
    found = generate(model, ids, 12)
    with torch.no_grad():
        for _ in range(12):
            ids.append(int(model.logits(torch.tensor([ids]))[0, -1].argmax()))
    assert found.ids == ids[6:]
    assert found.decoded == 11 and found.tokens_per_second is not None
    assert not found.stopped


def test_the_stop_token_ends_the_text(llama: ModelConfig, make_model: MakeModel) -> None:
    """It is not part of the text; as the first token it leaves none."""
    model, prompt = make_model(llama), some_tokens(6)[0].tolist()
    ids = generate(model, prompt, 12).ids
    stop = ids[5]
    found = generate(model, prompt, 12, stop=stop)
    assert found.stopped and found.ids == ids[: ids.index(stop)]
    first = generate(model, prompt, 12, stop=ids[0])
    assert (first.stopped, first.ids, first.tokens_per_second) == (True, [], None)


def test_draws_follow_the_seed_and_the_top_k(llama: ModelConfig, make_model: MakeModel) -> None:
    """One seed, one text; another seed, another; top-k 1 is greedy, and k bounds the choice."""
    model, prompt = make_model(llama), some_tokens(4)[0].tolist()

    def drawn(**options: Any) -> list[int]:
        return generate(model, prompt, 24, Sampling(**options)).ids

    assert drawn(temperature=1.0, seed=1) == drawn(temperature=1.0, seed=1)
    assert drawn(temperature=1.0, seed=1) != drawn(temperature=1.0, seed=2)
    assert drawn(temperature=5.0, top_k=1) == drawn()
    with torch.no_grad():
        best = model.logits(torch.tensor([prompt]))[0, -1].topk(3).indices.tolist()
    firsts = {generate(model, prompt, 1, Sampling(9.0, 3, seed)).ids[0] for seed in range(60)}
    assert firsts == set(best)


@pytest.mark.parametrize(
    ("prompt", "new", "said"),
    [
        ([], 1, "the prompt has no token"),
        ([3, 64], 1, "ids 3 … 64, the model has 0 … 63"),
        ([1] * 30, 3, "33 positions are outside 1 … 32"),
    ],
)
def test_impossible_requests_are_refused(
    llama: ModelConfig, make_model: MakeModel, prompt: list[int], new: int, said: str
) -> None:
    """Nothing to continue, an id without a row, more positions than there are."""
    with pytest.raises(ConfigurationError, match=said):
        generate(make_model(llama), prompt, new)


def test_all_positions_can_be_used(llama: ModelConfig, make_model: MakeModel) -> None:
    """Prompt and text together fill the model's positions exactly."""
    assert len(generate(make_model(llama), [1] * 30, 2).ids) == 2


def run(*arguments: object) -> int:
    """The command with these arguments."""
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers())
    options = parser.parse_args(["generate", *map(str, arguments)])
    return int(options.run(options))


@pytest.fixture
def checkpoint(tmp_path: Path, make_model: MakeModel) -> Path:
    """The tiny Llama, without a tokenizer."""
    path = tmp_path / "model.apr"
    tensors = {name: p.detach() for name, p in make_model(LLAMA).named_parameters()}
    write_apr(path, config_metadata(LLAMA), tensors)
    return path


@pytest.fixture
def tokenizer_file(tmp_path: Path) -> Path:
    """Single bytes."""
    engine = Tokenizer(BPE({token: index for index, token in enumerate(TOKENS)}, []))
    engine.pre_tokenizer = ByteLevel(add_prefix_space=False)
    path = tmp_path / "tokenizer.json"
    engine.save(str(path))
    return path


def test_command_prints_text_rate_and_json(
    checkpoint: Path,
    tokenizer_file: Path,
    make_model: MakeModel,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The ids are those of the model at the file's weights; the rate goes to stderr."""
    common = ("--init", checkpoint, "--tokenizer", tokenizer_file, "--device", "cpu")
    common += ("--prompt", "AB12", "--max-new-tokens", 8)  # type: ignore[assignment]
    assert run(*common, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    prompt = [TOKENS.index(character) for character in "AB12"]
    assert report["ids"] == generate(make_model(LLAMA), prompt, 8, stop=63).ids
    assert report["prompt_tokens"] == 4
    assert run(*common) == 0
    out, err = capsys.readouterr()
    assert out == f"AB12{report['text']}\n"
    assert "tokens/s" in err


def test_command_needs_a_tokenizer(checkpoint: Path) -> None:
    """The checkpoint embeds none, and none is given."""
    with pytest.raises(TokenizerError, match=r"comes without a tokenizer; pass --tokenizer"):
        run("--init", checkpoint, "--prompt", "A", "--device", "cpu")


@pytest.mark.parametrize(
    "arguments", [("--max-new-tokens", "0"), ("--temperature", "nan"), ("--top-k", "0")]
)
def test_numbers_that_make_no_sense_are_refused(arguments: tuple[str, str]) -> None:
    """By the parser, before torch is imported."""
    with pytest.raises(SystemExit):
        run("--init", "x", "--prompt", "A", *arguments)


@pytest.mark.parametrize("temperature", [1e-300, 5e-324, 1e-40, 1e300])
def test_extreme_temperatures_draw_too(
    llama: ModelConfig, make_model: MakeModel, temperature: float
) -> None:
    """Next to zero it is greedy; however hot, it draws."""
    model = make_model(llama)
    found = generate(model, [1, 2, 3], 8, Sampling(temperature=temperature)).ids
    assert len(found) == 8
    assert temperature > 1 or found == generate(model, [1, 2, 3], 8).ids


def test_prompt_that_is_not_utf8_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """Bytes from a shell in another encoding: one line, before anything is read."""
    assert cli.main(["generate", "--init", "x", "--prompt", "caf\udce9"]) == 2
    assert "is not UTF-8" in capsys.readouterr().err
