"""What tests of the bundled suite share: its contracts, tiny instances and fetched files."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import pytest
import safetensors
import tokenizers
import torch

import trainer
from aprverify.assets import AssetMissing, AssetStore
from aprverify.contract.claims import evaluate
from aprverify.contract.lint import Loaded, load_suite
from aprverify.planting import Plant, defect
from falsifiers.adapters.bundled import BundledInstance, BundledSubject
from falsifiers.inputs import roughen
from falsifiers.suite import SUITE

LOADED_FIRST = (gguf, safetensors, tokenizers, torch, trainer)
"""While pytest collects, the plugin refuses that the suite loads these: they are loaded here."""

# Tiny tensors gain nothing from threads, and waiting threads starve other test workers.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def loaded() -> Loaded:
    """The contracts of the bundled suite, which must lint clean."""
    found = load_suite(SUITE)
    assert not found.problems, "\n".join(map(str, found.problems))
    return found


@pytest.fixture(scope="session")
def qwen2(loaded: Loaded) -> dict[str, Any]:
    """Three layers with q, k and v biases, seven query heads on one key-value head."""
    return loaded.configurations["tiny-qwen2"]


@pytest.fixture(scope="session")
def llama(loaded: Loaded) -> dict[str, Any]:
    """Three layers without biases, four query heads on each of two key-value heads."""
    return loaded.configurations["tiny-llama"]


@pytest.fixture
def subject() -> BundledSubject:
    """The bundled trainer."""
    return BundledSubject()


Build = Callable[..., BundledInstance]


@pytest.fixture(scope="session")
def rough() -> Build:
    """``rough(config, dtype)`` is an instance none of whose parameters is special."""

    def build(config: Mapping[str, Any], dtype: str = "float32", seed: int = 0) -> BundledInstance:
        instance = BundledSubject().build(config, device="cpu", dtype=dtype, seed=seed)
        roughen(instance, seed, 0.3)
        return instance

    return build


@pytest.fixture
def plant() -> Plant:
    """A plant of a defect that does nothing."""
    nothing = defect("nothing", kind="protocol", imitates="", symptom="", hidden="")
    return Plant(nothing(lambda _: None), BundledSubject())


Holds = Callable[..., bool]


@pytest.fixture(scope="session")
def holds(loaded: Loaded) -> Holds:
    """``holds(test, claim, arch, dtype, **measured)`` by the claim's text in the contracts.

    A name in `measured` may also replace a constant that was recorded on other weights.
    """

    def judge(test: str, claim: str, arch: str, dtype: str, **measured: Any) -> bool:
        contract, found = next((c, t) for c in loaded.contracts for t in c.tests if t.id == test)
        tolerances = {n: t[dtype] for n, t in found.tolerances.items() if dtype in t}
        values = {**loaded.configurations[arch], **contract.constants, **tolerances, **measured}
        text = next(c for c in found.claims if c.id == claim)
        return all(evaluate(comparison, values, {}).holds for comparison in text.comparisons)

    return judge


@pytest.fixture(scope="session")
def asset() -> Callable[[str], Path]:
    """``asset(name)`` is a registered file; one that is absent fails the test, offline skips it."""
    store = AssetStore(SUITE.assets_file, {})

    def path(name: str) -> Path:
        try:
            return store.path(name)
        except AssetMissing as missing:
            if os.environ.get("APRVERIFY_OFFLINE") == "1":
                pytest.skip(f"APRVERIFY_OFFLINE=1 and asset {name} is not here")
            pytest.fail(f"asset {name} is not here: run `aprverify fetch` ({missing.remedy})")

    return path
