"""A falsifier called by name, with what the fixtures of the plugin would hand it."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from aprverify.assets import AssetStore
from aprverify.plan import Entry
from aprverify.plugin.attempt import Attempt
from aprverify.plugin.requirements import required_asset
from aprverify.suite import Suite

FIXTURES = frozenset(
    {"subject", "case", "measured", "series", "configuration", "assets", "tmp_path"}
)
"""What a falsifier may ask for by name."""


def call_falsifier(
    suite: Suite, attempt: Attempt, subject: Any, assets: AssetStore, tmp_path: Path
) -> None:
    """Run the falsifier of `attempt` in this process. Raises whatever it raises."""
    entry = attempt.entry
    falsifier = falsifier_of(suite, entry)
    offered: dict[str, Any] = {
        "subject": subject,
        "case": entry.case,
        "measured": attempt.measured,
        "series": attempt.series,
        "assets": partial(required_asset, assets),
        "tmp_path": tmp_path,
    }
    arch = entry.case.parameters.get("arch")
    if arch in attempt.configurations:
        offered["configuration"] = dict(attempt.configurations[str(arch)])
    falsifier(**{name: offered[name] for name in inspect.signature(falsifier).parameters})


def falsifier_of(suite: Suite, entry: Entry) -> Callable[..., object]:
    """The function that an entry runs."""
    module = importlib.import_module(f"{suite.package}.{entry.test.module}")
    function: Callable[..., object] = getattr(module, entry.test.function)
    return function
