"""A series of checkpoints by one pattern: local folders `series/step{step}`, or Hub revisions `owner/name@step{step}`.

A pattern arrives from the command line; members with their steps leave, and one after the other their folders.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from picolm.base.errors import PicoError
from picolm.records.manifest import FileRecord, hash_file
from picolm.records.source import WeightSource

PLACE = "{step}"
NEEDED_FILES = ("config.json", "*.safetensors", "*.safetensors.index.json")
PATTERN_HINT = "for example series/step{step}, or EleutherAI/pythia-14m@step{step}"


@dataclass(frozen=True)
class Member:
    """One checkpoint of a series."""

    step: int
    name: str
    """Path of a folder, or Hub revision."""


@dataclass(frozen=True)
class Series:
    """Where the checkpoints are."""

    pattern: str
    """Path or revision, with `{step}` in it; `*` stands for anything. Without `{step}`: a single checkpoint."""
    repo: str | None = None
    """Hub repository; None for local folders."""

    def members(self, wanted: Sequence[int] | None) -> list[Member]:
        """The checkpoints of these steps, ascending, or of all there are; PicoError names what is missing."""
        if PLACE not in self.pattern:
            return [self._single(wanted)]
        if wanted is not None and "*" not in self.pattern:
            return [Member(step, self.pattern.replace(PLACE, str(step))) for step in sorted(wanted)]
        found = self._found()
        missing = sorted(set(wanted or ()) - found.keys())
        if missing:
            known = ", ".join(str(step) for step in sorted(found)[:20])
            raise PicoError(f"{self}: there is no step {missing[0]}", f"there are {known}" if known else PATTERN_HINT)
        return [Member(step, found[step]) for step in sorted(found if wanted is None else wanted)]

    def fetch(self, member: Member) -> tuple[Path, WeightSource]:
        """The folder of a checkpoint on this machine, and where its weights are."""
        if self.repo is None:
            folder = Path(member.name)
            return folder, WeightSource(_weight_files(folder), path=str(folder.resolve()))
        folder = _download(self.repo, member.name)
        return folder, WeightSource(_weight_files(folder), repo=self.repo, revision=member.name, commit=folder.name)

    def __str__(self) -> str:
        return self.pattern if self.repo is None else f"{self.repo}@{self.pattern}"

    def _single(self, wanted: Sequence[int] | None) -> Member:
        if wanted is not None and len(wanted) > 1:
            raise PicoError(f"{self} is one checkpoint, and {len(wanted)} steps are asked for", f"put {PLACE} where they differ")
        numbers = re.findall(r"\d+", Path(self.pattern).name)
        if wanted is None and not numbers:
            raise PicoError(f"{self} does not tell its step", "give it: --steps 1000")
        return Member(wanted[0] if wanted else int(numbers[-1]), self.pattern)

    def _found(self) -> dict[int, str]:
        """Step -> name of everything that fits the pattern."""
        shape = re.compile(re.escape(self.pattern).replace(re.escape(PLACE), r"(\d+)").replace(r"\*", ".*"))
        found: dict[int, str] = {}
        for name in self._names():
            match = shape.fullmatch(name)
            if match is None:
                continue
            step = int(match[1])
            if step in found:
                raise PicoError(f"{self}: {found[step]} and {name} are both step {step}", "make the pattern more precise")
            found[step] = name
        if not found:
            raise PicoError(f"{self}: nothing fits", PATTERN_HINT)
        return found

    def _names(self) -> list[str]:
        if self.repo is not None:
            return _revisions(self.repo)
        before, _, _ = self.pattern.replace("*", PLACE).partition(PLACE)
        root = Path(before) if before.endswith("/") else Path(before).parent
        depth = self.pattern[len(before) :].count("/") + 1
        return [str(path) for path in root.glob("/".join(["*"] * depth))] if root.is_dir() else []


def parse_series(text: str) -> Series:
    """The series that a pattern names: with `@` it is on the Hub, unless there is such a folder."""
    repo, at, revision = text.partition("@")
    if at and not Path(text).exists():
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo) or not revision:
            raise PicoError(f"{text}: not a Hub repository with a revision", PATTERN_HINT)
        return Series(revision, repo)
    return Series(str(Path(text)))


def _weight_files(folder: Path) -> dict[str, FileRecord]:
    if not (folder / "config.json").is_file():
        raise PicoError(f"{folder} is not a model folder: it has no config.json", PATTERN_HINT)
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise PicoError(
            f"{folder} has no weights in safetensors", "pickled weights can run code and are refused: save them as safetensors"
        )
    single = [path for path in files if path.name == "model.safetensors"]
    return {path.name: hash_file(path) for path in single or files}


def _download(repo: str, revision: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repo, revision=revision, allow_patterns=list(NEEDED_FILES)))
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise PicoError(f"{repo}@{revision} cannot be fetched: {reason}", "check name, revision and connection") from error


def _revisions(repo: str) -> list[str]:
    from huggingface_hub import HfApi

    try:
        refs = HfApi().list_repo_refs(repo)
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise PicoError(f"the revisions of {repo} cannot be listed: {reason}", "name the steps: --steps 0,1000,2000") from error
    return sorted({ref.name for ref in (*refs.branches, *refs.tags)})
