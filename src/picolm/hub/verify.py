"""Is a published series what it says? Duplicate, missing, out-of-order and changed steps, found from hashes alone."""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from picolm.base.errors import PicoError
from picolm.hub.remote import commits_by_step, read_index, read_tree
from picolm.hub.series import INDEX_NAME, Index, Published
from picolm.hub.survey import RemoteSeries, RemoteStep, read_weights, weights_of
from picolm.records.manifest import MANIFEST_NAME, manifest_hash, part_of
from picolm.records.rundir import RunDirectory

if TYPE_CHECKING:
    from huggingface_hub import HfApi

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Report:
    """What was found out about one series."""

    repo_id: str
    kind: str
    name: str
    steps: dict[int, str]
    """Step -> hash of its weights: keep it, and a later look sees what has changed."""
    problems: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """For a file and for other programs."""
        steps = [{"step": step, "weights": weights} for step, weights in self.steps.items()]
        return {"repository": self.repo_id, "kind": self.kind, "series": self.name, "steps": steps, "problems": self.problems}


def verify_series(api: HfApi, series: RemoteSeries, progress: Progress = lambda done, total: None) -> Report:
    """Look at every step of a series: one listing per step, no weights."""
    problems, weights = list(series.problems), {}
    if series.kind == "pico":
        problems += _chain_problems(api, series)
    for done, step in enumerate(series.steps):
        progress(done, len(series.steps))
        if not step.commit:
            continue
        if series.kind == "pico" and series.index is not None:
            found, wrong = _verify_step(api, series.repo_id, step, series.index)
            problems += wrong
        else:
            found = read_weights(api, series.repo_id, step.commit)
        if found:
            weights[step.step] = _one_hash(found)
        else:
            problems.append(f"step {step.step}: missing: {step.revision} holds no weights")
    main = read_weights(api, series.repo_id, series.head) if series.kind == "revisions" and series.head else {}
    if series.kind != "pico":  # ours is proved by its manifests, and a learning rate of 0 leaves the weights as they are
        problems += duplicates(weights, _one_hash(main) if main else None) + gaps(sorted(weights))
    return Report(series.repo_id, series.kind, series.name, weights, problems)


def _one_hash(found: dict[str, str]) -> str:
    return hashlib.sha256("\n".join(f"{path} {identity}" for path, identity in sorted(found.items())).encode()).hexdigest()


def duplicates(weights: dict[int, str], last: str | None = None) -> list[str]:
    """Steps that serve the same weights. `last`: those of the main branch, which the final step may share."""
    steps_of: dict[str, list[int]] = defaultdict(list)
    for step, identity in weights.items():
        steps_of[identity].append(step)
    problems = [
        f"steps {', '.join(map(str, steps))}: duplicate: the same weights" for steps in steps_of.values() if len(steps) > 1
    ]
    early = [step for step in steps_of.get(last or "", []) if step != max(weights)]
    if early:
        problems.append(f"step(s) {', '.join(map(str, early))}: changed: they serve the weights of the main branch")
    return problems


def gaps(steps: list[int]) -> list[str]:
    """Steps missing from an even spacing: a distance that is a multiple of the equal distances on both sides of it."""
    spans = [after - before for before, after in itertools.pairwise(steps)]
    problems = []
    for place in range(1, len(spans) - 1):
        usual = spans[place - 1]
        if usual == spans[place + 1] and spans[place] > usual and spans[place] % usual == 0:
            absent = list(range(steps[place] + usual, steps[place + 1], usual))
            shown = ", ".join(map(str, absent[:10])) + (f", ... ({len(absent)})" if len(absent) > 10 else "")
            problems.append(f"step(s) {shown}: missing between {steps[place]} and {steps[place + 1]}")
    return problems


