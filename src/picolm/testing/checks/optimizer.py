"""What an optimiser promises: it goes downhill at the schedule's rate, and its state survives a restart bit for bit."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from picolm.testing.checks.settings import COMMON, examine, filled
from picolm.testing.findings import Broken, CheckList, Finding
from picolm.testing.streams import left_alone, seeded
from picolm.train.state import copy_state, read_state, restore_optimizer, write_state

OPTIMIZER_PROMISES = CheckList("optimizer", *COMMON)
SHAPES = {
    "embedding_proj.weight": (12, 8),
    "layers.0.attention_norm.weight": (8,),
    "layers.0.attention.q_proj.weight": (8, 8),
    "layers.0.swiglu.w_0.weight": (16, 8),
    "de_embedding_proj.weight": (12, 8),
}
"""The sorts of parameter a decoder has, named as it names them."""
RATES = (0.001, 0.01, 0.1)
_promise = OPTIMIZER_PROMISES.promise


@dataclass(frozen=True)
class OptimizerSubject:
    """A builder of optimisers with the options it is examined with."""

    thing: Callable[..., torch.optim.Optimizer]
    options: Mapping[str, Any]

    def begin(self, *, lr: float = 0.01) -> Descent:
        """The parameters of a small problem and an optimiser over them."""
        draw = torch.Generator().manual_seed(0)
        named = {name: nn.Parameter(torch.randn(shape, generator=draw)) for name, shape in SHAPES.items()}
        goal = {name: torch.randn(shape, generator=draw) for name, shape in SHAPES.items()}
        return Descent(named, goal, self.thing(named.items(), **{**self.options, "lr": lr}))


@dataclass(frozen=True)
class Descent:
    """Parameters on their way to a goal: the loss is half the squared distance, the gradient the distance."""

    named: dict[str, nn.Parameter]
    goal: dict[str, Tensor]
    optimizer: torch.optim.Optimizer

    @property
    def loss(self) -> float:
        return sum(float((self.named[name].detach() - self.goal[name]).square().sum()) / 2 for name in self.named)

    def step(self, count: int = 1) -> Descent:
        """`count` updates."""
        for _ in range(count):
            for name, parameter in self.named.items():
                parameter.grad = parameter.detach() - self.goal[name]
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
        return self

    def values(self) -> dict[str, Tensor]:
        """Copies of the parameters."""
        return {name: parameter.detach().clone() for name, parameter in self.named.items()}

    @property
    def names(self) -> dict[int, str]:
        """id of a parameter -> its name."""
        return {id(parameter): name for name, parameter in self.named.items()}


def check_optimizer(builder: Callable[..., torch.optim.Optimizer], *, options: Mapping[str, Any] | None = None) -> list[Finding]:
    """What an optimiser keeps of its promises. `builder(named_parameters, *, lr, ...)` returns a torch optimiser."""
    chosen = {"lr": 0.01, **(options or {})}
    return examine(OPTIMIZER_PROMISES, builder, chosen, lambda: OptimizerSubject(builder, filled(builder, chosen, "optimizer")))


@_promise(
    "it has every parameter in exactly one group",
    why="a parameter in no group is never trained, without a word; one in two groups is updated twice.",
)
def _groups(subject: OptimizerSubject) -> str:
    descent = subject.begin()
    if not isinstance(descent.optimizer, torch.optim.Optimizer):
        raise Broken(f"it returns a {type(descent.optimizer).__name__}, not a torch.optim.Optimizer")
    grouped = [id(parameter) for group in descent.optimizer.param_groups for parameter in group["params"]]
    missing = [name for number, name in descent.names.items() if number not in grouped]
    twice = [name for number, name in descent.names.items() if grouped.count(number) > 1]
    if missing or twice:
        raise Broken(f"left out: {', '.join(missing) or 'none'}; twice: {', '.join(twice) or 'none'}")
    return f"{len(descent.optimizer.param_groups)} group(s)"


@_promise(
    "it goes downhill on a quadratic",
    why="the simplest problem there is: where the loss does not fall here, it falls nowhere.",
)
def _descends(subject: OptimizerSubject) -> str:
    reached = {}
    for lr in RATES:
        descent = subject.begin(lr=lr)
        before = descent.loss
        reached[lr] = descent.step(200).loss / before
    best = min(reached, key=lambda lr: reached[lr])
    if not reached[best] < 0.5:
        shares = ", ".join(f"{share:.3g} at lr {lr}" for lr, share in reached.items())
        raise Broken(f"after 200 updates the loss over the loss before is {shares}")
    return f"the loss falls to {reached[best]:.2g} of itself in 200 updates at lr {best}"


@_promise(
    "it follows the learning rate of its groups",
    why="the schedule writes `lr` into every group before each update; an optimiser that keeps the first one has no schedule.",
)
def _follows_rate(subject: OptimizerSubject) -> None:
    descent = subject.begin().step(3)
    before = descent.values()
    for group in descent.optimizer.param_groups:
        group["lr"] = 0.0
    descent.step()
    moved = [name for name, value in descent.values().items() if not torch.equal(value, before[name])]
    if moved:
        raise Broken(f"with lr 0 in every group these still move: {', '.join(moved)}")


@_promise(
    "it continues bit for bit from its saved state",
    why="a run that was stopped and resumed must equal one that was not: the state goes through safetensors and JSON, names "
    "and all, into a new optimiser.",
)
def _round_trip(subject: OptimizerSubject) -> str:
    whole, stopped, resumed = subject.begin(), subject.begin(), subject.begin()
    stopped.step(3)
    state = copy_state(
        step=3,
        tokens=0,
        skipped=0,
        optimizer=stopped.optimizer,
        names=stopped.names,
        generators=[],
    )
    with tempfile.TemporaryDirectory() as folder:
        write_state(Path(folder) / "state", state)
        saved = read_state(Path(folder) / "state")
    for name, value in stopped.values().items():
        resumed.named[name].data.copy_(value)
    restore_optimizer(resumed.optimizer, resumed.names, saved)
    expected, got = whole.step(8).values(), resumed.step(5).values()
    different = [name for name in expected if not torch.equal(expected[name], got[name])]
    if different:
        raise Broken(f"stopped after 3 of 8 updates and resumed, these end elsewhere: {', '.join(different)}")
    return f"{len(saved.optimizer_tensors)} tensors of state"


@_promise(
    "it does the same twice",
    why="the same seed must give the same run; an optimiser that draws from a global random stream makes it depend on what "
    "else was drawn.",
)
def _repeats(subject: OptimizerSubject) -> None:
    ends = []
    for seed in (1, 2):
        with seeded(seed):
            ends.append(subject.begin().step(5).values())
    different = [name for name in ends[0] if not torch.equal(ends[0][name], ends[1][name])]
    if different:
        raise Broken(f"five updates from the same start end elsewhere: {', '.join(different)}")


@_promise("it leaves the random streams alone", why="a draw would shift every later draw of dropout in the run.")
def _leaves_streams_alone(subject: OptimizerSubject) -> None:
    with left_alone():
        subject.begin().step(3)


@_promise(
    "it passes over a parameter without a gradient",
    why="a method may freeze parameters; they must stay as they are, and the step must not fail.",
)
def _without_gradient(subject: OptimizerSubject) -> None:
    descent = subject.begin()
    frozen = "layers.0.attention.q_proj.weight"
    before = descent.values()[frozen]
    for name, parameter in descent.named.items():
        parameter.grad = None if name == frozen else parameter.detach() - descent.goal[name]
    descent.optimizer.step()
    if not torch.equal(descent.named[frozen], before):
        raise Broken(f"{frozen} had no gradient and moved")
