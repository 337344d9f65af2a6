"""Types of what a falsifier may ask for by parameter name; the plugin provides the values."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from aprverify.contract.model import Case
from falsifiers.subject import Configuration, Subject

Measured = Callable[..., None]
"""``measured(name=value, …)``, once, with exactly the measures that the contract declares."""

Series = Callable[..., None]
"""``series(name, points, x=…, y=…)``, before ``measured``: (x, y) pairs for the pictures of a run.
Optional are `x_unit`, `y_unit` and `claim`, the id of the claim that judges the largest y."""

Assets = Callable[[str], Path]
"""``assets(name)``: the verified file of a registered asset."""

__all__ = ["Assets", "Case", "Configuration", "Measured", "Series", "Subject"]
