"""Assets: found by hash, fetched whole or not at all, and every trouble named.

Downloads are real ones: pip is pointed at a folder of wheels instead of a package index.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from aprverify import assets
from aprverify.assets import (
    AssetDamaged,
    AssetMissing,
    AssetStore,
    FetchFailed,
    RegistryError,
    cache_dir,
)
from aprverify.commands import fetch

WEIGHTS, CONFIG = b"some weights", b"{}"
ENTRY = {
    "kind": "package",
    "package": "toy-weights",
    "version": "1.0.0",
    "member": "toy_weights/data/weights.bin",
    "sha256": hashlib.sha256(WEIGHTS).hexdigest(),
    "bytes": len(WEIGHTS),
    "licence": "MIT",
    "used_for": "tests",
}
SIBLING = {
    **ENTRY,
    "member": "toy_weights/data/config.json",
    "sha256": hashlib.sha256(CONFIG).hexdigest(),
}
GIVEN = {"kind": "file", "licence": "any", "used_for": "tests"}


@pytest.fixture(autouse=True)
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one wheel that pip takes for its index, and an empty cache."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    with zipfile.ZipFile(folder / "toy_weights-1.0.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("toy_weights/data/weights.bin", WEIGHTS)
        wheel.writestr("toy_weights/data/config.json", CONFIG)
        info = "toy_weights-1.0.0.dist-info"
        wheel.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: toy-weights\nVersion: 1.0.0\n"
        )
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("APRVERIFY_CACHE", str(tmp_path / "cache"))
    return folder


def registry(tmp_path: Path, **entries: dict[str, Any]) -> Path:
    """A registry file; names may not hold hyphens here, so `toy` and `given` it is."""
    path = tmp_path / "assets.yaml"
    path.write_text(yaml.safe_dump({"assets": entries or {"toy": ENTRY}}), "utf-8")
    return path


def store(tmp_path: Path, overrides: dict[str, Path] | None = None, **entries: Any) -> AssetStore:
    """A store as a new process would open it."""
    return AssetStore(registry(tmp_path, **entries), overrides or {})


def silent(line: str) -> None:
    """Progress for nobody."""


def cached_files() -> list[Path]:
    """Everything in the cache but the notes about hashes."""
    return [p for p in cache_dir().rglob("*") if p.is_file() and "verified" not in p.parts]


def test_a_fetched_asset_is_found_with_its_bytes(tmp_path: Path) -> None:
    """Downloaded, unpacked and verified, also for the next process."""
    said: list[str] = []
    store(tmp_path).fetch(["toy"], said.append)
    path = store(tmp_path).path("toy")
    assert path.read_bytes() == WEIGHTS
    assert cached_files() == [path]
    assert said[0] == "[1/1] downloading toy-weights==1.0.0 for 12 bytes"
    assert said[1].startswith("[1/1] toy: fetched and verified")


def test_files_of_one_package_are_downloaded_once_and_stay_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some formats are a folder of files."""
    calls: list[Any] = []
    real = subprocess.run

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        return real(*args, **kwargs)

    monkeypatch.setattr(subprocess, "run", counted)
    both = store(tmp_path, toy=ENTRY, config=SIBLING)
    both.fetch([], silent)
    assert both.path("toy").parent == both.path("config").parent
    assert len(calls) == 1
    both.fetch([], silent)
    assert len(calls) == 1


def test_an_asset_that_was_not_fetched_says_the_command(tmp_path: Path) -> None:
    """And looking for it opens no socket and starts no process."""
    with pytest.raises(AssetMissing) as caught:
        store(tmp_path).path("toy")
    assert (caught.value.name, caught.value.remedy) == ("toy", "aprverify fetch toy")


def test_a_package_that_is_gone_is_one_clear_error(tmp_path: Path, shelf: Path) -> None:
    """With its name and version; nothing stays behind."""
    for wheel in shelf.iterdir():
        wheel.unlink()
    with pytest.raises(FetchFailed, match=r"toy-weights==1\.0\.0 could not be downloaded"):
        store(tmp_path).fetch([], silent)
    assert list(cache_dir().iterdir()) == []


def test_a_download_with_another_hash_is_refused(tmp_path: Path) -> None:
    """Expected and found are named; nothing stays behind."""
    expected, found = "0" * 64, ENTRY["sha256"]
    with pytest.raises(AssetDamaged, match=f"has sha256 {found}, expected {expected}"):
        store(tmp_path, toy={**ENTRY, "sha256": expected}).fetch([], silent)
    assert cached_files() == []


def test_a_package_without_the_file_is_an_error(tmp_path: Path) -> None:
    """The wheel and the member are named."""
    with pytest.raises(FetchFailed, match=r"toy_weights-1\.0\.0.*holds no other\.bin"):
        store(tmp_path, toy={**ENTRY, "member": "other.bin"}).fetch([], silent)


