"""The folder of prepared data: token shards in parquet, the tokenizer that made them, and a manifest written last."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from picolm.base.errors import PicoError
from picolm.records import durable
from picolm.records.manifest import MANIFEST_NAME, content

FORMAT = "picolm.tokens/1"
COLUMN = "input_ids"
"""The one column of a token shard."""


@dataclass(frozen=True)
class ShardRecord:
    """One parquet file of token rows, as the manifest lists it."""

    name: str
    """Path relative to the folder, with forward slashes."""
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class PreparedFolder:
    """Paths of one prepared folder. Nothing is created by asking for a path."""

    path: Path

    @property
    def manifest_file(self) -> Path:
        return self.path / MANIFEST_NAME

    @property
    def tokenizer_file(self) -> Path:
        return self.path / "tokenizer.json"

    @property
    def tokenizer_settings(self) -> Path:
        """Says which token ends a document."""
        return self.path / "tokenizer_config.json"

    @property
    def cache(self) -> Path:
        """Decoded shards, where the folder can be written to."""
        return self.path / ".cache"

    @property
    def minimal_pairs(self) -> Path:
        """Minimal pairs that came with a synthetic language."""
        return self.path / "minimal_pairs"

    def shard(self, name: str) -> Path:
        return self.path / name

    def manifest(self) -> dict[str, Any]:
        """The content of the manifest; PicoError if the folder is missing, unfinished or of another format."""
        try:
            manifest = json.loads(self.manifest_file.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise PicoError(*self._why_no_manifest()) from error
        except (OSError, ValueError) as error:
            raise PicoError(f"{self.manifest_file} is damaged: {error}", "prepare the data again") from error
        if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
            raise PicoError(f"{self.manifest_file} is not of the format {FORMAT}", "prepare the data with `pico data prepare`")
        return manifest

    def _why_no_manifest(self) -> tuple[str, str]:
        if not self.path.exists():
            return f"there is no folder {self.path}", "make one with `pico data prepare SOURCE --tokenizer T --out FOLDER`"
        if not self.path.is_dir():
            return f"{self.path} is a file, not a folder of prepared data", "run `pico data prepare` on it"
        return (
            f"{self.path} has no {MANIFEST_NAME}: it is not a folder of prepared data",
            "make one with `pico data prepare`; a folder of token shards made elsewhere becomes one with `pico data index`",
        )


def shard_name(split: str, number: int, count: int) -> str:
    """Name of a shard within the folder: `train/train-00000-of-00004.parquet`."""
    return f"{split}/{split}-{number:05d}-of-{count:05d}.parquet"


def shards_of(manifest: dict[str, Any], split: str, source: str) -> list[ShardRecord]:
    """The shards of a split in order; PicoError names the splits there are."""
    splits = manifest["splits"]
    if split not in splits:
        hint = "prepare it with `--val FILE` or `--val-share 0.01`" if split == "val" else f"there are: {', '.join(splits)}"
        raise PicoError(f"{source} has no split `{split}`", hint)
    return [_checked(ShardRecord(**record), source) for record in splits[split]["shards"]]


def _checked(record: ShardRecord, source: str) -> ShardRecord:
    path = PurePosixPath(record.name)
    if path.is_absolute() or ".." in path.parts or "\\" in record.name or ":" in record.name:
        raise PicoError(f"{source} names a file outside its folder: {record.name!r}")
    return record


def split_fingerprint(row_length: int, shards: list[ShardRecord]) -> str:
    """SHA-256 that stands for the rows of one split, in their order."""
    return content({"row_length": row_length, "shards": [[shard.rows, shard.sha256] for shard in shards]})


def folder_fingerprint(manifest: dict[str, Any]) -> str:
    """SHA-256 that stands for everything a run can read from the folder: tokenizer and rows of every split, in order."""
    splits = {
        split: split_fingerprint(manifest["row_length"], [ShardRecord(**record) for record in facts["shards"]])
        for split, facts in manifest["splits"].items()
    }
    return content({"tokenizer": (manifest["tokenizer"] or {}).get("sha256"), "splits": splits})


def write_manifest(folder: PreparedFolder, manifest: dict[str, Any]) -> None:
    """Complete a manifest with its fingerprint and write it."""
    durable.write_json(folder.manifest_file, {"format": FORMAT, "fingerprint": folder_fingerprint(manifest), **manifest})
