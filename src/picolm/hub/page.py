"""The page of a repository, on its `main` branch: which runs there are, how far they are, how to load a step of one.

Weights are on the branches of the runs; somebody who opens the repository sees this page. It is made from `runs.json` beside it,
where each run has one entry that only its own uploader changes.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from picolm.hub.card import CITATION, FRONT_MATTER, how_to_load, plain
from picolm.hub.names import MAIN, PAGE_TITLE, branch_of
from picolm.hub.patience import status_of
from picolm.hub.remote import read_index, read_refs, read_small_file
from picolm.hub.secrecy import refuse_secrets, without_places
from picolm.hub.series import Published
from picolm.records.rundir import RunDirectory

if TYPE_CHECKING:
    from huggingface_hub import HfApi

PAGE_NAME = "README.md"
RUNS_NAME = "runs.json"
FORMAT = "picolm.runs/1"
MARK = "<!-- made by picolm from runs.json -->"

MOST_ATTEMPTS = 10
"""How often the page is read again because another run's uploader was faster."""

Runs = dict[str, dict[str, Any]]


def publish_page(api: HfApi, run: RunDirectory, repo_id: str) -> bool:
    """Put what is published of a run on the page; whether that was news. A page that somebody wrote by hand is left alone."""
    for _ in range(MOST_ATTEMPTS):
        refs = read_refs(api, repo_id)
        main, branch = refs.branches.get(MAIN), refs.branches.get(branch_of(run.name))
        index = None if branch is None else read_index(api, repo_id, branch)
        if main is None or index is None or not index.series:
            return False
        there = {name: read_small_file(api, repo_id, main, name) for name in (PAGE_NAME, RUNS_NAME)}
        if not is_own_page(there[PAGE_NAME]):
            return False
        files = write_page(parse_runs(there[RUNS_NAME]) | {run.name: entry_of(run, index.series)}, repo_id)
        if files == there:
            return False
        try:
            _commit(api, repo_id, main, files)
        except Exception as error:
            if status_of(error) != 412:
                raise
        else:
            return True
    return False


def _commit(api: HfApi, repo_id: str, parent: str, files: dict[str, bytes]) -> None:
    from huggingface_hub import CommitOperationAdd

    refuse_secrets(dict(files))
    operations: list[Any] = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=part) for name, part in files.items()]
    api.create_commit(repo_id, operations, commit_message=PAGE_TITLE, revision=MAIN, parent_commit=parent)


def entry_of(run: RunDirectory, series: tuple[Published, ...]) -> dict[str, Any]:
    """What the page says about a run: from its own records and its newest published step."""
    identity, newest = run.identity(), series[-1]
    model, data = identity.get("model", {}), identity.get("data", {})
    return {
        "type": model.get("type"),
        "parameters": model.get("parameters"),
        "data": data.get("name"),
        "data_fingerprint": data.get("fingerprint"),
        "config_hash": identity.get("config_hash"),
        "checkpoints": len(series),
        "step": newest.step,
        "tokens": newest.tokens,
        "tag": newest.tag,
        "manifest": newest.manifest,
    }


def parse_runs(content: bytes | None) -> Runs:
    """The entries of `runs.json`; none where there is no such file or it is not ours."""
    try:
        read = json.loads(content or b"{}")
        runs = read["runs"] if read.get("format") == FORMAT else {}
        return {str(name): dict(entry) for name, entry in runs.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def is_own_page(content: bytes | None) -> bool:
    """Whether the page may be written again: there is none, or it is one of ours."""
    return content is None or MARK.encode() in content


def write_page(runs: Runs, repo_id: str) -> dict[str, bytes]:
    """Page and `runs.json`: the same runs always give the same bytes."""
    text = json.dumps({"format": FORMAT, "runs": runs}, indent=1, sort_keys=True) + "\n"
    lines = ["| run | model | parameters | newest step | tokens | checkpoints |", "| --- | --- | ---: | ---: | ---: | ---: |"]
    lines += [_row(name, entry, repo_id) for name, entry in sorted(runs.items())]
    name, entry = max(runs.items(), key=lambda item: (_number(item[1].get("step")), item[0]))
    sections = [
        FRONT_MATTER,
        MARK,
        f"# {plain(repo_id)}",
        "Training runs published step by step with picolm: each run is a branch, each checkpoint one commit and one tag. "
        "The branch of a run shows its card: data, configuration, training curve, scores.",
        "\n".join(lines),
        how_to_load(plain(name), _number(entry.get("step")), repo_id),
        f"`pico hub verify {repo_id}` proves that each series is what was trained.",
        "## Cite\n\n" + CITATION,
    ]
    page = "\n\n".join(sections) + "\n"
    return {PAGE_NAME: without_places(page).encode(), RUNS_NAME: without_places(text).encode()}


def _row(name: str, entry: dict[str, Any], repo_id: str) -> str:
    link = f"[{plain(name)}](https://huggingface.co/{repo_id}/tree/{plain(name)})"
    counts = [_shown(entry.get(key)) for key in ("parameters", "step", "tokens", "checkpoints")]
    return "| " + " | ".join([link, plain(entry.get("type") or ""), *counts]) + " |"


def _number(value: Any) -> int:
    return value if isinstance(value, int) else 0


def _shown(value: Any) -> str:
    return format(value, ",") if isinstance(value, int) else ""
