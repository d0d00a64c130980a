"""Which steps get a checkpoint: a list, every n, or text such as `0,1,2,4..512,1000,2000..`."""

from __future__ import annotations

from collections.abc import Sequence

from picolm.base.errors import PicoError

SETTING = "checkpointing.steps"
HINT = "for example 0,1,2,4..512,1000,2000.. (doubling up to 512, then every 1000)"


def checkpoint_steps(chosen: Sequence[int] | str | None, every: int, max_steps: int) -> list[int]:
    """Ascending steps between 0 and `max_steps`; the first and the last are always among them."""
    if chosen is None:
        steps = set(range(0, max_steps + 1, every))
    elif isinstance(chosen, str):
        steps = set(expand_steps(chosen, max_steps))
    else:
        steps = set(chosen)
    return sorted({step for step in steps if step <= max_steps} | {0, max_steps})


def expand_steps(text: str, max_steps: int) -> list[int]:
    """The steps that a text means. `a,b,c..d` continues a, b, c by their common ratio or else their last difference."""
    steps: list[int] = []
    for piece in text.replace(" ", "").split(","):
        first, dots, last = piece.partition("..")
        steps.append(_number(first, text))
        if dots:
            steps += _continued(steps, _number(last, text) if last else max_steps, text)
    if steps != sorted(set(steps)):
        raise PicoError(f"{SETTING} = {text!r}: the steps do not ascend", HINT)
    return steps


def _continued(steps: Sequence[int], end: int, text: str) -> list[int]:
    if len(steps) < 2:
        raise PicoError(f"{SETTING} = {text!r}: two steps are needed before `..`", HINT)
    ratio = _common_ratio(steps[-3:])
    difference = steps[-1] - steps[-2]
    if difference <= 0:
        raise PicoError(f"{SETTING} = {text!r}: the steps do not ascend", HINT)
    more: list[int] = []
    following = steps[-1] * ratio if ratio else steps[-1] + difference
    while following <= end:
        more.append(following)
        following = following * ratio if ratio else following + difference
    return more


def _common_ratio(steps: Sequence[int]) -> int | None:
    if len(steps) < 3 or steps[0] == 0 or steps[1] % steps[0] or steps[1] * steps[1] != steps[0] * steps[2]:
        return None
    ratio = steps[1] // steps[0]
    return ratio if ratio > 1 else None


def _number(text: str, whole: str) -> int:
    if not text.isdecimal():
        raise PicoError(f"{SETTING} = {whole!r}: {text!r} is not a step", HINT)
    return int(text)
