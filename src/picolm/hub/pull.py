"""Takes a published series back: each file is checked against the hashes that the series itself and the Hub give.

What is not data is not written, nothing is executed, and every path stays below its folder. A step appears whole or not
at all; what is there already is not fetched again.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from picolm.base.errors import PicoError
from picolm.hub.names import DATA_ENDINGS, check_paths
from picolm.hub.patience import Patience
from picolm.hub.remote import TreeFile, read_index, read_tree
from picolm.hub.series import INDEX_NAME, FileHash, hash_content
from picolm.hub.survey import RemoteSeries, RemoteStep
from picolm.records import durable
from picolm.records.manifest import MANIFEST_NAME, PARTS, find_damage, manifest_hash, part_of, read_manifest
from picolm.records.rundir import RunDirectory, check_run_name

if TYPE_CHECKING:
    from huggingface_hub import HfApi

RUN_FILE = re.compile(r"^(?:run\.json|training_config\.yaml|logs/train\.jsonl|evaluation/step_\d{1,15}\.json)$")
ORIGINAL_ENDINGS = (*DATA_ENDINGS, ".pt", ".arrow")
"""Of the original trainer: its captured tensors are read as plain tensors only."""
ORIGINAL_MODEL_FILE = re.compile(r"^[^/]+\.(?:json|safetensors|txt|model)$")
ORIGINAL_RUN_FILE = re.compile(r"^(?:training_config\.yaml|eval_results/step_\d{1,15}\.json)$")

Say = Callable[[str], None]


@dataclass(frozen=True)
class Wanted:
    """What is asked for."""

    steps: tuple[int, ...] | None = None
    """None: all of them."""
    parts: tuple[str, ...] = PARTS

    def check(self, series: RemoteSeries) -> list[RemoteStep]:
        """The steps of the series that are wanted; PicoError if one is not there."""
        there = {step.step: step for step in series.steps}
        missing = [step for step in self.steps or () if step not in there]
        if missing:
            raise PicoError(
                f"{series.repo_id}: {series.name or 'the series'} has no step {missing[0]}",
                f"it has {', '.join(map(str, list(there)[:20]))}{', ...' if len(there) > 20 else ''}",
            )
        return [step for step in series.steps if self.steps is None or step.step in self.steps]


class Puller:
    """Fetches files of one repository into a folder."""

    def __init__(self, api: HfApi, patience: Patience, say: Say) -> None:
        self._api = api
        self._patience = patience
        self._say = say

    def pull(self, series: RemoteSeries, out: Path, wanted: Wanted) -> Path:
        """Fetch a series; the folder it is in now."""
        steps = wanted.check(series)
        if out.is_symlink():
            raise PicoError(f"{out} is a symbolic link", "name the folder itself")
        if series.kind == "pico":
            self._pull_ours(series, RunDirectory(out), steps, wanted.parts)
        elif series.kind == "original":
            self._pull_original(series, RunDirectory(out), steps, wanted.parts)
        else:
            self._pull_revisions(series, out, steps)
        return out

    def _pull_ours(self, series: RemoteSeries, run: RunDirectory, steps: list[RemoteStep], parts: tuple[str, ...]) -> None:
        assert series.index is not None
        check_run_name(series.index.run)
        manifests = {row.step: row.manifest for row in series.index.series}
        self._refuse_other_run(run, manifests)
        for step in steps:
            folder = run.checkpoint(step.step)
            if (folder / MANIFEST_NAME).is_file():
                self._say(f"step {step.step} is here already")
                continue
            self._pull_checkpoint(series.repo_id, step, manifests[step.step], folder, parts)
            self._say(f"step {step.step}: every file is what its manifest says")
        self._pull_files(series.repo_id, series.head, run.path, RUN_FILE, DATA_ENDINGS)

    def _refuse_other_run(self, run: RunDirectory, manifests: dict[int, str]) -> None:
        """A folder that holds another run is not mixed with this one."""
        for step in run.steps():
            if manifests.get(step, manifest_hash(run.checkpoint(step))) != manifest_hash(run.checkpoint(step)):
                raise PicoError(
                    f"{run.path} holds another run: its step {step} has another manifest", "choose another folder: --out DIR"
                )

    def _pull_checkpoint(self, repo_id: str, step: RemoteStep, manifest: str, folder: Path, parts: tuple[str, ...]) -> None:
        source = f"{repo_id}@{step.revision}"
        index = self._patience.call(source, lambda: read_index(self._api, repo_id, step.commit))
        if index is None or not index.series or index.series[-1].manifest != manifest:
            raise PicoError(f"{source} is not step {step.step} of the series", "`pico hub verify` shows what is wrong with it")
        known = index.files.get(MANIFEST_NAME)
        if known is None or known.sha256 != manifest:
            raise PicoError(f"{source}: its {MANIFEST_NAME} is not the one the series names", "nothing of it was kept")
        with durable.new_folder(folder) as fresh, self._staging(folder) as staging:
            self._fetch(repo_id, step.commit, MANIFEST_NAME, known, staging, fresh)
            sealed = read_manifest(fresh)
            if sealed.step != step.step:
                raise PicoError(f"{source}: its manifest is of step {sealed.step}", "nothing of it was kept")
            records = {name: record for files in sealed.parts.values() for name, record in files.items()}
            for name in check_paths(list(records), source):
                small = part_of(name) == "weights" and not name.endswith(".safetensors")
                if name in index.files and (small or part_of(name) in parts):
                    record = records[name]
                    self._fetch(repo_id, step.commit, name, FileHash(record.bytes, record.sha256, ""), staging, fresh)
            chosen = [part for part in sealed.parts if (fresh / part).exists() or (part == "weights" and part in parts)]
            problems = find_damage(fresh, sealed, chosen)
            if problems:
                raise PicoError(f"{source}: {problems[0]}", "nothing of it was kept")

    def _pull_original(self, series: RemoteSeries, run: RunDirectory, steps: list[RemoteStep], parts: tuple[str, ...]) -> None:
        """The layout that the original trainer has on disk; its training state is a pickle and stays where it is."""
        for step in steps:
            folder = run.checkpoint(step.step)
            if folder.is_dir():
                self._say(f"step {step.step} is here already")
                continue
            with durable.new_folder(folder) as fresh, self._staging(folder) as staging:
                for what, commit in step.saved.items():
                    tree = self._tree(series.repo_id, commit)
                    names = [name for name in tree if _belongs(name, what, parts)]
                    self._fetch_tree(series.repo_id, commit, tree, names, staging, fresh, ORIGINAL_ENDINGS)
            self._say(f"step {step.step}: every file is what the Hub's hashes say")
        self._pull_files(series.repo_id, series.head, run.path, ORIGINAL_RUN_FILE, DATA_ENDINGS)

    def _pull_revisions(self, series: RemoteSeries, out: Path, steps: list[RemoteStep]) -> None:
        """One Hugging Face folder `step_<N>` per step, and `revisions.json` about where they come from."""
        origin = {"repository": series.repo_id, "steps": {}}
        for step in steps:
            folder = out / f"step_{step.step}"
            if not folder.is_dir():
                tree = self._tree(series.repo_id, step.commit)
                names = [
                    name for name in tree if "/" not in name and PurePosixPath(name).suffix in DATA_ENDINGS and name != INDEX_NAME
                ]
                with durable.new_folder(folder) as fresh, self._staging(folder) as staging:
                    self._fetch_tree(series.repo_id, step.commit, tree, names, staging, fresh, DATA_ENDINGS)
            self._say(f"step {step.step}: every file is what the Hub's hashes say")
            origin["steps"][str(step.step)] = {"revision": step.revision, "commit": step.commit}  # type: ignore[index]
        durable.write_json(out / "revisions.json", origin)

    def _pull_files(self, repo_id: str, commit: str, out: Path, pattern: re.Pattern[str], endings: tuple[str, ...]) -> None:
        """The run's own records: those of the newest commit replace what is here."""
        tree = self._tree(repo_id, commit)
        names = [name for name in tree if pattern.match(name)]
        out.mkdir(parents=True, exist_ok=True)
        with self._staging(out / "records") as staging, self._staging(out / "fetched") as fresh:
            self._fetch_tree(repo_id, commit, tree, names, staging, fresh, endings)
            for name in names:
                durable.write_bytes(out.joinpath(*name.split("/")), fresh.joinpath(*name.split("/")).read_bytes())

    def _tree(self, repo_id: str, commit: str) -> dict[str, TreeFile]:
        return self._patience.call(f"{repo_id}: files", lambda: read_tree(self._api, repo_id, commit))

    def _fetch_tree(
        self,
        repo_id: str,
        commit: str,
        tree: dict[str, TreeFile],
        names: Iterable[str],
        staging: Path,
        fresh: Path,
        endings: tuple[str, ...],
    ) -> None:
        for name in check_paths(list(names), f"{repo_id}@{commit[:12]}", endings):
            file = tree[name]
            self._fetch(repo_id, commit, name, FileHash(file.bytes, file.sha256 or "", file.git), staging, fresh)

    def _fetch(self, repo_id: str, commit: str, name: str, expected: FileHash, staging: Path, fresh: Path) -> None:
        """One file, once its hash is right; a second try passes over every cache."""
        target = fresh.joinpath(*name.split("/"))
        if not target.resolve().is_relative_to(fresh.resolve()):
            raise PicoError(f"{repo_id}: {name!r} leaves its folder")
        for again in (False, True):
            download = lambda again=again: self._api.hf_hub_download(  # noqa: E731
                repo_id, name, revision=commit, local_dir=staging, force_download=again
            )
            place = Path(self._patience.call(f"{repo_id}: {name}", download))
            found = hash_content(place)
            right = found.sha256 == expected.sha256 if expected.sha256 else found.git == expected.git
            if right and found.bytes == expected.bytes and not place.is_symlink():
                target.parent.mkdir(parents=True, exist_ok=True)
                place.replace(target)
                return
        wanted, got = (expected.sha256, found.sha256) if expected.sha256 else (expected.git, found.git)
        raise PicoError(
            f"{repo_id}: {name} has changed: its hash is {got[:16]}, not {wanted[:16]}",
            "it was fetched twice and nothing of it was kept; `pico hub verify` looks at the whole series",
        )

    @contextmanager
    def _staging(self, beside: Path) -> Iterator[Path]:
        """An unfinished folder beside the place where files go, gone at the end."""
        beside.parent.mkdir(parents=True, exist_ok=True)
        folder = durable.temporary_sibling(beside)
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _belongs(name: str, what: str, parts: tuple[str, ...]) -> bool:
    """Whether a file of a commit of the original trainer is what its title says was saved, and is wanted."""
    if what == "HF Model":
        return "weights" in parts and ORIGINAL_MODEL_FILE.match(name) is not None
    split = what.removeprefix("Learning Dynamics Data (").removesuffix(")")
    return "learning_dynamics" in parts and re.match(rf"^learning_dynamics/{re.escape(split)}[_/]", name) is not None
