"""What an entry needs before anything is built: its device, its assets, its packages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from aprverify.assets import AssetMissing, AssetStore
from aprverify.gpus import visible_gpus
from aprverify.outcomes import NotRun
from aprverify.plan import Entry


def check_requirements(entry: Entry, assets: AssetStore) -> dict[str, str]:
    """The SHA-256 of each asset that `entry` needs, by name.

    Raises:
        NotRun: it cannot run here; with the reason and a remedy.
    """
    _require_gpus(entry.case.gpus)
    hashes = {}
    for need in entry.case.requires:
        kind, _, name = need.partition(":")
        if kind == "package" and find_spec(name.partition(".")[0]) is None:
            raise NotRun("package", f"{name} is not installed", f"pip install {name}")
        if kind == "asset":
            with _missing_is_not_run():
                hashes[name] = assets.sha256(name)
    return hashes


def _require_gpus(needed: int) -> None:
    visible = len(visible_gpus())
    if needed and not visible:
        remedy = "aprverify verify, on a machine with a GPU"
        raise NotRun("device", "no CUDA GPU is visible", remedy)
    if needed > visible:
        remedy = f"aprverify verify, on a machine with {needed} GPUs"
        raise NotRun("device", f"{needed} GPUs are needed, {visible} visible", remedy)


def required_asset(assets: AssetStore, name: str) -> Path:
    """The verified file of an asset that a falsifier asks for.

    Raises:
        NotRun: it is not here; with a remedy.
    """
    with _missing_is_not_run():
        return assets.path(name)


@contextmanager
def _missing_is_not_run() -> Iterator[None]:
    try:
        yield
    except AssetMissing as missing:
        raise NotRun("asset", f"asset {missing.name} is not here", missing.remedy) from None
