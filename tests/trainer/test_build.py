"""What the pretrain command builds, and what it refuses before anything is built."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from trainer import build, device
from trainer.config import LLAMA_370M, QWEN2_0_5B, ModelConfig
from trainer.errors import ArchitectureError, ConfigurationError, DeviceUnavailable, WeightsError
from trainer.model.decoder import Decoder

MakeModel = Callable[..., Decoder]
Write = Callable[..., Path]
NOWHERE = Path("does-not-exist.gguf")
WITH_INIT = [build.build_shared_trainer_with_init, build.build_shared_cuda_trainer_with_init]


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """These checks must fire without a GPU, wherever they are run."""
    monkeypatch.setattr(device, "visible_cuda_devices", lambda: 0)


@pytest.mark.parametrize("builder", WITH_INIT)
@pytest.mark.parametrize("pair", [(LLAMA_370M, None), (None, NOWHERE)])
def test_architecture_and_path_come_together(
    builder: Callable[..., object], pair: tuple[ModelConfig | None, Path | None]
) -> None:
    """One without the other is refused, and the error names the function that was called."""
    with pytest.raises(ConfigurationError, match=f"^{builder.__name__}: init_arch and init_path"):
        builder(1e-4, 128, 42, *pair)


@pytest.mark.parametrize("builder", WITH_INIT)
def test_encoder_is_refused_before_device_and_file(
    builder: Callable[..., object], llama: ModelConfig
) -> None:
    """Neither the missing GPU, the missing file nor the length is what the user hears about."""
    with pytest.raises(ArchitectureError, match=r"ARCH-007.*'bert'"):
        builder(1e-4, 9999, 42, replace(llama, architecture="bert"), NOWHERE)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (replace(LLAMA_370M, num_kv_heads=16), "411,257,856 nominal parameters are outside"),
        (replace(LLAMA_370M, num_layers=23), "outside"),
        (QWEN2_0_5B, "outside"),
        (replace(LLAMA_370M, tie_word_embeddings=False), "the head must be tied"),
    ],
)
def test_370m_band_and_tied_storage_are_checked(config: ModelConfig, said: str) -> None:
    """INV-ARCH-370M-001 refuses a drifted architecture, with its counts."""
    with pytest.raises(ArchitectureError, match=f"INV-ARCH-370M-001: .*{said}"):
        build.build_shared_trainer(1e-4, 128, 42, from_scratch=config)


def test_370m_itself_passes() -> None:
    """373,509,120 nominal and 322,045,952 stored parameters satisfy the check, on no device."""
    build.require_370m(LLAMA_370M)
    assert build.count_stored(LLAMA_370M) == 322_045_952


def test_count_is_checked_before_any_state_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused architecture never reaches the trainer's constructor."""
    monkeypatch.setattr(build, "PretrainTrainer", None)
    with pytest.raises(ArchitectureError, match="INV-ARCH-370M-001"):
        build.build_shared_trainer(1e-4, 128, 42, from_scratch=replace(LLAMA_370M, num_layers=12))


def test_count_is_taken_from_the_model_not_from_the_formula(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A model with a parameter too many is refused, though the configuration is right."""
    monkeypatch.setattr(build, "count_stored", lambda config: 322_045_953)
    with pytest.raises(ArchitectureError, match="322,045,953 stored parameters"):
        build.require_370m(LLAMA_370M)
    with pytest.raises(ArchitectureError, match="322,045,953"):
        build.require_exact_count(LLAMA_370M)


@pytest.mark.parametrize("length", [0, 4097])
def test_sequence_must_fit_the_positions(length: int) -> None:
    """Refused with both lengths."""
    with pytest.raises(ConfigurationError, match=rf"sequence length {length} .* 4096"):
        build.build_shared_trainer(1e-4, length, 42)


def test_missing_gpu_is_never_replaced() -> None:
    """The CUDA builder without a GPU is DeviceUnavailable."""
    with pytest.raises(DeviceUnavailable):
        build.build_shared_cuda_trainer(1e-4, 128, 42)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_init_weights_reach_the_trainer(
    qwen2: ModelConfig, make_model: MakeModel, write_safetensors: Write, dtype: str
) -> None:
    """All of them, bit for bit, and the optimizer has made no step and remembers none."""
    model = make_model(qwen2)
    path = write_safetensors(qwen2, dict(model.named_parameters()))
    trainer = build.build_shared_trainer_with_init(1e-4, 16, 42, qwen2, path, compute_dtype=dtype)
    for name, parameter in model.named_parameters():
        assert torch.equal(trainer.model.get_parameter(name), parameter), name
    states = trainer.optimizer.state
    assert states.keys() == set(trainer.model.parameters())
    assert not any(value.any() for state in states.values() for value in state.values())


def test_file_of_another_architecture_is_refused(
    qwen2: ModelConfig, make_model: MakeModel, write_safetensors: Write
) -> None:
    """Every differing field is named with both values."""
    path = write_safetensors(qwen2, dict(make_model(qwen2).named_parameters()))
    asked = replace(qwen2, rope_theta=5.0, num_layers=3)
    with pytest.raises(ArchitectureError, match=r"num_layers 3 .* 2 in .*rope_theta 5.0 .* 100.0"):
        build.build_shared_trainer_with_init(1e-4, 16, 42, asked, path)


def test_missing_init_file_is_refused(llama: ModelConfig) -> None:
    """The path is in the message, and the claim that it fails."""
    with pytest.raises(WeightsError, match=r"INIT-006: does-not-exist\.gguf: no such file"):
        build.build_shared_trainer_with_init(1e-4, 16, 42, llama, NOWHERE)


def test_checks_are_no_assert_statements() -> None:
    """`python -O` removes assert; the checks must stay."""
    assert "assert " not in inspect.getsource(build)


def test_more_positions_than_memory_are_refused() -> None:
    """By the bytes that their rotary tables would take, and before anything is allocated."""
    config = replace(LLAMA_370M, max_position_embeddings=2**22)
    build.require_positions(config, 128)
    with pytest.raises(ConfigurationError, match=r"1,073,742,080 bytes of rotary tables"):
        build.require_positions(replace(config, max_position_embeddings=2**22 + 1), 128)
