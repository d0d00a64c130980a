"""Fetches single files of a repository: each is kept only if its hash is the expected one, and only below its folder."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from picolm.base.errors import PicoError
from picolm.hub.names import check_paths
from picolm.hub.patience import Patience
from picolm.hub.remote import TreeFile, read_tree
from picolm.hub.series import FileHash, hash_content
from picolm.records import durable

if TYPE_CHECKING:
    from huggingface_hub import HfApi


class Fetcher:
    """The client with patience, and with no trust in what it brings."""

    def __init__(self, api: HfApi, patience: Patience) -> None:
        self._api = api
        self._patience = patience

    def tree(self, repo_id: str, commit: str) -> dict[str, TreeFile]:
        """All files of a commit with the Hub's own hashes."""
        return self._patience.call(f"{repo_id}: files", lambda: read_tree(self._api, repo_id, commit))

    def fetch_tree(
        self,
        repo_id: str,
        commit: str,
        tree: dict[str, TreeFile],
        names: Iterable[str],
        staging: Path,
        fresh: Path,
        endings: tuple[str, ...],
    ) -> None:
        """The named files of a commit, except those that are in `fresh` already; one that is another file is an error."""
        for name in check_paths(list(names), f"{repo_id}@{commit[:12]}", endings):
            file = tree[name]
            expected = FileHash(file.bytes, file.sha256 or "", file.git)
            here = fresh.joinpath(*name.split("/"))
            if here.is_symlink() or here.exists():
                if not is_right(here, expected):
                    raise PicoError(f"{here} is not the file that {repo_id} has", "choose another folder: --out DIR")
            else:
                self.fetch(repo_id, commit, name, expected, staging, fresh)

    def fetch(self, repo_id: str, commit: str, name: str, expected: FileHash, staging: Path, fresh: Path) -> None:
        """One file, once its hash is right; a second try passes over every cache."""
        target = fresh.joinpath(*name.split("/"))
        if not target.resolve().is_relative_to(fresh.resolve()):
            raise PicoError(f"{repo_id}: {name!r} leaves its folder")
        for again in (False, True):
            download = lambda again=again: self._api.hf_hub_download(  # noqa: E731
                repo_id, name, revision=commit, local_dir=staging, force_download=again
            )
            place = Path(self._patience.call(f"{repo_id}: {name}", download))
            if is_right(place, expected):
                target.parent.mkdir(parents=True, exist_ok=True)
                place.replace(target)
                return
        found = hash_content(place)
        wanted, got = (expected.sha256, found.sha256) if expected.sha256 else (expected.git, found.git)
        raise PicoError(
            f"{repo_id}: {name} has changed: its hash is {got[:16]}, not {wanted[:16]}",
            "it was fetched twice and nothing of it was kept; `pico hub verify` looks at the whole series",
        )


def is_right(place: Path, expected: FileHash) -> bool:
    """Whether a file is there and is the one expected."""
    if place.is_symlink() or not place.is_file():
        return False
    found = hash_content(place)
    right = found.sha256 == expected.sha256 if expected.sha256 else found.git == expected.git
    return right and found.bytes == expected.bytes


@contextmanager
def staging_beside(place: Path) -> Iterator[Path]:
    """An unfinished folder beside the place where files go, gone at the end."""
    place.parent.mkdir(parents=True, exist_ok=True)
    folder = durable.temporary_sibling(place)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
