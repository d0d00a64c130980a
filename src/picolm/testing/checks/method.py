"""What a training method promises: it learns, repeats and resumes bit for bit, and leaves the names of the plain model.

All of it on a decoder of 15,000 parameters and rows of 16 tokens: real runs, written and read as any other.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from picolm.records.manifest import read_manifest
from picolm.records.snapshot import open_snapshot, read_layout
from picolm.testing.checks.method_runs import MethodSubject, Steps, differing_columns, in_a_file
from picolm.testing.checks.settings import COMMON, examine, filled
from picolm.testing.findings import Broken, CheckList, Finding, NotApplicable
from picolm.testing.streams import left_alone
from picolm.testing.tiny import Workshop
from picolm.train.methods.contract import METHODS, TrainingMethod

METHOD_PROMISES = CheckList("training method", *COMMON)
_promise = METHOD_PROMISES.promise
LEARNT_NATS = 0.2
LONG_STEPS = 40
SEVERAL_PROCESSES = "two processes make the same updates as one"
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
}
"""Columns of the log that are the loop's."""


def check_method(
    kind: type[TrainingMethod],
    *,
    options: Mapping[str, Any] | None = None,
    workshop: Workshop | None = None,
    processes: bool = True,
) -> list[Finding]:
    """What a training method keeps of its promises.

    Give `options` under which everything special about the method happens within eight updates. `processes`: whether it is
    also run in two processes, which takes some ten seconds.
    """
    chosen = dict(options or {})
    leave_out = () if processes else (SEVERAL_PROCESSES,)
    with tempfile.TemporaryDirectory() as folder:
        place = workshop or Workshop(Path(folder))

        def subject() -> MethodSubject:
            return MethodSubject(kind, filled(kind, chosen, "training method"), place, Path(folder))

        return examine(METHOD_PROMISES, kind, chosen, subject, leave_out=leave_out)


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
    "its loss is one finite, detached number, and so is every series",
    why="a loss that still hangs on its graph keeps the memory of every step; a series that is not finite is a hole in the log.",
)
def _reports(subject: MethodSubject) -> str:
    steps = subject.steps("reports")
    for result in steps.take(4):
        for name, value in {"loss_sum": result.loss_sum, **result.series}.items():
            if isinstance(value, Tensor) and (value.numel() != 1 or value.requires_grad):
                raise Broken(f"{name} is a tensor of shape {tuple(value.shape)}, requires_grad={value.requires_grad}")
            if not torch.isfinite(torch.as_tensor(float(value))):
                raise Broken(f"{name} is {float(value)}")
    return f"series: {', '.join(steps.series) or 'none'}"


@_promise(
    "its series have names of their own",
    why="each series becomes a column of the log; one called `loss` would overwrite the loss that variants are compared by.",
)
def _series_names(subject: MethodSubject) -> None:
    steps = subject.steps("series")
    steps.take(4)
    if taken := sorted(set(steps.series) & OWN_COLUMNS):
        raise Broken(f"the log has columns of this name already: {', '.join(taken)}")


@_promise(
    "it leaves the random streams alone",
    why="dropout draws from the global stream: a method that draws there too trains another model than plain does, even where "
    "the method changes nothing. Make a torch.Generator from the seed `training.seeds.method`.",
)
def _leaves_streams_alone(subject: MethodSubject) -> None:
    steps = subject.steps("streams")
    with left_alone("draw from a torch.Generator of the method's own seed"):
        steps.take(4)


@_promise(
    "four micro-batches make the same updates as one",
    why="accumulation is a matter of memory; where it changes the result, two machines train two models. Losses are sums over "
    "tokens, divided by the tokens of the whole step.",
)
def _accumulates(subject: MethodSubject) -> str:
    whole = _weights_after(subject.steps("whole", training=_in_float64(accumulation=1)), 4)
    parts = _weights_after(subject.steps("parts", training=_in_float64(accumulation=4)), 4)
    worst = max(_relative(parts[name], whole[name]) for name in whole)
    if not worst < 1e-9:
        raise Broken(f"after four updates in float64 the weights differ by {worst:.1e} of their size")
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
    if mine == plain:
        return f"{len(plain)} tensors"
    only_mine, missing = sorted(mine.keys() - plain.keys()), sorted(plain.keys() - mine.keys())
    other = sorted(name for name in mine.keys() & plain.keys() if mine[name] != plain[name])
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
    SEVERAL_PROCESSES,
    why="more devices are a matter of speed: each process works on its rows, and the gradient is that of all.",
)
def _two_processes(subject: MethodSubject) -> str:
    changes = {"training": {**_in_float64(accumulation=1), "max_steps": 6}, "checkpointing": {"steps": [0, 6]}}
    one = subject.run("one", **changes)
    try:
        two = subject.run_in_processes("two", 2, **changes)
    except in_a_file.NotNameable as reason:
        raise NotApplicable(str(reason)) from reason
    first, second = (_final_weights(run.directory) for run in (one, two))
    worst = max(_relative(second[name], first[name]) for name in first)
    if not worst < 1e-6:
        raise Broken(f"after six updates in float64 the weights differ by {worst:.1e} of their size")
    losses = [[row["loss"] for row in run.rows] for run in (one, two)]
    apart = max(abs(a - b) for a, b in zip(*losses, strict=True))
    if not apart < 1e-6:
        raise Broken(f"the logged losses differ by up to {apart:.2g}")
    return f"largest relative difference of weights {worst:.1e}"


def _in_float64(*, accumulation: int) -> dict[str, Any]:
    return {"fabric": {"precision": "64-true"}, "optimization": {"gradient_accumulation_steps": accumulation}}


def _weights_after(steps: Steps, count: int) -> dict[str, Tensor]:
    steps.take(count)
    return {name: parameter.detach().clone() for name, parameter in steps.parts.model.named_parameters()}


def _relative(value: Tensor, expected: Tensor) -> float:
    size = float(expected.double().norm()) or 1.0
    return float((value.double() - expected.double()).norm()) / size


def _same(subject: MethodSubject, first: Any, second: Any, how: str) -> None:
    """Broken unless two runs left the same tensors, bit for bit, at every step both kept."""
    for step in first.directory.steps():
        expected, got = (_weights(run.directory, step) for run in (first, second))
        different = [name for name in expected if not torch.equal(expected[name], got[name])]
        if different:
            raise Broken(f"{how}: the weights of step {step} differ in {different[0]} and {len(different) - 1} more")


def _weights(run: Any, step: int) -> dict[str, Tensor]:
    return dict(open_snapshot(run.checkpoint(step), step, "train").weights)


def _final_weights(run: Any) -> dict[str, Tensor]:
    return _weights(run, max(run.steps()))


def _shapes(run: Any) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor of a checkpoint in the middle of the run, by kind and plain name."""
    step = sorted(run.steps())[-2]
    snapshot = open_snapshot(run.checkpoint(step), step, "train")
    kinds = {kind: snapshot.tensors(kind) for kind in ("weights", "activations", "gradients", "updates")}
    shapes = {f"{kind} of {name}": tuple(tensor.shape) for kind, tensors in kinds.items() for name, tensor in tensors.items()}
    layout = {f"layout of {name}": () for name in read_layout(run.checkpoint(step)).tensors}
    files = {f"file {name}": () for name in read_manifest(run.checkpoint(step)).parts["weights"]}
    return shapes | layout | files
