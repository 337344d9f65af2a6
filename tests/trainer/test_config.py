"""Configurations: the frozen numbers, the counts, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from trainer.config import (
    LLAMA_370M,
    QWEN2_0_5B,
    ModelConfig,
    nominal_parameters,
    require_decoder,
    stored_parameters,
)
from trainer.errors import ArchitectureError
from trainer.model.decoder import Decoder


def test_parameter_counts_are_exact() -> None:
    """Llama-370M has 373,509,120 nominal and 322,045,952 stored parameters, Qwen2 494,032,768."""
    assert nominal_parameters(LLAMA_370M) == 373_509_120
    assert stored_parameters(LLAMA_370M) == 322_045_952
    assert stored_parameters(QWEN2_0_5B) == 494_032_768


def test_stored_count_is_what_the_model_has(config: ModelConfig) -> None:
    """The closed form equals the number of scalars in the decoder that is really built."""
    with torch.device("meta"):
        model = Decoder(config)
    assert sum(p.numel() for p in model.parameters()) == stored_parameters(config)


def test_untied_head_is_counted_once(qwen2: ModelConfig) -> None:
    """An untied model stores every parameter that its nominal count has."""
    assert nominal_parameters(qwen2) == stored_parameters(qwen2)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("hidden_size", 0, "hidden_size must be a positive integer, not 0"),
        ("num_layers", True, "num_layers"),
        ("vocab_size", 64.0, "vocab_size must be a positive integer, not 64.0"),
        ("num_kv_heads", 3, "num_kv_heads 3 does not divide num_heads 4"),
        ("head_dim", 7, "head_dim must be even"),
        ("rms_norm_eps", float("nan"), "rms_norm_eps must be finite and positive, not nan"),
        ("rope_theta", -1.0, "rope_theta"),
        ("attention_bias", 1, "attention_bias must be true or false, not 1"),
    ],
)
def test_impossible_field_is_refused_by_name(
    llama: ModelConfig, field: str, value: object, said: str
) -> None:
    """A configuration that cannot be is an ArchitectureError with the field and its value."""
    with pytest.raises(ArchitectureError, match=said.replace("(", r"\(")):
        replace(llama, **{field: value})  # type: ignore[arg-type]


def test_encoder_can_be_described_but_not_trained(llama: ModelConfig) -> None:
    """A bert configuration exists, and both the check and the model refuse it by name."""
    encoder = replace(llama, architecture="bert")
    with pytest.raises(ArchitectureError, match=r"FALSIFY-APR-PRETRAIN-ARCH-007.*'bert'"):
        require_decoder(encoder)
    with pytest.raises(ArchitectureError, match="'bert'"):
        Decoder(encoder)


def test_light_modules_do_not_import_torch() -> None:
    """trainer, its config, device, errors and cli can be imported without torch."""
    program = (
        "import sys, trainer, trainer.config, trainer.device, trainer.errors, trainer.cli;"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
