"""What the verbs share on the terminal: sentences and progress on stderr."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

stderr = Console(stderr=True, highlight=False, soft_wrap=True)


def say(sentence: str) -> None:
    """One plain sentence for the person, on stderr."""
    stderr.print(escape(sentence))


def say_next(command: str) -> None:
    """The next useful command, as the last line."""
    stderr.print(f"[bold]next:[/] {escape(command)}")


class TrainingProgress:
    """A bar with loss and speed on a terminal; one plain line per log row elsewhere."""

    def __init__(self, max_steps: int) -> None:
        self._bar = Progress(
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[facts]}"),
            TimeRemainingColumn(compact=True),
            console=stderr,
            disable=not stderr.is_terminal,
        )
        self._task: TaskID = self._bar.add_task("training", total=max_steps, facts="")
        self._max_steps = max_steps

    def __enter__(self) -> TrainingProgress:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.stop()

    def row(self, row: dict[str, Any]) -> None:
        facts = f"{_loss_in(row)}  {_short(row['tokens'])} tokens  {_short(row['tokens_per_second'])} tokens/s"
        if row.get("mfu") is not None:
            facts += f"  {row['mfu']:.1%} MFU"
        self._bar.update(self._task, facts=facts)
        if not stderr.is_terminal:
            say(f"step {row['step']}/{self._max_steps}  {facts}")

    def advance(self, step: int) -> None:
        self._bar.update(self._task, completed=step)

    def say(self, sentence: str) -> None:
        if not self._bar.live.is_started or stderr.is_terminal:
            self._bar.console.print(escape(sentence))
        else:
            say(sentence)


def _loss_in(row: dict[str, Any]) -> str:
    """The loss, or why there is none: the step did without the language model, or a number is not finite."""
    if row["loss"] is not None:
        return f"loss {row['loss']:.3f}"
    return "loss not finite" if row["gradient_norm"] is None else "no language-model step"


def _short(number: float) -> str:
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.3g}"
