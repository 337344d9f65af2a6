"""Files that claims need and the repository does not hold: weights, vocabularies, texts.

A registry names them by hash. `AssetStore.path` never opens a socket: it finds a file that was
fetched before or given by the user, or says how to get it. `AssetStore.fetch` reads files out of
packages, which are downloaded, never installed and never imported.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

_CHUNK = 1 << 20


class AssetError(Exception):
    """Something about an asset is not as it should be; the message names it and says what to do."""


class RegistryError(AssetError):
    """The registry is malformed, or does not know the name."""


class AssetDamaged(AssetError):
    """A file is not the one that the registry names by hash."""


class FetchFailed(AssetError):
    """A package could not be downloaded, or does not hold the file."""


class AssetMissing(AssetError):
    """The file is not here. `remedy` is the command or the action that gets it."""

    def __init__(self, name: str, remedy: str) -> None:
        super().__init__(f"asset {name} is not here: {remedy}")
        self.name = name
        self.remedy = remedy


@dataclass(frozen=True)
class Asset:
    """One entry of the registry.

    Attributes:
        kind: ``package``: a file inside a package; ``file``: given by the user.
        package, version, member: where a ``package`` file lies, empty for a ``file``.
        sha256: of the file's bytes; None for a ``file`` of which any will do.
        bytes: the file's size, or None.
        licence, used_for: for people.
    """

    name: str
    kind: str
    package: str
    version: str
    member: str
    sha256: str | None
    bytes: int | None
    licence: str
    used_for: str

    @property
    def variable(self) -> str:
        """The environment variable that gives the file's path."""
        return f"APRVERIFY_ASSET_{re.sub('[-.]', '_', self.name.upper())}"


def cache_dir() -> Path:
    """``$APRVERIFY_CACHE``, or ``~/.cache/aprverify``."""
    named = os.environ.get("APRVERIFY_CACHE")
    return Path(named) if named else Path.home() / ".cache" / "aprverify"


def read_registry(registry_file: Path) -> dict[str, Asset]:
    """The assets by name.

    Raises:
        RegistryError: no such file, no YAML, or an entry that is not as it should be.
    """
    try:
        body = yaml.safe_load(registry_file.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RegistryError(f"{registry_file}: cannot be read: {error}") from None
    entries = body.get("assets") if isinstance(body, dict) else None
    if not isinstance(entries, dict):
        raise RegistryError(f"{registry_file}: needs a mapping `assets` of names to entries")
    return {str(name): _asset(registry_file, str(name), entry) for name, entry in entries.items()}


def _asset(registry_file: Path, name: str, entry: Any) -> Asset:
    def refuse(what: str) -> RegistryError:
        return RegistryError(f"{registry_file}: asset {name}: {what}")

    if not isinstance(entry, dict) or entry.get("kind") not in ("package", "file"):
        raise refuse("needs a `kind`: package or file")
    packaged = ("package", "version", "member", "sha256") if entry["kind"] == "package" else ()
    for field in packaged:
        if not isinstance(entry.get(field), str) or not entry[field]:
            raise refuse(f"`{field}` must be a text (quote it), found {entry.get(field)!r}")
    sha256 = entry.get("sha256")
    if sha256 is not None and not re.fullmatch("[0-9a-f]{64}", str(sha256)):
        raise refuse(f"`sha256` must be 64 lower-case hexadecimal digits, found {sha256!r}")
    size = entry.get("bytes")
    if size is not None and (not isinstance(size, int) or isinstance(size, bool) or size < 0):
        raise refuse(f"`bytes` must be a whole number, found {size!r}")
    member = PurePosixPath(entry.get("member", ""))
    if member.is_absolute() or ".." in member.parts:
        raise refuse(f"`member` must lie inside the package, found {str(member)!r}")
    return Asset(
        name=name,
        kind=entry["kind"],
        package=entry.get("package", ""),
        version=entry.get("version", ""),
        member=entry.get("member", ""),
        sha256=sha256,
        bytes=size,
        licence=str(entry.get("licence", "")),
        used_for=str(entry.get("used_for", "")),
    )


class AssetStore:
    """The assets of a suite on this machine.

    `overrides` gives files by asset name; a name that the registry lacks is a `RegistryError`.
    """

    def __init__(self, registry_file: Path, overrides: Mapping[str, Path]) -> None:
        self._registry_file = registry_file
        self._assets = read_registry(registry_file)
        self._overrides = {self._asset(name).name: path for name, path in overrides.items()}
        self._verified: dict[str, tuple[Path, str]] = {}

    @property
    def assets(self) -> Mapping[str, Asset]:
        """The registry, by name."""
        return self._assets

    def path(self, name: str) -> Path:
        """The file of an asset, verified once in this process.

        Raises:
            AssetMissing: it is not on this machine.
            AssetDamaged: what is there has another hash.
            RegistryError: the registry has no such name.
        """
        return self._verify(name)[0]

    def sha256(self, name: str) -> str:
        """The hash of the file that `path` returns, for the evidence. Raises as `path` does."""
        return self._verify(name)[1]

    def fetch(self, names: Sequence[str], say: Callable[[str], None]) -> None:
        """Download what is not here yet; every name where `names` is empty. `say` gets progress.

        A file appears in the cache whole and verified, or not at all.

        Raises:
            AssetMissing: an asset that was named is one that only the user can give.
            FetchFailed, AssetDamaged: with the package, and what was expected and found.
        """
        wanted: dict[tuple[str, str], list[Asset]] = defaultdict(list)
        for asset in map(self._asset, names or self._assets):
            try:
                say(f"{asset.name}: here, {self.path(asset.name)}")
            except AssetMissing as missing:
                if asset.kind == "package":
                    wanted[asset.package, asset.version].append(asset)
                elif names:
                    raise
                else:
                    say(f"{asset.name}: not fetched: {missing.remedy}")
        for number, assets in enumerate(wanted.values(), start=1):
            self._fetch_package(assets, f"[{number}/{len(wanted)}]", say)

    def _asset(self, name: str) -> Asset:
        if name not in self._assets:
            known = ", ".join(sorted(self._assets))
            raise RegistryError(f"{self._registry_file}: no asset {name!r}; there are: {known}")
        return self._assets[name]

    def _verify(self, name: str) -> tuple[Path, str]:
        if name not in self._verified:
            asset = self._asset(name)
            path = self._find(asset)
            found = _sha256_remembered(path)
            _require_hash(asset, path, found)
            self._verified[name] = (path, found)
        return self._verified[name]

    def _find(self, asset: Asset) -> Path:
        given = self._overrides.get(asset.name) or os.environ.get(asset.variable)
        if given:
            if not Path(given).is_file():
                raise AssetMissing(asset.name, f"{given} is no file; give the path of one")
            return Path(given)
        if asset.kind == "file":
            raise AssetMissing(asset.name, f"set {asset.variable}=PATH")
        path = _cached(asset)
        if not path.is_file():
            raise AssetMissing(asset.name, f"aprverify fetch {asset.name}")
        return path

    def _fetch_package(
        self, assets: Sequence[Asset], prefix: str, say: Callable[[str], None]
    ) -> None:
        package = f"{assets[0].package}=={assets[0].version}"
        root = cache_dir()
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root, prefix=".fetch-") as scratch:
            size = sum(asset.bytes or 0 for asset in assets)
            say(f"{prefix} downloading {package}" + (f" for {size:,} bytes" if size else ""))
            wheel = _download(package, Path(scratch))
            for asset in assets:
                unpacked = _unpack(asset, wheel, Path(scratch) / "member")
                target = _cached(asset)
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(unpacked, target)
                say(f"{prefix} {asset.name}: fetched and verified, {self.path(asset.name)}")


