"""Where the weights of a captured checkpoint are, instead of a copy: a folder or a Hub commit, with the hash of every file."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from picolm.base.errors import PicoError
from picolm.records import durable
from picolm.records.manifest import FileRecord, hash_file
from picolm.records.rundir import CheckpointFolder, RunDirectory

SOURCE_FORMAT = "picolm.source/1"


@dataclass(frozen=True)
class WeightSource:
    """One checkpoint of somebody else's series."""

    files: dict[str, FileRecord]
    """Name of each safetensors file -> size and SHA-256."""
    path: str | None = None
    """Folder that holds them; None if they are on the Hub."""
    repo: str | None = None
    """Hub repository, `owner/name`."""
    revision: str | None = None
    """Branch or tag that was asked for."""
    commit: str | None = None
    """What it stood for: the files are read from this commit, wherever the branch has gone since."""

    @property
    def identity(self) -> tuple[str, ...]:
        """Equal for equal weights."""
        return tuple(record.sha256 for _, record in sorted(self.files.items()))

    @property
    def name(self) -> str:
        """What a person calls it."""
        return self.path or f"{self.repo}@{self.revision}"

    def local_files(self) -> list[Path]:
        """The weight files on this machine, fetched from the Hub if need be; PicoError if one is missing or has another size."""
        paths = [self._local(name) for name in sorted(self.files)]
        for path, (_, record) in zip(paths, sorted(self.files.items()), strict=True):
            if not path.is_file():
                raise PicoError(f"{path} is gone: the weights of this checkpoint are read from there", "restore the series")
            if path.stat().st_size != record.bytes:
                raise PicoError(f"{path} has {path.stat().st_size:,} bytes, {record.bytes:,} when it was captured", _CHANGED)
        return paths

    def verify(self) -> None:
        """PicoError if a weight file is not the one that was captured."""
        for path, (_, record) in zip(self.local_files(), sorted(self.files.items()), strict=True):
            if hash_file(path).sha256 != record.sha256:
                raise PicoError(f"{path} has changed since it was captured: its SHA-256 is another", _CHANGED)

    def _local(self, name: str) -> Path:
        if self.path is not None:
            return Path(self.path) / name
        from huggingface_hub import hf_hub_download

        assert self.repo is not None
        try:
            return Path(hf_hub_download(self.repo, name, revision=self.commit))
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            raise PicoError(
                f"{self.repo}@{self.commit}: {name} is neither in the Hub cache nor to be had: {reason}",
                "connect to the Hub, or restore the cache",
            ) from error


_CHANGED = "restore the series, or capture it again into another run folder"


def write_source(folder: Path, source: WeightSource) -> None:
    """Write `source.json` into a checkpoint folder."""
    durable.write_json(CheckpointFolder(folder).source, {"format": SOURCE_FORMAT, **asdict(source)})


def read_source(folder: Path) -> WeightSource | None:
    """Where the weights of a checkpoint folder are; None if it holds them itself."""
    path = CheckpointFolder(folder).source
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.pop("format") != SOURCE_FORMAT:
            raise PicoError(f"{path} has another format than {SOURCE_FORMAT}", "it was written by another version of picolm")
        files = {str(name): FileRecord(**record) for name, record in content.pop("files").items()}
        return WeightSource(files, **content)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise PicoError(f"{path} is damaged: {error}") from error


def read_series_problems(run: RunDirectory) -> list[str]:
    """What is odd about the series that a captured run stands for, one sentence each; empty for a run of one's own."""
    if not run.source_file.is_file():
        return []
    try:
        return [str(problem) for problem in json.loads(run.source_file.read_text(encoding="utf-8"))["problems"]]
    except (ValueError, KeyError, TypeError) as error:
        raise PicoError(f"{run.source_file} is damaged: {error}", "capture the series again: finished steps are kept") from error
