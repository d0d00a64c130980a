"""What series a repository holds, read from names, commits, hashes and indexes; no weights are downloaded.

Three kinds are understood: ours (`index.json` on a branch), the original trainer's (steps in commit titles of one branch),
and one branch or tag per step (Pythia, OLMo, BLOOM).
"""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from picolm.base.errors import PicoError
from picolm.hub.names import ORIGINAL_TITLE, family_of_revision, step_of_revision, tokens_of_revision
from picolm.hub.remote import Refs, TreeFile, is_missing, read_index, read_refs, read_tree
from picolm.hub.series import Index

if TYPE_CHECKING:
    from huggingface_hub import HfApi

WEIGHTS = re.compile(r"^(?:model|pytorch_model|consolidated)[^/]*\.(?:safetensors|bin|pt|pth)$")
COMMIT = re.compile(r"[0-9a-f]{40}")
MOST_BRANCHES_LOOKED_AT = 200

Kind = Literal["pico", "original", "revisions"]


@dataclass(frozen=True)
class RemoteStep:
    """One step of a published series."""

    step: int
    revision: str
    """Tag or branch that names it, or the commit."""
    commit: str
    saved: dict[str, str] = field(default_factory=dict)
    """Of the original trainer: what was saved -> commit."""


@dataclass(frozen=True)
class RemoteSeries:
    """A series as its names tell it."""

    repo_id: str
    kind: Kind
    name: str
    """Branch of the series, or what its step branches have in common."""
    head: str
    steps: list[RemoteStep]
    problems: list[str]
    """What is wrong already by the names."""
    index: Index | None = None


def split_address(address: str) -> tuple[str, str | None]:
    """`owner/name@revision` -> its two parts."""
    from picolm.hub.names import check_repo_id, check_revision

    repo_id, found, revision = address.partition("@")
    return check_repo_id(repo_id), check_revision(revision) if found else None


def find_series(api: HfApi, repo_id: str, revision: str | None) -> list[RemoteSeries]:
    """The series on a branch, or all of a repository; PicoError if there is none."""
    refs = read_refs(api, repo_id)
    if revision is not None and revision in refs.branches and step_of_revision(revision) is None:
        found = _series_of_branch(api, repo_id, revision, refs)
        if found is not None:
            return [found]
    if revision is not None and (revision in refs.branches or revision in refs.tags):
        named = _series_of_step(api, repo_id, revision, refs)
        if named is not None:
            return [named]
    if revision is not None and COMMIT.fullmatch(revision):
        published = _series_of_commit(api, repo_id, revision, refs)
        if published is not None:
            return [published]
    if revision is not None:
        raise PicoError(
            f"{repo_id}@{revision} holds no series of steps",
            "branches: " + ", ".join(list(refs.branches)[:20])
            if revision not in refs.branches
            else "leave the branch out to look at all of them",
        )
    series = _series_of_names(repo_id, refs)
    branches = [name for name in refs.branches if step_of_revision(name) is None]
    if len(branches) > MOST_BRANCHES_LOOKED_AT:
        raise PicoError(
            f"{repo_id} has {len(branches):,} branches to look at", f"name one: {repo_id}@{branches[0]}, or the branch of a step"
        )
    series += [found for name in branches if (found := _series_of_branch(api, repo_id, name, refs)) is not None]
    if not series:
        raise PicoError(f"{repo_id} holds no series of steps", "a series has step numbers in its branches, tags or commit titles")
    ours = {step.revision for found in series if found.kind == "pico" for step in found.steps}
    return [found for found in series if found.kind != "revisions" or not {step.revision for step in found.steps} <= ours]


def _series_of_step(api: HfApi, repo_id: str, revision: str, refs: Refs) -> RemoteSeries | None:
    """The series that a tag or branch is one step of: ours on the branch it is named after, else by the names alone."""
    branch = family_of_revision(revision).rstrip("-_/")
    ours = _series_of_branch(api, repo_id, branch, refs) if branch in refs.branches else None
    found = [*([] if ours is None else [ours]), *_series_of_names(repo_id, refs)]
    return next((series for series in found if any(step.revision == revision for step in series.steps)), None)


def _series_of_commit(api: HfApi, repo_id: str, commit: str, refs: Refs) -> RemoteSeries | None:
    """The series of ours that a commit published a step of; None if there is none."""
    try:
        index = read_index(api, repo_id, commit)
    except Exception as error:
        if is_missing(error):
            return None
        raise
    if index is None or index.run not in refs.branches:
        return None
    found = _series_of_branch(api, repo_id, index.run, refs)
    return found if found is not None and any(step.commit == commit for step in found.steps) else None


