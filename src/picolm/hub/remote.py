"""One published run as the Hub shows it: its branch, its tags, the series in its index. Read fresh whenever in doubt."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from picolm.base.errors import PicoError
from picolm.hub.names import CHECKPOINT_TITLE, RESULTS_TITLE
from picolm.hub.patience import status_of
from picolm.hub.series import INDEX_NAME, LARGEST_INDEX_BYTES, Index, parse_index

if TYPE_CHECKING:
    from huggingface_hub import HfApi

MOST_REFS = 200_000


@dataclass(frozen=True)
class Refs:
    """Branches and tags: name -> commit."""

    branches: dict[str, str]
    tags: dict[str, str]


@dataclass(frozen=True)
class TreeFile:
    """A file of a commit as the Hub lists it. `sha256` is known of large files, `git` of all."""

    path: str
    bytes: int
    git: str
    sha256: str | None

    @property
    def identity(self) -> str:
        """What is the same if and only if the content is."""
        return self.sha256 or self.git


def read_refs(api: HfApi, repo_id: str) -> Refs:
    """All branches and tags of a repository."""
    refs = api.list_repo_refs(repo_id)
    if len(refs.branches) + len(refs.tags) > MOST_REFS:
        raise PicoError(f"{repo_id} has more than {MOST_REFS:,} branches and tags", "name one branch: OWNER/NAME@BRANCH")
    return Refs({ref.name: ref.target_commit for ref in refs.branches}, {ref.name: ref.target_commit for ref in refs.tags})


def read_tree(api: HfApi, repo_id: str, revision: str) -> dict[str, TreeFile]:
    """All files of a commit with the Hub's own hashes; none is downloaded."""
    found = {}
    for entry in api.list_repo_tree(repo_id, recursive=True, revision=revision):
        git = getattr(entry, "blob_id", None)
        if git is not None:
            large: Any = getattr(entry, "lfs", None)
            size = int(getattr(entry, "size", 0))
            found[entry.path] = TreeFile(entry.path, size, git, None if large is None else large.sha256)
    return found


def read_small_file(api: HfApi, repo_id: str, revision: str, path: str) -> bytes | None:
    """The content of a small file; None if the commit has none of this name."""
    with tempfile.TemporaryDirectory(prefix="pico-hub-") as folder:
        try:
            place = api.hf_hub_download(repo_id, path, revision=revision, local_dir=folder)
        except Exception as error:  # the class differs between versions of the client
            if type(error).__name__ in ("EntryNotFoundError", "RemoteEntryNotFoundError"):
                return None
            raise
        if Path(place).stat().st_size > LARGEST_INDEX_BYTES:
            raise PicoError(f"{repo_id}@{revision}: {path} is larger than {LARGEST_INDEX_BYTES >> 20} MiB")
        return Path(place).read_bytes()


def read_index(api: HfApi, repo_id: str, revision: str) -> Index | None:
    """The index of a commit; None if it has none."""
    content = read_small_file(api, repo_id, revision, INDEX_NAME)
    return None if content is None else parse_index(content, f"{repo_id}@{revision}")


def is_ours(title: str) -> bool:
    """Whether a commit title is one that picolm writes."""
    return title == RESULTS_TITLE or CHECKPOINT_TITLE.match(title) is not None


def commits_by_step(api: HfApi, repo_id: str, branch: str) -> dict[int, list[str]]:
    """Step -> commits that publish it, newest first."""
    found: dict[int, list[str]] = {}
    for commit in api.list_repo_commits(repo_id, revision=branch):
        title = CHECKPOINT_TITLE.match(commit.title)
        if title:
            found.setdefault(int(title[1]), []).append(commit.commit_id)
    return found


def is_missing(error: BaseException) -> bool:
    """Whether the Hub says that the repository or revision does not exist (or may not be seen)."""
    return status_of(error) == 404 or type(error).__name__ in ("RepositoryNotFoundError", "RevisionNotFoundError")
