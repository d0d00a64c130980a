"""Publishing while training: checkpoints are queued on disk as they are sealed, and another process sends them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from picolm.base.errors import PicoError
from picolm.hub.background import Publication
from picolm.hub.names import branch_of, check_collection, check_repo_id
from picolm.hub.outbox import Destination
from picolm.hub.secrecy import secret_setting
from picolm.train.config import RunConfig
from picolm.train.run import Parts


class Publishing(Protocol):
    """What a run tells of its checkpoints."""

    def on_sealed(self, step: int) -> None:
        """A checkpoint stands on disk."""

    def finish(self) -> None:
        """The run is complete."""


class Unpublished:
    """Keeps everything at home."""

    def on_sealed(self, step: int) -> None:
        """Nothing."""

    def finish(self) -> None:
        """Nothing."""


def destination_of(config: RunConfig[Any]) -> Destination | None:
    """Where the run is published, from `checkpointing`; None if it is not; PicoError if that cannot be."""
    kept = config.checkpointing
    if not kept.save_to_hf:
        return None
    setting = "checkpointing.hf_checkpoint.repo_id"
    if not kept.hf_checkpoint.repo_id:
        raise PicoError(
            f"checkpointing.save_to_hf is on, and {setting} is empty",
            f"--set {setting}=OWNER/NAME, or keep the run here: --set checkpointing.save_to_hf=false",
        )
    branch_of(config.run_name)
    slug = kept.hf_checkpoint.collection_slug
    return Destination(check_repo_id(kept.hf_checkpoint.repo_id, setting), None if slug is None else check_collection(slug))


def refuse_secrets_in(config: RunConfig[Any]) -> None:
    """PicoError if a setting holds a token or a key: the configuration is written into the run, logged and published."""
    found = secret_setting(config.model_dump(mode="json"))
    if found:
        raise PicoError(
            f"{found[0]} holds {found[1]}; it would be written into the run",
            "take it out and revoke it: tokens come from the environment (HF_TOKEN, WANDB_API_KEY) or from `hf auth login`",
        )


@contextmanager
def publishing(parts: Parts, destination: Destination | None, say: Callable[[str], None]) -> Iterator[Publishing]:
    """What the checkpoints of a run are told to while the block runs; its uploader ends with the block."""
    if destination is None or not parts.fabric.is_global_zero:
        yield Unpublished()
        return
    publication = Publication(parts.directory, destination, say)
    publication.begin()
    try:
        yield publication
    finally:
        publication.close()
