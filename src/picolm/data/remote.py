"""Shards that live elsewhere: `hf://`, `https://` or any other fsspec URL, fetched whole, resumed, hash-checked, with patience.

The manifest and the tokenizer are fetched once, when the data is opened; a shard when it is about to be needed. What is here is
never asked for again, so a run whose shards are cached needs no network.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from picolm.base.errors import PicoError
from picolm.data.decoded import user_cache
from picolm.data.lock import held
from picolm.data.parquet import ShardFiles
from picolm.data.patience import patiently
from picolm.records import durable
from picolm.records.manifest import content, hash_file
from picolm.records.prepared import PreparedFolder, ShardRecord

CHUNK_BYTES = 4 << 20


def is_url(name: str) -> bool:
    """Whether a name of data is a place elsewhere."""
    return "://" in name


@dataclass(frozen=True)
class RemoteFolder:
    """A folder behind a URL."""

    url: str
    sleep: Callable[[float], None] = time.sleep
    attempts: int | None = None
    """How often a fetch is tried while the other side is busy. None: as often as is usual for shards."""

    def address(self, name: str) -> str:
        return f"{self.url.rstrip('/')}/{name}"

    def fetch(self, name: str, target: Path) -> None:
        """Download a file whole; what an earlier attempt has fetched is not fetched again. FileNotFoundError if there is none."""
        partial = target.with_name(target.name + ".part")
        partial.parent.mkdir(parents=True, exist_ok=True)
        filesystem, path = _open_filesystem(self.address(name))
        patiently(self.address(name), lambda: _append_rest(filesystem, path, partial), self.sleep, self.attempts)
        durable.flush_file(partial)
        partial.replace(target)


def _open_filesystem(address: str) -> tuple[Any, str]:
    import fsspec

    try:
        filesystem, path = fsspec.core.url_to_fs(address)
    except (ValueError, ImportError) as error:
        raise PicoError(
            f"{address} is not an address that can be read: {error}", "hf://, https:// and other fsspec URLs are"
        ) from error
    return filesystem, path


def _append_rest(filesystem: Any, path: str, partial: Path) -> None:
    """Append to `partial` what it lacks of the file."""
    size = int(filesystem.info(path)["size"])
    here = partial.stat().st_size if partial.exists() else 0
    if here > size:
        partial.unlink()
        here = 0
    with partial.open("ab") as local:
        if here == size:
            return
        with filesystem.open(path, "rb", block_size=CHUNK_BYTES, cache_type="readahead") as remote:
            remote.seek(here)
            while chunk := remote.read(CHUNK_BYTES):
                local.write(chunk)
                local.flush()
    if partial.stat().st_size != size:
        raise ConnectionError(f"the connection ended after {partial.stat().st_size:,} of {size:,} bytes")


class RemoteShardFiles(ShardFiles):
    """Parquet files of shards behind a URL: downloaded, checked, and given up again once decoded."""

    def __init__(self, remote: RemoteFolder, downloads: Path) -> None:
        self._remote = remote
        self._downloads = downloads

    def local(self, shard: ShardRecord) -> Path:
        """The file, here and with the right hash."""
        target = self._downloads / f"{shard.sha256[:32]}.parquet"
        if not target.is_file() or target.stat().st_size != shard.bytes:
            self._fetch(shard, target)
        return target

    def release(self, shard: ShardRecord) -> None:
        """The decoded copy is all that is needed."""
        (self._downloads / f"{shard.sha256[:32]}.parquet").unlink(missing_ok=True)

    def _fetch(self, shard: ShardRecord, target: Path) -> None:
        try:
            self._remote.fetch(shard.name, target)
        except FileNotFoundError as error:
            raise PicoError(
                f"{self._remote.address(shard.name)} does not exist", "the manifest names a shard that is gone"
            ) from error
        found = hash_file(target)
        if (found.bytes, found.sha256) != (shard.bytes, shard.sha256):
            target.unlink()
            raise PicoError(
                f"{self._remote.address(shard.name)} is not the file that the manifest lists: its SHA-256 is another",
                "the data behind the address was replaced; fetch its manifest anew with `pico data fetch --refresh`",
            )


def remote_cache(url: str) -> Path:
    """Where the copy of remote data is kept: below $PICO_CACHE or the user's cache folder."""
    return user_cache() / "remote" / content(url.rstrip("/"))[:24]


def fetch_description(remote: RemoteFolder, *, refresh: bool) -> PreparedFolder:
    """The local copy of manifest and tokenizer of remote data; what is here already is taken unless `refresh`."""
    folder = PreparedFolder(remote_cache(remote.url))
    if folder.manifest_file.is_file() and not refresh:
        return folder
    if os.environ.get("HF_HUB_OFFLINE") == "1" and remote.url.startswith("hf://"):
        raise PicoError(f"{remote.url} is not here and HF_HUB_OFFLINE=1 forbids to fetch it", "unset it, or name local data")
    with held(folder.path / "lock-description", wait=True):
        if not folder.manifest_file.is_file() or refresh:  # another process may have been faster
            _fetch_description(remote, folder)
    return folder


def _fetch_description(remote: RemoteFolder, folder: PreparedFolder) -> None:
    fetched = folder.path / "manifest.fetched"
    try:
        remote.fetch(folder.manifest_file.name, fetched)
    except FileNotFoundError as error:
        raise PicoError(
            f"{remote.url} has no {folder.manifest_file.name}",
            f"write one for it: pico data index {remote.url} --out FOLDER --tokenizer T",
        ) from error
    for file in (folder.tokenizer_file, folder.tokenizer_settings):
        file.unlink(missing_ok=True)
        try:
            remote.fetch(file.name, file)
        except FileNotFoundError:
            continue
    fetched.replace(folder.manifest_file)  # last: with it the copy is complete
