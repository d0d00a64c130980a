"""What a training method promises: it learns, repeats and resumes bit for bit, and leaves the names of the plain model.

All of it on a decoder of 15,000 parameters and rows of 16 tokens: real runs, written and read as any other.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from picolm.records.manifest import read_manifest
from picolm.records.rundir import RunDirectory
from picolm.records.snapshot import open_snapshot, read_layout
from picolm.testing.checks.in_a_file import NotNameable
from picolm.testing.checks.method_runs import MethodSubject, Steps, Trained, differing_columns
from picolm.testing.checks.settings import COMMON, examine, filled
from picolm.testing.findings import Broken, CheckList, Finding, NotApplicable
from picolm.testing.streams import draws_inside_forward
from picolm.testing.tiny import Workshop
from picolm.train.methods.contract import METHODS, SEVERAL_PROCESSES, TrainingMethod

METHOD_PROMISES = CheckList("training method", *COMMON)
_promise = METHOD_PROMISES.promise
LEARNT_NATS = 0.2
EIGHT, LONG_STEPS = 8, 40
TWO_PROCESSES = "two processes make the same updates as one"
OWN_COLUMNS = {
    "step",
    "tokens",
    "loss",
    "learning_rate",
    "gradient_norm",
    "skipped_updates",
    "clip_factor",
    "tokens_per_second",
    "step_seconds",
    "paused_seconds",
    "mfu",
    "flops",
    "method_tokens",
    "method_flops",
}
"""Columns of the log that are the loop's."""


def check_method(
    kind: type[TrainingMethod],
    *,
    options: Mapping[str, Any] | None = None,
    workshop: Workshop | None = None,
    processes: bool = True,
    leave_out: Iterable[str] = (),
) -> list[Finding]:
    """What a training method keeps of its promises.

    `options`: added to the method's `brief_options`, under which everything special happens within eight updates.
    `processes`: whether it is also run in two processes, which takes some ten seconds. `leave_out`: promises not examined.
    """
    brief = kind.brief_options if isinstance(kind, type) and issubclass(kind, TrainingMethod) else {}
    chosen = {**brief, **(options or {})}
    left_out = {*leave_out, *(() if processes else (TWO_PROCESSES,))}
    with tempfile.TemporaryDirectory() as folder:
        place = workshop or Workshop(Path(folder))

        def subject() -> MethodSubject:
            return MethodSubject(kind, filled(kind, chosen, "training method"), place, Path(folder))

        return examine(METHOD_PROMISES, kind, chosen, subject, leave_out=left_out)


@_promise(
    "it can be named in a training file",
    why="the loop finds a method by the text in `training.method` and talks to it through the hooks of `TrainingMethod` alone.",
)
def _is_a_method(subject: MethodSubject) -> str:
    if not (isinstance(subject.thing, type) and issubclass(subject.thing, TrainingMethod)):
        raise Broken("it is not a class that inherits from picolm.train.methods.contract.TrainingMethod")
    if METHODS.find(subject.reference) is not subject.thing:
        raise Broken(f"`{subject.reference}` leads to another object")
    return subject.reference


@_promise(
    "its loss is one finite, detached number, and every series is one in some step",
    why="a loss that still hangs on its graph keeps the memory of every step; a series that is never a number is an empty "
    "column. NaN says that a series has no value in a step, as between two measurements.",
)
def _reports(subject: MethodSubject) -> str:
    steps, seen = subject.steps("reports"), set()
    for result in steps.take(EIGHT):
        for name, value in {"loss_sum": result.loss_sum, **result.series}.items():
            if value is None:  # a step without a language-model loss says so
                continue
            if isinstance(value, Tensor) and (value.numel() != 1 or value.requires_grad):
                raise Broken(f"{name} is a tensor of shape {tuple(value.shape)}, requires_grad={value.requires_grad}")
            if math.isinf(float(value)) or (name == "loss_sum" and math.isnan(float(value))):
                raise Broken(f"{name} is {float(value)}")
            if not math.isnan(float(value)):
                seen.add(name)
    if never := sorted(set(steps.series) - seen):
        raise Broken(f"in eight updates there is no number for {', '.join(never)}")
    return f"series: {', '.join(steps.series) or 'none'}"


