"""TensorBoard and Weights & Biases beside the log: they are told what the log is told, and cannot harm the run.

Whatever goes wrong in one of them is said once, and that one is told nothing more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from picolm.base.config import flatten
from picolm.base.errors import PicoError
from picolm.base.wandb_login import wandb_is_online
from picolm.records.rundir import RunDirectory
from picolm.train.config import RunConfig
from picolm.train.run import Observer

Track = Callable[[dict[str, Any]], None]
"""Takes a row of the log."""


class TrackedObserver:
    """An observer whose rows also go to trackers."""

    def __init__(self, observer: Observer, trackers: dict[str, Track]) -> None:
        self._observer = observer
        self._trackers = trackers

    def row(self, row: dict[str, Any]) -> None:
        self._observer.row(row)
        for name in list(self._trackers):
            self._attempt(name, row)

    def advance(self, step: int) -> None:
        self._observer.advance(step)

    def say(self, sentence: str) -> None:
        self._observer.say(sentence)

    def _attempt(self, name: str, row: dict[str, Any]) -> None:
        try:
            self._trackers[name](row)
        except Exception as error:  # foreign code: whatever it raises, the run goes on
            del self._trackers[name]
            self._observer.say(f"note: {name} failed and is told nothing more: {error}; logs/train.jsonl has every row")


@contextmanager
def tracked(config: RunConfig[Any], directory: RunDirectory, observer: Observer) -> Iterator[Observer]:
    """The observer, with the trackers that `monitoring` asks for opened now and closed at the end."""
    openers: dict[str, Callable[[], tuple[Track, Callable[[], None]]]] = {}
    if config.monitoring.tensorboard:
        openers["TensorBoard"] = lambda: open_tensorboard(directory)
    if config.monitoring.save_to_wandb:
        openers["Weights & Biases"] = lambda: open_wandb(config, directory, observer.say)
    trackers: dict[str, Track] = {}
    closers: dict[str, Callable[[], None]] = {}
    for name, opener in openers.items():
        try:
            trackers[name], closers[name] = opener()
        except Exception as error:  # foreign code
            observer.say(f"note: {name} cannot be used: {error}; the run goes on without it")
    try:
        yield TrackedObserver(observer, trackers)
    finally:
        for name, close in closers.items():
            try:
                close()
            except Exception as error:  # foreign code
                observer.say(f"note: {name} failed while closing: {error}")


def open_tensorboard(directory: RunDirectory) -> tuple[Track, Callable[[], None]]:
    """Rows as scalars in the folder `tensorboard` of the run."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise PicoError("the package tensorboard is not installed: pip install 'picolm[tensorboard]'") from error
    writer = SummaryWriter(str(directory.tracker_folder("tensorboard")))

    def track(row: dict[str, Any]) -> None:
        for name, value in numbers(row).items():
            writer.add_scalar(name, value, row["step"])

    return track, writer.close


def open_wandb(config: RunConfig[Any], directory: RunDirectory, say: Callable[[str], None]) -> tuple[Track, Callable[[], None]]:
    """Rows to Weights & Biases; without a login offline, in the folder `wandb` of the run."""
    try:
        import wandb
    except ImportError as error:
        raise PicoError("the package wandb is not installed: pip install 'picolm[wandb]'") from error
    online = wandb_is_online()
    if not online:
        folder = directory.tracker_folder("wandb")
        say(f"no Weights & Biases login: rows are logged offline below {folder}; `wandb sync` sends them")
    directory.tracker_folder("wandb").mkdir(parents=True, exist_ok=True)
    run = wandb.init(
        project=config.monitoring.wandb.project or "picolm",
        entity=config.monitoring.wandb.entity or None,
        name=directory.name,
        id=directory.name,
        resume="allow" if online else None,
        mode="online" if online else "offline",
        dir=str(directory.path),
        config=flatten(config),
        settings=wandb.Settings(silent=True),
    )

    def track(row: dict[str, Any]) -> None:
        run.log(numbers(row), step=row["step"])

    return track, run.finish


def numbers(row: dict[str, Any]) -> dict[str, float]:
    """What of a row can be drawn: everything that is a number, except the step itself."""
    return {name: value for name, value in row.items() if name != "step" and isinstance(value, int | float)}
