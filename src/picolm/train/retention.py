"""What a run gives back to the disk: old training states, and what a killed process left half-written.

Weights and learning dynamics of scheduled steps are kept for ever; only states to continue from may go, and only once a
newer checkpoint has been read back and found whole.
"""

from __future__ import annotations

from picolm.records import durable
from picolm.records.manifest import verify
from picolm.records.rundir import CheckpointFolder, RunDirectory


def remove_old_training_states(directory: RunDirectory, keep: int | None) -> list[int]:
    """Remove the training state of all but the newest `keep` checkpoints; the steps it was removed from. None: keep all.

    Each folder vanishes in one step, so that a kill leaves it whole or gone: gone is what the manifest calls removed.
    """
    if keep is None:
        return []
    steps = directory.steps()
    old = [step for step in steps[:-keep] if CheckpointFolder(directory.checkpoint(step)).training_state.is_dir()]
    if not old:
        return []
    verify(directory.checkpoint(steps[-1]))
    for step in old:
        checkpoint = directory.checkpoint(step)
        durable.remove_folder(CheckpointFolder(checkpoint).training_state, aside=checkpoint)
    return old


def remove_leftovers(directory: RunDirectory) -> None:
    """Delete what a killed process did not finish. Only the holder of the run's lock may call this.

    Scores and tables are left alone: other processes may be writing them.
    """
    for folder in (directory.path, directory.log_file.parent, directory.checkpoints):
        durable.remove_leftovers(folder)
