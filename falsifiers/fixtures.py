"""Types of what a falsifier may ask for by parameter name; the plugin provides the values."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from aprverify.contract.model import Case
from falsifiers.subject import Configuration, Subject

Measured = Callable[..., None]
"""``measured(name=value, …)``, once, with exactly the measures that the contract declares."""

Assets = Callable[[str], Path]
"""``assets(name)``: the verified file of a registered asset."""

__all__ = ["Assets", "Case", "Configuration", "Measured", "Subject"]
