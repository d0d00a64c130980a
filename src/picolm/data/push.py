"""Publish a prepared folder as a dataset on the Hugging Face Hub: shards first, the manifest last; half a push is no dataset."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from picolm.base.errors import PicoError
from picolm.data.inspect import find_damage
from picolm.data.patience import patiently
from picolm.data.sources import PreparedData, open_prepared
from picolm.records.prepared import shards_of

FILES_PER_COMMIT = 50


def push_prepared(
    folder: Path,
    repo_id: str,
    *,
    api: Any,
    private: bool = False,
    progress: Callable[[float], None] = lambda _: None,
    sleep: Callable[[float], None] = time.sleep,
) -> str:
    """Upload everything the manifest lists to the dataset `repo_id`; its address. What is there already is not sent again.

    `api` is a `huggingface_hub.HfApi`.
    """
    data = open_prepared(folder)
    problems = find_damage(folder)
    if problems:
        raise PicoError(f"{folder}: {problems[0]}", "only undamaged data are published; see `pico data verify`")

    def call(what: str, attempt: Callable[[], Any]) -> Any:
        return patiently(f"{repo_id}: {what}", attempt, sleep)

    call("create", lambda: api.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True))
    there = call("list files", lambda: _hashes_there(api, repo_id))
    shards = [shard for split in data.splits for shard in shards_of(data.manifest, split, data.name)]
    missing = [shard.name for shard in shards if there.get(shard.name) != shard.sha256]
    sent = len(shards) - len(missing)
    for names in _batches(missing):
        operations = [_add(data.folder.shard(name), name) for name in names]
        call(names[0], functools.partial(_commit, api, repo_id, operations, f"Add {names[0]} to {names[-1]}"))
        sent += len(names)
        progress(sent / len(shards))
    operations = [_add(path, name) for path, name in _small_files(data)]
    operations.append(_add(card(data, repo_id).encode(), "README.md"))
    operations.append(_add(data.folder.manifest_file, data.folder.manifest_file.name))
    call("manifest", lambda: _commit(api, repo_id, operations, f"Add manifest {data.fingerprint[:12]}"))
    return f"hf://datasets/{repo_id}"


def _hashes_there(api: Any, repo_id: str) -> dict[str, str]:
    """SHA-256 of each large file of the dataset."""
    files = api.list_repo_tree(repo_id, repo_type="dataset", recursive=True)
    return {file.path: file.lfs.sha256 for file in files if getattr(file, "lfs", None) is not None}


def _commit(api: Any, repo_id: str, operations: list[Any], message: str) -> None:
    api.create_commit(repo_id, operations, commit_message=message, repo_type="dataset")


def _add(content: Path | bytes, name: str) -> Any:
    from huggingface_hub import CommitOperationAdd

    return CommitOperationAdd(path_in_repo=name, path_or_fileobj=content)


def _batches(names: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(names), FILES_PER_COMMIT):
        yield names[start : start + FILES_PER_COMMIT]


def _small_files(data: PreparedData) -> list[tuple[Path, str]]:
    files = [data.folder.tokenizer_file, data.folder.tokenizer_settings, *sorted(data.folder.minimal_pairs.glob("*.jsonl"))]
    return [(path, path.relative_to(data.folder.path).as_posix()) for path in files if path.is_file()]


def card(data: PreparedData, repo_id: str) -> str:
    """The dataset's page: which files are which split, and where the tokens come from."""
    manifest = data.manifest
    lines = ["---", "configs:", "- config_name: default", "  data_files:"]
    for split in data.splits:
        lines += [f"  - split: {'validation' if split == 'val' else split}", f"    path: {split}/*.parquet"]
    lines += [
        "---",
        "",
        f"# {repo_id}",
        "",
        f"Token rows of {data.row_length} (column `input_ids`), made with `pico data prepare`.",
        "",
    ]
    lines += ["| split | documents | tokens | rows | shards |", "| --- | ---: | ---: | ---: | ---: |"]
    for split, facts in manifest["splits"].items():
        documents = f"{facts['documents']:,}" if "documents" in facts else ""
        lines.append(f"| {split} | {documents} | {facts['tokens']:,} | {facts['rows']:,} | {len(facts['shards'])} |")
    lines += ["", f"Fingerprint: `{data.fingerprint}`", ""]
    if manifest["tokenizer"]:
        lines.append(f"Tokenizer: `tokenizer.json`, SHA-256 `{manifest['tokenizer']['sha256']}`")
    for source in manifest.get("sources", []):
        lines.append(f"Source: `{source['name']}`, {source['bytes']:,} bytes, SHA-256 `{source['sha256']}`")
    lines += ["", "Train on it:", "", "```", f"pico train CONFIG --set data.dataset.name={repo_id}", "```", ""]
    return "\n".join(lines)