def _chain_problems(api: HfApi, series: RemoteSeries) -> list[str]:
    """Order, repetition and descent of the rows of our index, and of the commits that published them."""
    assert series.index is not None
    rows, problems = series.index.series, []
    for before, after in itertools.pairwise(rows):
        if after.step <= before.step:
            problems.append(f"step {after.step}: out of order: listed after step {before.step}")
        if series.index.every_checkpoint and after.parent != before.manifest:
            problems.append(f"step {after.step}: missing before it: its parent is not step {before.step}")
    problems += [f"step {step}: listed twice" for step, count in Counter(row.step for row in rows).items() if count > 1]
    commits = commits_by_step(api, series.repo_id, series.name)
    problems += [f"step {step}: published {len(made)} times" for step, made in sorted(commits.items()) if len(made) > 1]
    for step in series.steps:
        if step.commit not in commits.get(step.step, []):
            problems.append(f"step {step.step}: changed: the tag {step.revision} does not point to the commit that published it")
    return problems


def _verify_step(api: HfApi, repo_id: str, step: RemoteStep, head: Index) -> tuple[dict[str, str], list[str]]:
    """Weights of a step, and where its files are not what its index and the index of the branch say."""
    tree = read_tree(api, repo_id, step.commit)
    try:
        index = read_index(api, repo_id, step.commit)
    except PicoError as error:
        return weights_of(tree), [f"step {step.step}: {error.message}"]
    if index is None or not index.series:
        return weights_of(tree), [f"step {step.step}: missing: {step.revision} has no {INDEX_NAME}"]
    row = next(row for row in head.series if row.step == step.step)
    problems = []
    if index.series[-1] != row:
        held = index.series[-1]
        problems.append(f"step {step.step}: changed: {step.revision} holds step {held.step}, manifest {held.manifest[:12]}")
    problems += _row_problems(row, index)
    for path, record in index.files.items():
        file = tree.get(path)
        if file is None:
            problems.append(f"step {step.step}: missing: {path}")
        elif file.bytes != record.bytes or file.identity != (record.sha256 if file.sha256 else record.git):
            problems.append(f"step {step.step}: changed: {path} is not what the index says")
    extra = [path for path in tree if path not in index.files and part_of(path) != "weights"]
    problems += [f"step {step.step}: changed: {path} is not in the index" for path in extra]
    return weights_of(tree), problems


def _row_problems(row: Published, index: Index) -> list[str]:
    manifest = index.files.get(MANIFEST_NAME)
    if manifest is None or manifest.sha256 != row.manifest:
        return [f"step {row.step}: changed: its {MANIFEST_NAME} is not the one the series names"]
    return []


def compare_with_run(series: RemoteSeries, run: RunDirectory) -> list[str]:
    """How a published series of ours differs from a run folder: by the hashes of the manifests."""
    if series.index is None:
        raise PicoError(
            f"{series.repo_id}: the series {series.name!r} was not published by picolm: it has no manifests to compare",
            "compare two looks at it instead: --save now, --against later",
        )
    there = {row.step: row.manifest for row in series.index.series}
    here = {step: manifest_hash(run.checkpoint(step)) for step in run.steps()}
    problems = [f"step {step}: missing on the Hub" for step in here if step not in there]
    problems += [f"step {step}: missing in {run.path}" for step in there if step not in here]
    return problems + [
        f"step {step}: changed: not the one of {run.path}" for step in here if there.get(step, here[step]) != here[step]
    ]


def compare_with_report(report: Report, before: dict[str, Any]) -> list[str]:
    """What has changed since an earlier look (`Report.to_json`)."""
    try:
        known = {int(row["step"]): str(row["weights"]) for row in before["steps"]}
    except (KeyError, TypeError, ValueError) as error:
        raise PicoError(f"the earlier look cannot be read: {error}", "it is what `pico hub verify --save FILE` writes") from error
    gone = [f"step {step}: missing since the earlier look" for step in known if step not in report.steps]
    changed = [step for step in known if report.steps.get(step, known[step]) != known[step]]
    return gone + [f"step {step}: changed since the earlier look" for step in changed]
