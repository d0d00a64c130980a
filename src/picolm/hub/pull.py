"""Takes a published series back: each file is checked against the hashes that the series itself and the Hub give.

What is not data is not written, nothing is executed, and every path stays below its folder. A step appears whole or not
at all; what is there already is not fetched again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from picolm.base.errors import PicoError
from picolm.hub.fetch import Fetcher, staging_beside
from picolm.hub.names import DATA_ENDINGS, check_paths
from picolm.hub.patience import Patience, patience_of_a_person
from picolm.hub.remote import read_index
from picolm.hub.series import INDEX_NAME, FileHash, Index
from picolm.hub.survey import RemoteSeries, RemoteStep, find_series, one_series, split_address
from picolm.records import durable
from picolm.records.manifest import (
    MANIFEST_NAME,
    PARTS,
    FileRecord,
    Manifest,
    find_damage,
    manifest_hash,
    part_of,
    read_manifest,
)
from picolm.records.pulled import PULLED_NAME, Pulled, read_pulled, write_pulled
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


def pull_address(
    address: str, out: Path | None, choose: Callable[[RemoteSeries, int | None], Wanted], say: Say
) -> tuple[Path, RemoteSeries]:
    """Fetch what `choose` wants of the series at OWNER/NAME[@REVISION], told the series and the step that the revision names.

    Where it is now (`out`, else `runs/` and the name of the series), and the series.
    """
    from picolm.hub.client import connect

    repo_id, revision = split_address(address)
    api, patience = connect(), patience_of_a_person(say)
    series, step = one_series(patience.call(repo_id, lambda: find_series(api, repo_id, revision)), repo_id, revision)
    place = out or Path("runs", series.name.strip("-_/") or repo_id.split("/")[1])
    return Puller(api, patience, say).pull(series, place, choose(series, step)), series


class Puller:
    """Fetches files of one repository into a folder."""

    def __init__(self, api: HfApi, patience: Patience, say: Say) -> None:
        self._api = api
        self._patience = patience
        self._fetcher = Fetcher(api, patience)
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
        elif "weights" in wanted.parts:
            self._pull_revisions(series, out, steps)
        else:
            raise PicoError(
                f"{series.repo_id} holds plain model folders, and no {', '.join(wanted.parts)}",
                "pull the weights; `pico capture` takes learning dynamics of them",
            )
        return out

    def _pull_ours(self, series: RemoteSeries, run: RunDirectory, steps: list[RemoteStep], parts: tuple[str, ...]) -> None:
        assert series.index is not None
        check_run_name(series.index.run)
        manifests = {row.step: row.manifest for row in series.index.series}
        self._refuse_other_run(run, manifests)
        source = f"{series.repo_id}@{series.name}"
        for step in steps:
            folder = run.checkpoint(step.step)
            if not (folder / MANIFEST_NAME).is_file():
                self._pull_checkpoint(series.repo_id, step, manifests[step.step], folder, parts, source)
                self._say(f"step {step.step}: every file is what its manifest says")
            elif self._complete_checkpoint(series.repo_id, step, manifests[step.step], folder, parts):
                self._say(f"step {step.step}: the rest of it is what its manifest says")
            else:
                self._say(f"step {step.step} is here already")
        self._pull_files(series.repo_id, series.head, run.path, RUN_FILE, DATA_ENDINGS)

    def _refuse_other_run(self, run: RunDirectory, manifests: dict[int, str]) -> None:
        """A folder that holds another run is not mixed with this one."""
        for step in run.steps():
            if manifests.get(step, manifest_hash(run.checkpoint(step))) != manifest_hash(run.checkpoint(step)):
                raise PicoError(
                    f"{run.path} holds another run: its step {step} has another manifest", "choose another folder: --out DIR"
                )

    def _pull_checkpoint(
        self, repo_id: str, step: RemoteStep, manifest: str, folder: Path, parts: tuple[str, ...], source: str
    ) -> None:
        index = self._index(repo_id, step, manifest)
        with durable.new_folder(folder) as fresh, staging_beside(folder) as staging:
            self._fetcher.fetch(repo_id, step.commit, MANIFEST_NAME, index.files[MANIFEST_NAME], staging, fresh)
            sealed = self._sealed(repo_id, step, fresh)
            self._fetch_parts(repo_id, step, sealed, index, parts, staging, fresh)
            write_pulled(fresh, Pulled(source, _absent(fresh, sealed)))
            problems = find_damage(fresh, sealed, partial=True)
            if problems:
                raise PicoError(f"{repo_id}@{step.revision}: {problems[0]}", "nothing of it was kept")

    def _complete_checkpoint(self, repo_id: str, step: RemoteStep, manifest: str, folder: Path, parts: tuple[str, ...]) -> bool:
        """Fetch what an earlier pull left out and is wanted now, each file whole or not at all; whether there was any."""
        pulled = read_pulled(folder)
        if pulled is None or not any(_is_wanted(name, parts) for name in pulled.absent):
            return False
        index = self._index(repo_id, step, manifest)
        sealed = read_manifest(folder)
        with staging_beside(folder) as staging:
            fetched = self._fetch_parts(repo_id, step, sealed, index, parts, staging, folder)
        durable.flush_tree(folder)
        write_pulled(folder, Pulled(pulled.source, _absent(folder, sealed)))
        return fetched > 0

    def _index(self, repo_id: str, step: RemoteStep, manifest: str) -> Index:
        """The index of a step, if the step is the one that the series names."""
        source = f"{repo_id}@{step.revision}"
        index = self._patience.call(source, lambda: read_index(self._api, repo_id, step.commit))
        if index is None or not index.series or index.series[-1].manifest != manifest:
            raise PicoError(f"{source} is not step {step.step} of the series", "`pico hub verify` shows what is wrong with it")
        known = index.files.get(MANIFEST_NAME)
        if known is None or known.sha256 != manifest:
            raise PicoError(f"{source}: its {MANIFEST_NAME} is not the one the series names", "nothing of it was kept")
        return index

    def _sealed(self, repo_id: str, step: RemoteStep, fresh: Path) -> Manifest:
        """The manifest just fetched, if it is of this step and names nothing that may not be written."""
        source = f"{repo_id}@{step.revision}"
        sealed = read_manifest(fresh)
        if sealed.step != step.step:
            raise PicoError(f"{source}: its manifest is of step {sealed.step}", "nothing of it was kept")
        reserved = {MANIFEST_NAME, PULLED_NAME}.intersection(check_paths(list(_records(sealed)), source))
        if reserved:
            raise PicoError(f"{source}: its manifest lists {min(reserved)}, which is not a part of a checkpoint")
        return sealed

    def _fetch_parts(
        self,
        repo_id: str,
        step: RemoteStep,
        sealed: Manifest,
        index: Index,
        parts: tuple[str, ...],
        staging: Path,
        target: Path,
    ) -> int:
        """Fetch the published files of the parts that are not in the folder yet; how many they were."""
        wanted = [
            name
            for name in _records(sealed)
            if name in index.files and _is_wanted(name, parts) and not target.joinpath(*name.split("/")).exists()
        ]
        for name, record in _records(sealed).items():
            if name in wanted:
                self._fetcher.fetch(repo_id, step.commit, name, FileHash(record.bytes, record.sha256, ""), staging, target)
        return len(wanted)

    def _pull_original(self, series: RemoteSeries, run: RunDirectory, steps: list[RemoteStep], parts: tuple[str, ...]) -> None:
        """The layout that the original trainer has on disk; its training state is a pickle and stays where it is."""
        for step in steps:
            folder = run.checkpoint(step.step)
            with self._into(folder) as fresh, staging_beside(folder) as staging:
                for what, commit in step.saved.items():
                    tree = self._fetcher.tree(series.repo_id, commit)
                    names = [name for name in tree if _belongs(name, what, parts)]
                    self._fetcher.fetch_tree(series.repo_id, commit, tree, names, staging, fresh, ORIGINAL_ENDINGS)
            self._say(f"step {step.step}: every file is what the Hub's hashes say")
        self._pull_files(series.repo_id, series.head, run.path, ORIGINAL_RUN_FILE, DATA_ENDINGS)

    @contextmanager
    def _into(self, folder: Path) -> Iterator[Path]:
        """The folder itself if it is there, so that what is in it is not fetched again; else a new one that appears whole."""
        if folder.is_dir():
            yield folder
        else:
            with durable.new_folder(folder) as fresh:
                yield fresh

    def _pull_revisions(self, series: RemoteSeries, out: Path, steps: list[RemoteStep]) -> None:
        """One Hugging Face folder `step_<N>` per step, and `revisions.json` about where they come from."""
        origin = {"repository": series.repo_id, "steps": {}}
        for step in steps:
            folder = out / f"step_{step.step}"
            if not folder.is_dir():
                tree = self._fetcher.tree(series.repo_id, step.commit)
                names = [
                    name for name in tree if "/" not in name and PurePosixPath(name).suffix in DATA_ENDINGS and name != INDEX_NAME
                ]
                with durable.new_folder(folder) as fresh, staging_beside(folder) as staging:
                    self._fetcher.fetch_tree(series.repo_id, step.commit, tree, names, staging, fresh, DATA_ENDINGS)
            self._say(f"step {step.step}: every file is what the Hub's hashes say")
            origin["steps"][str(step.step)] = {"revision": step.revision, "commit": step.commit}  # type: ignore[index]
        durable.write_json(out / "revisions.json", origin)

    def _pull_files(self, repo_id: str, commit: str, out: Path, pattern: re.Pattern[str], endings: tuple[str, ...]) -> None:
        """The run's own records: those of the newest commit replace what is here."""
        tree = self._fetcher.tree(repo_id, commit)
        names = [name for name in tree if pattern.match(name)]
        out.mkdir(parents=True, exist_ok=True)
        with staging_beside(out / "records") as staging, staging_beside(out / "fetched") as fresh:
            self._fetcher.fetch_tree(repo_id, commit, tree, names, staging, fresh, endings)
            for name in names:
                durable.write_bytes(out.joinpath(*name.split("/")), fresh.joinpath(*name.split("/")).read_bytes())


def _records(sealed: Manifest) -> dict[str, FileRecord]:
    """Every file that a manifest lists."""
    return {name: record for files in sealed.parts.values() for name, record in files.items()}


def _is_wanted(name: str, parts: tuple[str, ...]) -> bool:
    """Whether a file belongs to the parts asked for; what says how to read the others always does."""
    return part_of(name) in parts or (part_of(name) == "weights" and not name.endswith(".safetensors"))


def _absent(folder: Path, sealed: Manifest) -> tuple[str, ...]:
    return tuple(name for name in _records(sealed) if not folder.joinpath(*name.split("/")).exists())


def _belongs(name: str, what: str, parts: tuple[str, ...]) -> bool:
    """Whether a file of a commit of the original trainer is what its title says was saved, and is wanted."""
    if what == "HF Model":
        return ORIGINAL_MODEL_FILE.match(name) is not None and _is_wanted(name, parts)
    split = what.removeprefix("Learning Dynamics Data (").removesuffix(")")
    return "learning_dynamics" in parts and re.match(rf"^learning_dynamics/{re.escape(split)}[_/]", name) is not None
