"""The metadata of an APR file: one JSON object, and the architecture that is in it."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from trainer import config as configurations
from trainer.config import ModelConfig
from trainer.errors import ArchitectureError, WeightsError
from trainer.weights.apr_layout import MOST_METADATA, refuse

TRAINING_PREFIX = "__training__."
"""Names of tensors that belong to the training state, not to the model."""

_HEAD = "lm_head.weight"
_ADJACENT_PAIRS, _SPLIT_HALVES = 0, 2
_MOST_DIGITS = 18
_SHOWN = 5


def encode_metadata(metadata: Mapping[str, Any], path: Path) -> bytes:
    """Canonical JSON: keys sorted, no spaces, UTF-8; equal objects give equal bytes.

    Raises:
        WeightsError: it is no JSON (NaN, an unknown type, a lone surrogate), or above 16 MiB.
    """
    try:
        encoded = json.dumps(
            metadata, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
        ).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise WeightsError(f"{path}: the metadata cannot be written as JSON: {error}") from error
    if len(encoded) > MOST_METADATA:
        raise WeightsError(
            f"{path}: the metadata takes {len(encoded)} bytes, {MOST_METADATA} are allowed; "
            "leave the tokenizer out"
        )
    return encoded


def decode_metadata(encoded: bytes, path: Path) -> dict[str, Any]:
    """The object in the metadata section. Of a duplicated key the last value holds.

    Raises:
        WeightsError: it is something else.
    """
    try:
        found = json.loads(encoded.decode(), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        refuse(path, "metadata", f"no JSON ({error})", "one JSON object is needed")
    if not isinstance(found, dict):
        refuse(path, "metadata", f"a {type(found).__name__}", "one JSON object is needed")
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def config_metadata(config: ModelConfig) -> dict[str, Any]:
    """The metadata keys that describe `config`; merge them with others."""
    return {
        "model_type": config.architecture,
        "architecture": config.architecture,
        "hidden_size": config.hidden_size,
        "num_layers": config.num_layers,
        "num_heads": config.num_heads,
        "num_kv_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "intermediate_size": config.intermediate_size,
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.max_position_embeddings,
        "rope_theta": config.rope_theta,
        "rope_type": _SPLIT_HALVES,
        "rms_norm_eps": config.rms_norm_eps,
        "attention_bias": config.attention_bias,
        "tie_word_embeddings": config.tie_word_embeddings,
        "param_count": configurations.stored_parameters(config),
    }


def config_from_metadata(
    metadata: Mapping[str, Any], names: Collection[str] = (), source: str = "APR metadata"
) -> ModelConfig:
    """The architecture that the metadata declares; a missing field is an error, not a default.

    Three absences have a meaning: no head_dim is hidden_size / num_heads; no attention_bias and no
    tie_word_embeddings, which other writers leave out, are read from the tensors' `names`.

    Raises:
        WeightsError: a field is missing, null or absurd.
        ArchitectureError: a family or variant that cannot be trained here, or impossible sizes.
    """

    def field(name: str) -> Any:
        value = metadata.get(name)
        if value is None:
            raise WeightsError(f"{source}: {name} is missing or null; it is never defaulted")
        if isinstance(value, int) and abs(value) >= 10**_MOST_DIGITS:
            raise WeightsError(f"{source}: {name} has more than {_MOST_DIGITS} digits")
        return value

    family = str(field("architecture"))
    configurations.require_decoder_family(family, source)
    if field("rope_type") != _SPLIT_HALVES:
        raise ArchitectureError(
            f"{source}: rope_type {metadata['rope_type']!r} is not supported, "
            f"only {_SPLIT_HALVES} (split halves)"
        )
    hidden_size, num_heads = field("hidden_size"), field("num_heads")
    try:
        return ModelConfig(
            architecture=family,
            hidden_size=hidden_size,
            num_layers=field("num_layers"),
            num_heads=num_heads,
            num_kv_heads=field("num_kv_heads"),
            head_dim=_head_dim(metadata.get("head_dim"), hidden_size, num_heads),
            intermediate_size=field("intermediate_size"),
            vocab_size=field("vocab_size"),
            max_position_embeddings=field("max_position_embeddings"),
            rope_theta=_as_float(field("rope_theta")),
            rms_norm_eps=_as_float(field("rms_norm_eps")),
            attention_bias=_stated_or(
                metadata.get("attention_bias"),
                lambda: family == "qwen2" or "model.layers.0.self_attn.q_proj.bias" in names,
            ),
            tie_word_embeddings=_stated_or(
                metadata.get("tie_word_embeddings"), lambda: _HEAD not in names
            ),
        )
    except ArchitectureError as error:
        raise ArchitectureError(f"{source}: {error}") from error


def _stated_or(stated: Any, deduce: Callable[[], bool]) -> Any:
    return deduce() if stated is None else stated


def _as_float(value: Any) -> Any:
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _head_dim(stated: Any, hidden_size: Any, num_heads: Any) -> Any:
    if stated is not None:
        return stated
    sizes = (hidden_size, num_heads)
    if not all(isinstance(size, int) and size > 0 for size in sizes) or hidden_size % num_heads:
        raise ArchitectureError(
            f"head_dim is absent and num_heads {num_heads!r} does not divide "
            f"hidden_size {hidden_size!r}"
        )
    return hidden_size // num_heads


def check_shapes(
    shapes: Mapping[str, tuple[int, ...]], metadata: Mapping[str, Any], path: Path
) -> None:
    """Hold the tensors' shapes against the architecture in the same file's metadata.

    A file without an architecture of this family's decoders has nothing to be held against, and
    passes. Of the others, every model tensor must be there, and every moment of the training state
    must have its parameter's shape.

    Raises:
        WeightsError: a tensor is missing, unexpected, or of another shape; both shapes are named.
        ArchitectureError: the architecture is impossible.
    """
    if metadata.get("architecture") not in configurations.DECODER_ARCHITECTURES:
        return
    config = config_from_metadata(metadata, shapes.keys(), str(path))
    expected = dict(_expected_shapes(config, most=len(shapes)))
    optional = {_HEAD: expected["model.embed_tokens.weight"]} if config.tie_word_embeddings else {}
    faults = [f"{name} is missing" for name in expected if name not in shapes]
    for name, shape in shapes.items():
        model_name = _parameter_of(name)
        if model_name is None:
            continue
        needed = expected.get(model_name) or optional.get(model_name)
        if needed is None:
            faults.append(f"{name} is no tensor of this {config.architecture}")
        elif shape != needed:
            faults.append(f"{name} is {list(shape)}, its configuration says {list(needed)}")
    if faults:
        more = f"; and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        shown = "; ".join(faults[:_SHOWN])
        raise WeightsError(f"{path}: F-CKPT-008: tensors do not fit the metadata: {shown}{more}")


def _parameter_of(name: str) -> str | None:
    """The parameter whose shape a tensor must have; None where the name says nothing of it."""
    if not name.startswith(TRAINING_PREFIX):
        return name
    moment = name.removeprefix(TRAINING_PREFIX + "optim.")
    for suffix in (".exp_avg", ".exp_avg_sq"):
        if moment != name and moment.endswith(suffix):
            return moment.removesuffix(suffix)
    return None


def _expected_shapes(config: ModelConfig, most: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of the parameters; layers end once one more than `most` are named.

    A file that declares a billion layers is refused for the first that it lacks.
    """
    hidden, inner = config.hidden_size, config.intermediate_size
    queries = config.num_heads * config.head_dim
    keys = config.num_kv_heads * config.head_dim
    layer: dict[str, tuple[int, ...]] = {
        "input_layernorm.weight": (hidden,),
        "self_attn.q_proj.weight": (queries, hidden),
        "self_attn.k_proj.weight": (keys, hidden),
        "self_attn.v_proj.weight": (keys, hidden),
        "self_attn.o_proj.weight": (hidden, queries),
        "post_attention_layernorm.weight": (hidden,),
        "mlp.gate_proj.weight": (inner, hidden),
        "mlp.up_proj.weight": (inner, hidden),
        "mlp.down_proj.weight": (hidden, inner),
    }
    if config.attention_bias:
        layer |= {
            "self_attn.q_proj.bias": (queries,),
            "self_attn.k_proj.bias": (keys,),
            "self_attn.v_proj.bias": (keys,),
        }
    yield "model.embed_tokens.weight", (config.vocab_size, hidden)
    yield "model.norm.weight", (hidden,)
    if not config.tie_word_embeddings:
        yield _HEAD, (config.vocab_size, hidden)
    for number in range(min(config.num_layers, most // len(layer) + 1)):
        for role, shape in layer.items():
            yield f"model.layers.{number}.{role}", shape