def test_a_stopped_fetch_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C between download and verification: exit status 130, an empty cache."""

    def stop(*_: Any) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(assets, "_sha256", stop)
    parser = argparse.ArgumentParser()
    fetch.add_parser(parser.add_subparsers())
    args = parser.parse_args(["fetch", "toy"])
    args.suite = argparse.Namespace(assets_file=registry(tmp_path))
    assert args.run(args) == 130
    assert list(cache_dir().iterdir()) == []


def test_a_cached_file_that_changed_is_noticed(tmp_path: Path) -> None:
    """By the next process, though its size and modification time are as they were."""
    first = store(tmp_path)
    first.fetch([], silent)
    path = first.path("toy")
    before = path.stat()
    path.write_bytes(WEIGHTS[::-1])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(AssetDamaged, match="Remove the file"):
        store(tmp_path).path("toy")


def test_an_untouched_file_is_not_hashed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """100 MB of weights cost nothing on the second run."""
    store(tmp_path).fetch([], silent)
    monkeypatch.setattr(assets, "_sha256", lambda path: pytest.fail(f"hashed {path}"))
    assert store(tmp_path).sha256("toy") == ENTRY["sha256"]


def test_a_damaged_note_costs_a_hash_and_no_error(tmp_path: Path) -> None:
    """The cache of hashes is a convenience."""
    store(tmp_path).fetch([], silent)
    for note in (cache_dir() / "verified").iterdir():
        note.write_text("[]")
    assert store(tmp_path).path("toy").read_bytes() == WEIGHTS


@pytest.mark.parametrize("way", ["override", "variable"])
def test_the_user_gives_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """By option or environment; the evidence can name it by hash."""
    mine = tmp_path / "mine.gguf"
    mine.write_bytes(b"mine")
    overrides = {}
    if way == "override":
        overrides["given-1.x"] = mine
    else:
        monkeypatch.setenv("APRVERIFY_ASSET_GIVEN_1_X", str(mine))
    opened = store(tmp_path, overrides, **{"given-1.x": GIVEN})
    assert opened.path("given-1.x") == mine
    assert opened.sha256("given-1.x") == hashlib.sha256(b"mine").hexdigest()


def test_a_given_file_must_have_the_hash_that_the_registry_names(tmp_path: Path) -> None:
    """Where it names one."""
    mine = tmp_path / "mine.bin"
    mine.write_bytes(b"mine")
    with pytest.raises(AssetDamaged, match=r"mine\.bin has sha256"):
        store(tmp_path, {"toy": mine}).path("toy")


def test_a_file_that_only_the_user_has_is_not_fetched(tmp_path: Path) -> None:
    """Asked for by name it is an error with the remedy, else a line among the progress."""
    said: list[str] = []
    given = store(tmp_path, given=GIVEN)
    given.fetch([], said.append)
    assert said == ["given: not fetched: set APRVERIFY_ASSET_GIVEN=PATH"]
    with pytest.raises(AssetMissing, match="set APRVERIFY_ASSET_GIVEN=PATH"):
        given.fetch(["given"], silent)


def test_an_override_that_is_no_file_is_named(tmp_path: Path) -> None:
    """Not silently replaced by the cache."""
    store(tmp_path).fetch([], silent)
    with pytest.raises(AssetMissing, match="is no file"):
        store(tmp_path, {"toy": tmp_path / "none"}).path("toy")


def test_an_unknown_name_lists_the_known_ones(tmp_path: Path) -> None:
    """For path, fetch and overrides alike."""
    with pytest.raises(RegistryError, match=r"no asset 'tpy'; there are: toy"):
        store(tmp_path).path("tpy")
    with pytest.raises(RegistryError, match="no asset 'tpy'"):
        store(tmp_path).fetch(["tpy"], silent)
    with pytest.raises(RegistryError, match="no asset 'tpy'"):
        store(tmp_path, {"tpy": tmp_path})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kind": "url"}, "needs a `kind`"),
        ({"version": 1.0}, "`version` must be a text"),
        ({"sha256": "ABC"}, "`sha256` must be 64"),
        ({"bytes": "12"}, "`bytes` must be a whole number"),
        ({"member": "../outside"}, "`member` must lie inside"),
        ({"member": "/outside"}, "`member` must lie inside"),
    ],
)
def test_a_malformed_entry_is_named(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    """File, asset, field and value."""
    with pytest.raises(RegistryError, match=r"assets\.yaml: asset toy: ") as caught:
        store(tmp_path, toy={**ENTRY, **change})
    assert said in str(caught.value)


@pytest.mark.parametrize("text", ["", "assets: []", "a: [", "- 1"])
def test_a_registry_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    """Empty, without entries, and no YAML at all."""
    path = tmp_path / "assets.yaml"
    path.write_text(text)
    with pytest.raises(RegistryError, match=r"assets\.yaml"):
        AssetStore(path, {})


def test_the_command_reports_trouble_and_exits_1(
    tmp_path: Path, shelf: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line on the error stream, no traceback."""
    for wheel in shelf.iterdir():
        wheel.unlink()
    args = argparse.Namespace(names=[], suite=argparse.Namespace(assets_file=registry(tmp_path)))
    assert fetch.run(args) == 1
    error = capsys.readouterr().err
    assert error.startswith("fetch failed: package toy-weights==1.0.0")
    assert error.count("\n") == 1