@_promise(
    "its series have names of their own",
    why="each series becomes a column of the log; one called `loss` would overwrite the loss that variants are compared by.",
)
def _series_names(subject: MethodSubject) -> None:
    steps = subject.steps("series")
    steps.take(EIGHT)
    if taken := sorted(set(steps.series) & OWN_COLUMNS):
        raise Broken(f"the log has columns of this name already: {', '.join(taken)}")


@_promise(
    "it draws from no random stream but its own",
    why="dropout draws from torch's stream, inside the forward pass: a method that draws there outside trains another model than "
    "plain does, even where it changes nothing. `draws_for` makes a stream from the seed of the run.",
)
def _leaves_streams_alone(subject: MethodSubject) -> None:
    steps = subject.steps("streams")
    with draws_inside_forward(steps.parts.model):
        steps.take(EIGHT)


@_promise(
    "four micro-batches make the same updates as one",
    why="accumulation is a matter of memory; where it changes the result, two machines train two models. Losses are sums over "
    "tokens, divided by the tokens of the whole step.",
)
def _accumulates(subject: MethodSubject) -> str:
    whole = _weights_after(subject.steps("whole", training=_in_float64(accumulation=1)), EIGHT)
    parts = _weights_after(subject.steps("parts", training=_in_float64(accumulation=4)), EIGHT)
    worst = max(_relative(parts[name], whole[name]) for name in whole)
    if not worst < 1e-9:
        raise Broken(f"after eight updates in float64 the weights differ by {worst:.1e} of their size")
    return f"largest relative difference {worst:.1e}"


@_promise(
    "it learns",
    why="whatever else it does, the model that is left must predict text better than the one it began with.",
)
def _learns(subject: MethodSubject) -> str:
    run = subject.run("long", training={"max_steps": LONG_STEPS}, checkpointing={"steps": [0, LONG_STEPS]}).directory
    first, last = (subject.val_loss(run.checkpoint(step)) for step in (0, LONG_STEPS))
    if not last < first - LEARNT_NATS:
        raise Broken(f"the loss on held-out text goes from {first:.3f} to {last:.3f} nats in {LONG_STEPS} updates")
    return f"from {first:.3f} to {last:.3f} nats per token in {LONG_STEPS} updates"


@_promise(
    "it does the same twice",
    why="a run is known by its seeds: without this no difference between two runs means anything.",
)
def _repeats(subject: MethodSubject) -> None:
    _same(subject, subject.run("run"), subject.run("again", foreign_seed=7), "the same configuration run twice")


@_promise(
    "a run that was interrupted ends bit for bit where an uninterrupted one does",
    why="machines stop. What the method remembers between updates must be in its state, or the run after a restart is another.",
)
def _resumes(subject: MethodSubject) -> None:
    whole, resumed = subject.run("run"), subject.run("resumed", interrupt_at=subject.interruptions)
    _same(subject, whole, resumed, "interrupted and resumed")
    if columns := differing_columns(whole.rows, resumed.rows):
        raise Broken(f"interrupted and resumed, the log differs in {', '.join(columns)}")


@_promise(
    "observing does not disturb it",
    why="snapshots run passes of their own; what is seen must be the training as it would have been unseen.",
)
def _observed(subject: MethodSubject) -> None:
    unseen = subject.run("unseen", checkpointing={"learning_dynamics": {"enabled": False}})
    _same(subject, subject.run("run"), unseen, "with snapshots switched off")


@_promise(
    "its checkpoints and snapshots have the names and shapes of plain training",
    why="analysis, export and reports compare variants by name; a tensor that one variant calls differently drops out.",
)
def _plain_names(subject: MethodSubject) -> str:
    mine, plain = _shapes(subject.run("run").directory), _shapes(subject.plain_run("plain").directory)
    # A pass without labels has outputs of the head, which the loss of plain training never makes.
    only_mine = sorted(name for name in mine.keys() - plain.keys() if not name.startswith("activations of "))
    missing = sorted(plain.keys() - mine.keys())
    other = sorted(name for name in mine.keys() & plain.keys() if mine[name] != plain[name])
    if not only_mine and not missing and not other:
        return f"{len(plain)} tensors"
    raise Broken(f"only here: {only_mine[:3]}; missing: {missing[:3]}; of another shape: {other[:3]}")


