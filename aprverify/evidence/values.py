"""JSON has no NaN and no infinity, and evidence must carry both: they travel as three texts."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

_FROM_TEXT = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def encode(value: Any) -> Any:
    """`value` with every non-finite float replaced by ``NaN``, ``Infinity`` or ``-Infinity``."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    if isinstance(value, dict):
        return {key: encode(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [encode(item) for item in value]
    return value


def decode(value: Any) -> Any:
    """The inverse of `encode`, for values that are known to be no texts."""
    if isinstance(value, float):
        return value
    if isinstance(value, str):
        return _FROM_TEXT.get(value, value)
    if isinstance(value, dict):
        return {key: decode(item) for key, item in value.items()}
    if isinstance(value, list):
        return [decode(item) for item in value]
    return value


def is_finite(value: Any) -> bool:
    """Whether no number inside a decoded value is NaN or infinite. Texts are finite."""
    if isinstance(value, list):
        return all(is_finite(item) for item in value)
    return not isinstance(value, float) or math.isfinite(value)


def canonical_json(value: Any, *, sort_keys: bool = False) -> str:
    """One line of JSON: compact, UTF-8 as it is, keys in insertion order unless sorted.

    Raises:
        ValueError: a float that is not finite and was not encoded.
    """
    return json.dumps(
        value, ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=sort_keys
    )


def environment_id(body: Mapping[str, Any]) -> str:
    """The id of an environment: a hash of everything that the line says about it."""
    line = canonical_json(encode(dict(body)), sort_keys=True)
    return f"env-{hashlib.sha256(line.encode()).hexdigest()[:12]}"
