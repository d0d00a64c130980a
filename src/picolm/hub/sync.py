"""The uploader: takes checkpoints from the outbox and publishes each as one commit and one tag.

It keeps nothing in memory that matters. After any failure, kill or doubt it reads the branch again and compares manifests:
a commit whose answer was lost is found there, one that never arrived is made again, and finished files are not sent twice.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from picolm.base.errors import PicoError
from picolm.hub.content import KEPT_NAMES, Content, content_of_step, hash_results, results_of_run
from picolm.hub.names import MAIN, RESULTS_TITLE, branch_of, title_of
from picolm.hub.outbox import Outbox
from picolm.hub.page import publish_page
from picolm.hub.patience import Patience, status_of
from picolm.hub.remote import Refs, commits_by_step, is_missing, is_ours, read_index, read_refs, read_tree
from picolm.hub.secrecy import refuse_secrets
from picolm.hub.series import Published
from picolm.records.manifest import manifest_hash

if TYPE_CHECKING:
    from huggingface_hub import HfApi

Say = Callable[[str], None]


@dataclass(frozen=True)
class Branch:
    """The run's branch as last read: its newest commit and the series it holds."""

    head: str
    series: tuple[Published, ...]


class Uploader:
    """Publishes one run. `onto`: a commit by somebody else that may stand at the end of the branch."""

    def __init__(self, outbox: Outbox, api: HfApi, patience: Patience, say: Say, onto: str | None = None) -> None:
        self._outbox = outbox
        self._run = outbox.run
        self._api = api
        self._patience = patience
        self._say = say
        self._onto = onto
        self._destination = outbox.require_destination()
        self._repo_id = self._destination.repo_id
        self._name = branch_of(outbox.run.name)
        self._branch: Branch | None = None

    def publish_waiting(self) -> int:
        """Publish everything that waits, in order of steps; how many checkpoints that were."""
        self._outbox.queue_sealed()
        before = len(self._outbox.waiting())
        while waiting := self._outbox.waiting():
            self._patience.call(f"{self._repo_id}: step {waiting[0].step}", self._publish_next)
        return before

    def publish_results(self) -> bool:
        """Publish scores and log rows that came after the newest checkpoint; whether there were any."""
        return self._patience.call(f"{self._repo_id}: results", self._publish_results)

    def publish_page(self) -> bool:
        """Bring the run's line on the page of the repository up to date; whether it was not."""
        return self._patience.call(f"{self._repo_id}: page", lambda: publish_page(self._api, self._run, self._repo_id))

    def join_collection(self) -> None:
        """Add the repository to the collection asked for; being there already is fine."""
        slug = self._destination.collection_slug
        if slug is not None:
            add = lambda: self._api.add_collection_item(slug, self._repo_id, "model", exists_ok=True)  # noqa: E731
            self._patience.call(f"collection {slug}", add)

    def _publish_next(self) -> None:
        """One attempt; it may end anywhere."""
        branch, self._branch = self._branch or self._read_branch(), None
        waiting = self._outbox.waiting()
        if not waiting:  # all of it was there already
            self._branch = branch
            return
        entry = waiting[0]
        if branch.series and entry.step < branch.series[-1].step:
            raise PicoError(
                f"{self._repo_id}@{self._name} ends at step {branch.series[-1].step}; step {entry.step} cannot be put before it",
                "a published series only grows: publish the run under another name to have more steps",
            )
        content = content_of_step(self._run, entry.step, branch.series, self._destination)
        try:
            head = self._commit(branch, content.files, title_of(entry.step), _trailer(self._run.name, content.row))
        except Exception as error:
            if status_of(error) != 412:
                raise
            self._branch = self._branch_after(branch, error)
            return
        self._tag(content.row.tag, head)
        self._outbox.mark_published(entry.step, content.row.manifest, head)
        self._outbox.mark_results(_results_hash(content))
        self._branch = Branch(head, (*branch.series, content.row))
        self._say(f"step {entry.step} is published: {self._repo_id}, revision {content.row.tag}")

    def _branch_after(self, before: Branch, error: Exception) -> Branch:
        """The branch once it has moved: another uploader of this run is fine; PicoError if it was somebody else."""
        now = self._read_branch()
        if now.head == before.head:
            raise error
        return now

    def _publish_results(self) -> bool:
        branch, self._branch = self._branch or self._read_branch(), None
        if not branch.series:
            return False
        step = branch.series[-1].step
        index = read_index(self._api, self._repo_id, branch.head)
        if index is None:
            return False
        files = results_of_run(self._run, step, index, self._repo_id)
        now = hash_results(files)
        if now == self._outbox.require_destination().results:
            self._branch = branch
            return False
        refuse_secrets(files)
        head = self._send(branch.head, [_add(name, part) for name, part in files.items()], RESULTS_TITLE, "")
        self._outbox.mark_results(now)
        self._branch = Branch(head, branch.series)
        return head != branch.head

    def _commit(self, branch: Branch, files: dict[str, bytes | Path], title: str, description: str) -> str:
        """One commit that leaves exactly these files."""
        from huggingface_hub import CommitOperationDelete

        refuse_secrets(files)
        there = read_tree(self._api, self._repo_id, branch.head)
        stale = [path for path in there if path not in files and path not in KEPT_NAMES]
        operations: list[Any] = [_add(name, part) for name, part in files.items()]
        operations += [CommitOperationDelete(path_in_repo=path) for path in stale]
        return self._send(branch.head, operations, title, description)

    def _send(self, parent: str, operations: list[Any], title: str, description: str) -> str:
        """The commit made on top of `parent`, which must be the end of the branch."""
        made = self._api.create_commit(
            self._repo_id,
            operations,
            commit_message=title,
            commit_description=description,
            revision=self._name,
            parent_commit=parent,
        )
        return made.oid

    def _tag(self, tag: str, commit: str) -> None:
        """Tag a commit; a tag of this name that points elsewhere is an error."""
        try:
            self._api.create_tag(self._repo_id, tag=tag, revision=commit)
        except Exception as error:
            if status_of(error) != 409:
                raise
            there = read_refs(self._api, self._repo_id).tags.get(tag)
            if there != commit:
                raise PicoError(
                    f"{self._repo_id}: the tag {tag} points to {there}, not to {commit}",
                    "somebody moved it: delete the tag on the Hub",
                ) from None

    def _read_branch(self) -> Branch:
        """The branch as it is now, made if need be; entries that are there are marked, their tags mended."""
        refs = self._refs()
        if self._name not in refs.branches:
            self._refuse_vanished()
            self._api.create_branch(self._repo_id, branch=self._name, exist_ok=True)
            refs = self._refs()
        head = refs.branches[self._name]
        series = self._series(refs, head)
        self._mark_known(refs, series)
        return Branch(head, series)

    def _refs(self) -> Refs:
        try:
            return read_refs(self._api, self._repo_id)
        except Exception as error:
            if not is_missing(error):
                raise
        self._api.create_repo(self._repo_id, private=self._destination.private, exist_ok=True)
        return read_refs(self._api, self._repo_id)

    def _refuse_vanished(self) -> None:
        published = [entry for entry in self._outbox.entries() if entry.commit is not None]
        if published:
            raise PicoError(
                f"{self._repo_id}: the branch {self._name} is gone, which held {len(published)} published step(s)",
                f"to publish them again, delete {self._run.outbox} and repeat `pico hub push`",
            )

    def _series(self, refs: Refs, head: str) -> tuple[Published, ...]:
        """What the branch holds, if every bit of it is this run's; PicoError otherwise."""
        newest = self._api.list_repo_commits(self._repo_id, revision=self._name)[0]
        index = read_index(self._api, self._repo_id, head)
        if index is None:
            if self._onto == head or self._is_untouched(refs, head):
                return ()
            raise self._conflict(head, newest.title, "it holds something that is not a published run")
        if not is_ours(newest.title) and self._onto != head:
            raise self._conflict(head, newest.title, "somebody else committed to it")
        for row in index.series:
            if index.run != self._name or not self._is_local(row):
                raise self._conflict(head, newest.title, f"its step {row.step} is not the one of this run")
        return index.series

    def _is_untouched(self, refs: Refs, head: str) -> bool:
        """Whether the branch is a place on `main`, where new branches begin, which may have moved on since."""
        if MAIN not in refs.branches:
            return False
        return head == refs.branches[MAIN] or any(
            commit.commit_id == head for commit in self._api.list_repo_commits(self._repo_id, revision=MAIN)
        )

    def _is_local(self, row: Published) -> bool:
        """Whether a published step is the one here; one that is here no more is taken as it is."""
        folder = self._run.checkpoint(row.step)
        return row.step not in self._run.steps() or manifest_hash(folder) == row.manifest

    def _conflict(self, head: str, title: str, why: str) -> PicoError:
        ours = [entry for entry in self._outbox.entries() if entry.commit is not None]
        known = f"{ours[-1].commit} (step {ours[-1].step})" if ours else "nothing"
        return PicoError(
            f"{self._repo_id}: the branch {self._name} has moved: {why}\n"
            f"  there: {head} ({title!r})\n  last published from here: {known}",
            f"look at it; to go on top of it: pico hub sync {self._run.path} --onto {head}",
        )

    def _mark_known(self, refs: Refs, series: tuple[Published, ...]) -> None:
        """Steps of the branch are published, whether or not an answer ever came back."""
        known = {entry.step: entry.commit for entry in self._outbox.entries()}
        untold = [row for row in series if known.get(row.step) is None or row.tag not in refs.tags]
        if not untold:
            return
        commits = commits_by_step(self._api, self._repo_id, self._name)
        for row in untold:
            commit = commits[row.step][0]
            if row.tag not in refs.tags:
                self._tag(row.tag, commit)
            if row.step in known:
                self._outbox.mark_published(row.step, row.manifest, commit)


def _add(name: str, part: bytes | Path) -> Any:
    from huggingface_hub import CommitOperationAdd

    return CommitOperationAdd(path_in_repo=name, path_or_fileobj=part)


def _trailer(run: str, row: Published) -> str:
    """The end of a commit's message, for machines."""
    facts = {"run": run, "step": row.step, "tokens": row.tokens, "manifest": row.manifest, "parent": row.parent}
    return json.dumps({"picolm": facts})


def _results_hash(content: Content) -> str:
    from picolm.hub.series import INDEX_NAME

    checkpoint = json.loads(content.files[INDEX_NAME])["files"]  # type: ignore[arg-type]
    return hash_results({name: part for name, part in content.files.items() if name not in checkpoint and name != INDEX_NAME})
