"""What publishing would do, told before anything is sent: from local files alone."""

from __future__ import annotations

from dataclasses import dataclass

from picolm.hub.content import content_of_step, published_row
from picolm.hub.names import branch_of
from picolm.hub.outbox import Destination, Outbox
from picolm.hub.secrecy import refuse_secrets
from picolm.records.manifest import read_manifest


@dataclass(frozen=True)
class Plan:
    """What would be published."""

    destination: Destination
    branch: str
    steps: list[int]
    published: int
    files: dict[str, int]
    """Files of the next commit -> bytes."""
    total_bytes: int
    """Sealed files of all waiting steps in the chosen parts."""


def plan_sync(outbox: Outbox, destination: Destination, steps: list[int] | None = None) -> Plan:
    """What `sync` would do, from local files alone; nothing is written or sent."""
    run = outbox.run
    known = {entry.step: entry.commit for entry in outbox.entries()} if outbox.destination() == destination else {}
    chosen = [step for step in (run.steps() if steps is None else steps) if known.get(step) is None]
    files: dict[str, int] = {}
    if chosen:
        before = tuple(published_row(run, step, read_manifest(run.checkpoint(step))) for step in known if known[step])
        content = content_of_step(run, chosen[0], before, destination)
        refuse_secrets(content.files)
        files = {name: len(part) if isinstance(part, bytes) else part.stat().st_size for name, part in content.files.items()}
    manifests = [read_manifest(run.checkpoint(step)) for step in chosen]
    total = sum(
        record.bytes for manifest in manifests for part in destination.parts for record in manifest.parts.get(part, {}).values()
    )
    return Plan(destination, branch_of(run.name), chosen, len(known) - len([s for s in chosen if s in known]), files, total)