def _cached(asset: Asset) -> Path:
    # Files of one package keep their places: some formats are a folder of files.
    return cache_dir() / "packages" / f"{asset.package}-{asset.version}" / asset.member


def _download(package: str, scratch: Path) -> Path:
    folder = scratch / "wheel"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += [
        "--quiet",
        "--disable-pip-version-check",
        "--no-input",
        "--dest",
        str(folder),
        package,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = sorted(folder.glob("*.whl")) if folder.is_dir() else []
    if done.returncode != 0 or len(wheels) != 1:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        raise FetchFailed(
            f"package {package} could not be downloaded: {said[-1] if said else 'no wheel came'}. "
            "If the package index cannot be reached, try again; if the package is gone, the asset "
            "needs a new source in the registry"
        )
    return wheels[0]


def _unpack(asset: Asset, wheel: Path, target: Path) -> Path:
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(asset.member) as source,
            target.open("wb") as sink,
        ):
            shutil.copyfileobj(source, sink, _CHUNK)
    except KeyError:
        raise FetchFailed(f"asset {asset.name}: {wheel.name} holds no {asset.member}") from None
    except (zipfile.BadZipFile, EOFError) as error:
        raise FetchFailed(f"asset {asset.name}: {wheel.name} is damaged: {error}") from None
    _require_hash(asset, Path(wheel.name) / asset.member, _sha256(target))
    return target


def _require_hash(asset: Asset, path: Path, found: str) -> None:
    if asset.sha256 is not None and found != asset.sha256:
        raise AssetDamaged(
            f"asset {asset.name}: {path} has sha256 {found}, expected {asset.sha256}. Remove the "
            f"file, then `aprverify fetch {asset.name}`; if that fails too, the source has changed"
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sha256_remembered(path: Path) -> str:
    """The hash, from a note in the cache where the file is untouched since the note was made."""
    stat = path.stat()
    # The change time cannot be set back by hand, as the modification time can.
    resolved = str(path.resolve())
    state = [resolved, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
    note = cache_dir() / "verified" / hashlib.sha256(resolved.encode()).hexdigest()
    try:
        noted = json.loads(note.read_text("utf-8"))
        if noted["state"] == state:
            return str(noted["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # no note, or not one of ours: hash the file
    found = _sha256(path)
    _remember(note, {"state": state, "sha256": found})
    return found


def _remember(note: Path, body: Mapping[str, Any]) -> None:
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=note.parent, delete=False) as file:
            json.dump(body, file)
        os.replace(file.name, note)
    except OSError:
        pass  # a cache that cannot be written costs time only