@_promise(
    "the model in a checkpoint is the model that was trained",
    why="what is published, evaluated and analysed is the checkpoint; adapters and heads that are not folded in are lost.",
)
def _reloads(subject: MethodSubject) -> str:
    run = subject.run("run")
    live, stored = subject.restored_model(run), subject.stored_model(run)
    tokens_BT = subject.val_tokens()[:4, :-1]
    with torch.no_grad():
        difference = float((live(tokens_BT) - stored(tokens_BT)).abs().max())
    if not difference < 1e-4:
        raise Broken(f"logits of the training model and of its checkpoint differ by up to {difference:.2g}")
    return f"largest difference of logits {difference:.1e}"


@_promise(
    TWO_PROCESSES,
    why="more devices are a matter of speed: each process works on its rows, and the gradient is that of all.",
)
def _two_processes(subject: MethodSubject) -> str:
    if SEVERAL_PROCESSES not in subject.thing.supports:
        raise NotApplicable("it says that it works in one process only")
    changes: dict[str, Any] = {"training": {**_in_float64(accumulation=1), "max_steps": 6}, "checkpointing": {"steps": [0, 6]}}
    one = subject.run("one", **changes)
    try:
        two = subject.run_in_processes("two", 2, **changes)
    except NotNameable as reason:
        raise NotApplicable(str(reason)) from reason
    first, second = (_final_weights(run.directory) for run in (one, two))
    worst = max(_relative(second[name], first[name]) for name in first)
    if not worst < 1e-6:
        raise Broken(f"after six updates in float64 the weights differ by {worst:.1e} of their size")
    for first_row, second_row in zip(one.rows, two.rows, strict=True):
        before, after = first_row["loss"], second_row["loss"]
        if (before is None) != (after is None) or abs((before or 0.0) - (after or 0.0)) > 1e-6:
            raise Broken(f"the logged loss of step {first_row['step']} is {before} in one process and {after} in two")
    return f"largest relative difference of weights {worst:.1e}"


def _in_float64(*, accumulation: int) -> dict[str, Any]:
    return {"fabric": {"precision": "64-true"}, "optimization": {"gradient_accumulation_steps": accumulation}}


def _weights_after(steps: Steps, count: int) -> dict[str, Tensor]:
    steps.take(count)
    return {name: parameter.detach().clone() for name, parameter in steps.parts.model.named_parameters()}


def _relative(value: Tensor, expected: Tensor) -> float:
    size = float(expected.double().norm()) or 1.0
    return float((value.double() - expected.double()).norm()) / size


def _same(subject: MethodSubject, first: Trained, second: Trained, how: str) -> None:
    """Broken unless two runs left the same tensors, bit for bit, at every step both kept."""
    for step in first.directory.steps():
        expected, got = (_weights(run.directory, step) for run in (first, second))
        different = [name for name in expected if not torch.equal(expected[name], got[name])]
        if different:
            raise Broken(f"{how}: the weights of step {step} differ in {different[0]} and {len(different) - 1} more")


def _weights(run: RunDirectory, step: int) -> dict[str, Tensor]:
    return dict(open_snapshot(run.checkpoint(step), step, "train").weights)


def _final_weights(run: RunDirectory) -> dict[str, Tensor]:
    return _weights(run, max(run.steps()))


def _shapes(run: RunDirectory) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor of a checkpoint in the middle of the run, by kind and plain name."""
    step = sorted(run.steps())[-2]
    snapshot = open_snapshot(run.checkpoint(step), step, "train")
    kinds = {kind: snapshot.tensors(kind) for kind in ("weights", "activations", "gradients", "updates")}
    shapes = {f"{kind} of {name}": tuple(tensor.shape) for kind, tensors in kinds.items() for name, tensor in tensors.items()}
    layout: dict[str, tuple[int, ...]] = {f"layout of {name}": () for name in read_layout(run.checkpoint(step)).tensors}
    files: dict[str, tuple[int, ...]] = {f"file {name}": () for name in read_manifest(run.checkpoint(step)).parts["weights"]}
    return shapes | layout | files
