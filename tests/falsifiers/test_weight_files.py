"""Weight folders that falsifiers write are read alike by transformers, from the folder alone."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from falsifiers.errors import relative_error
from falsifiers.inputs import random_tokens
from falsifiers.reference.model import logits, parameter_shapes
from falsifiers.weight_files import random_weights, write_folder

CONFIGURATIONS = ["tiny-llama", "tiny-qwen2", "untied"]


@pytest.fixture(params=CONFIGURATIONS)
def config(request: pytest.FixtureRequest, loaded: Any) -> dict[str, Any]:
    """No field has transformers' default: theta and eps would else be right by luck."""
    if request.param == "untied":
        base = {**loaded.configurations["tiny-llama"], "tie_word_embeddings": False}
    else:
        base = loaded.configurations[request.param]
    return {**base, "rope_theta": 5000.0, "rms_norm_eps": 1e-3}


def test_random_weights_are_those_of_the_configuration(config):
    """Exactly its names and shapes, float32, finite, the same for one seed."""
    weights = random_weights(config, 0)
    assert {n: tuple(w.shape) for n, w in weights.items()} == parameter_shapes(config)
    assert all(w.dtype == torch.float32 and bool(w.isfinite().all()) for w in weights.values())
    again, other = random_weights(config, 0), random_weights(config, 1)
    assert all(torch.equal(weights[n], again[n]) for n in weights)
    assert not any(torch.equal(weights[n], other[n]) for n in weights)


def test_random_weights_have_no_special_values(config):
    """Norms lie around one and are not one; biases are not zero."""
    for name, weight in random_weights(config, 0).items():
        assert weight.unique().numel() > weight.numel() / 2, name
        centre = 1.0 if "norm" in name else 0.0
        assert weight.mean().item() == pytest.approx(centre, abs=0.1), name


def test_transformers_reads_the_folder_as_the_oracle_does(config, tmp_path):
    """`from_pretrained` gives the oracle's logits: names, layout and every field are right."""
    from transformers import AutoModelForCausalLM

    weights = random_weights(config, 0)
    folder = write_folder(tmp_path / "model", config, weights)
    model, report = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, local_files_only=True, output_loading_info=True
    )
    assert not report["missing_keys"] and not report["unexpected_keys"], report
    tokens = random_tokens(config, 2, 32, 0)
    with torch.no_grad():
        theirs = model.eval()(input_ids=tokens, use_cache=False).logits
    # Ten times float32 noise at three layers; theta or eps at their defaults are off by 1e-3.
    assert relative_error(theirs, logits(weights, config, tokens)) < 5e-6


def test_the_trainer_reads_back_the_configuration(config, tmp_path, subject):
    """What was written is what the architecture of the folder says, field for field."""
    folder = write_folder(tmp_path / "model", config, random_weights(config, 0))
    assert subject.read_architecture(folder) == config


def test_a_folder_is_not_written_over(config, tmp_path):
    """An existing folder is an error: two falsifiers must not share one by accident."""
    write_folder(tmp_path / "model", config, random_weights(config, 0))
    before = json.loads((tmp_path / "model" / "config.json").read_text())
    with pytest.raises(FileExistsError):
        write_folder(tmp_path / "model", {**config, "num_layers": 1}, {})
    assert json.loads((tmp_path / "model" / "config.json").read_text()) == before
