"""The matrix variants x seeds: its places as the lock lists them, and how the run of each stands. Needs no torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

from picolm.base.errors import PicoError
from picolm.records.manifest import content
from picolm.records.rundir import RunDirectory
from picolm.records.studydir import StudyDirectory
from picolm.study.config import substance
from picolm.study.lock import LockedCell, Phase, StudyLock

Status = Literal["complete", "diverged", "crashed", "missing"]


@dataclass(frozen=True)
class Cell:
    """One place of the matrix, with its run."""

    variant: str
    seed: int
    phase: Phase
    run: RunDirectory
    """The run folder; it may not exist yet. Places with the same content share one."""
    overrides: tuple[str, ...]
    """`key=value` on the base configuration."""
    config_hash: str
    content: str
    value: Any = None
    """Value of the tuned setting; None where nothing is tuned."""
    control: str = ""
    """Name of the positive control this is a run of; empty otherwise."""
    status: Status = "missing"
    """complete; diverged: loss or gradient stopped being finite; crashed: ended otherwise; missing: not finished yet."""
    reason: str = ""
    """What is known of a run that did not complete."""

    @property
    def ended(self) -> bool:
        """Whether nothing more will come of it."""
        return self.status in ("complete", "diverged")


def all_cells(directory: StudyDirectory, lock: StudyLock) -> list[Cell]:
    """Every place that may be run: of a tuned variant one for each value of the grid."""
    return [_cell(directory, locked) for locked in lock.cells]


def cells(directory: StudyDirectory, lock: StudyLock) -> list[Cell]:
    """The places that count: all of the tuning phase, and of the others those with the value picked.

    Before every tuned variant has its value there are only places of the tuning phase.
    """
    everything = all_cells(directory, lock)
    tuning = lock.config.tuning
    if tuning is None:
        return everything
    picks = read_picks(directory, lock)
    if picks is None:
        return [cell for cell in everything if cell.phase == "tuning"]
    return [cell for cell in everything if cell.phase == "tuning" or cell.value == picks.get(cell.variant)]


def tuning_cells(directory: StudyDirectory, lock: StudyLock) -> list[Cell]:
    """The places on the tuning seeds with the values picked: what the noise is known from."""
    picks = read_picks(directory, lock) or {}
    return [cell for cell in all_cells(directory, lock) if cell.phase == "tuning" and cell.value == picks.get(cell.variant)]


def _cell(directory: StudyDirectory, locked: LockedCell) -> Cell:
    status, reason = status_of(directory, locked.run)
    return Cell(
        variant=locked.variant,
        seed=locked.seed,
        phase=locked.phase,
        run=directory.run(locked.run),
        overrides=locked.overrides,
        config_hash=locked.config_hash,
        content=locked.content,
        value=locked.value,
        control=locked.control,
        status=status,
        reason=reason,
    )


def status_of(directory: StudyDirectory, run: str) -> tuple[Status, str]:
    """How a run stands, by its receipt: (status, reason)."""
    path = directory.receipt(run)
    if not path.is_file():
        return "missing", ""
    try:
        receipt = json.loads(path.read_text(encoding="utf-8"))
        return receipt["status"], receipt["reason"]
    except (ValueError, KeyError, TypeError) as error:
        raise PicoError(f"{path} is damaged: {error}", "delete it: `pico study run` looks at the run again") from error


def read_picks(directory: StudyDirectory, lock: StudyLock) -> dict[str, Any] | None:
    """Variant -> value picked by tuning under this lock or a parent with the same tuning; None if it is not picked yet."""
    tuning = lock.config.tuning
    if tuning is None:
        return {}
    if not directory.tuning_file.is_file():
        return None
    record = json.loads(directory.tuning_file.read_text(encoding="utf-8"))
    if record["basis"] != tuning_basis(lock):
        return None
    return {variant: facts["value"] for variant, facts in record["picks"].items()}


def tuning_basis(lock: StudyLock) -> str:
    """Hash of what the picked values rest on: the tuning section and the places of the tuning phase."""
    places = [[cell.variant, cell.seed, cell.value, cell.content] for cell in lock.cells if cell.phase == "tuning"]
    declared = {key: value for key, value in substance(lock.config).items() if key.startswith(("tuning.", "measures."))}
    return content({"declared": declared, "places": places})