def one_series(found: list[RemoteSeries], repo_id: str, revision: str | None) -> tuple[RemoteSeries, int | None]:
    """The only series, and the step that `revision` names in it, if it names one."""
    if len(found) > 1:
        names = ", ".join(series.name or series.steps[0].revision for series in found[:20])
        raise PicoError(
            f"{repo_id} holds {len(found)} series: {names}", f"name one: {repo_id}@{found[0].name or found[0].steps[0].revision}"
        )
    series = found[0]
    return series, next((step.step for step in series.steps if revision in (step.revision, step.commit)), None)


def _series_of_branch(api: HfApi, repo_id: str, branch: str, refs: Refs) -> RemoteSeries | None:
    head = refs.branches[branch]
    index = read_index(api, repo_id, head)
    if index is not None and index.run == branch:
        return _ours(repo_id, branch, head, index, refs)
    return _original(api, repo_id, branch, head)


def _ours(repo_id: str, branch: str, head: str, index: Index, refs: Refs) -> RemoteSeries:
    problems, steps = [], []
    for row in index.series:
        commit = refs.tags.get(row.tag)
        if commit is None:
            problems.append(f"step {row.step}: missing: there is no tag {row.tag}")
        else:
            steps.append(RemoteStep(row.step, row.tag, commit))
    listed = {row.tag for row in index.series}
    extra = [tag for tag in refs.tags if re.fullmatch(rf"{re.escape(branch)}-step-\d+", tag) and tag not in listed]
    problems += [f"tag {tag}: not in the index" for tag in sorted(extra)]
    return RemoteSeries(repo_id, "pico", branch, head, steps, problems, index)


def _original(api: HfApi, repo_id: str, branch: str, head: str) -> RemoteSeries | None:
    """Steps from commit titles, oldest first: what comes out of order or twice is a problem."""
    saved: dict[int, dict[str, str]] = {}
    problems, newest = [], -1
    for commit in reversed(api.list_repo_commits(repo_id, revision=branch)):
        title = ORIGINAL_TITLE.match(commit.title)
        if title is None:
            continue
        what, step = title[1], int(title[2])
        if what == "HF Model":
            if step in saved and what in saved[step]:
                problems.append(f"step {step}: saved twice: {saved[step][what][:12]} and {commit.commit_id[:12]}")
            elif step < newest:
                problems.append(f"step {step}: out of order: saved after step {newest}")
            newest = max(newest, step)
        saved.setdefault(step, {})[what] = commit.commit_id
    if not saved:
        return None
    steps = [
        RemoteStep(step, kinds.get("HF Model", ""), kinds.get("HF Model", ""), kinds) for step, kinds in sorted(saved.items())
    ]
    problems += [f"step {step.step}: no model was saved" for step in steps if not step.commit]
    return RemoteSeries(repo_id, "original", branch, head, steps, problems)


def _series_of_names(repo_id: str, refs: Refs) -> list[RemoteSeries]:
    """Branches and tags that are one step each, by what their names have in common."""
    families: dict[str, dict[int, list[tuple[str, str]]]] = defaultdict(lambda: defaultdict(list))
    for name, commit in [*refs.tags.items(), *refs.branches.items()]:
        step = step_of_revision(name)
        if step is not None:
            families[family_of_revision(name)][step].append((name, commit))
    series = []
    for family, found in sorted(families.items()):
        problems = [
            f"step {step}: named twice: {', '.join(sorted(name for name, _ in names))}"
            for step, names in sorted(found.items())
            if len({commit for _, commit in names}) > 1
        ]
        steps = [RemoteStep(step, *names[0]) for step, names in sorted(found.items())]
        problems += _tokens_out_of_order(steps)
        series.append(RemoteSeries(repo_id, "revisions", family, refs.branches.get("main", ""), steps, problems))
    return series


def _tokens_out_of_order(steps: list[RemoteStep]) -> list[str]:
    """Names that tell tokens must tell more of them at later steps."""
    told = [(step, tokens) for step in steps if (tokens := tokens_of_revision(step.revision)) is not None]
    pairs = itertools.pairwise(told)
    return [
        f"step {after.step}: out of order: {after.revision} tells fewer tokens than {before.revision}"
        for (before, fewer), (after, more) in pairs
        if more < fewer
    ]


def weights_of(tree: dict[str, TreeFile]) -> dict[str, str]:
    """Weight files of a commit -> what identifies their content."""
    return {path: file.identity for path, file in sorted(tree.items()) if WEIGHTS.match(path)}


def read_weights(api: HfApi, repo_id: str, commit: str) -> dict[str, str]:
    """The same, read from the Hub."""
    return weights_of(read_tree(api, repo_id, commit))
