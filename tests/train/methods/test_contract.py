"""What the loop does with the answers of a method: extra terms, steps without a loss, values between rows, state, refusals."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from picolm.base.errors import PicoError
from picolm.model.contract import LanguageModel
from picolm.records.rundir import RunDirectory
from picolm.train.methods.contract import (
    METHODS,
    MethodState,
    RunFacts,
    Series,
    StepBatch,
    StepResult,
    TrainingMethod,
    draws_for,
)
from picolm.train.methods.language_model import language_model_step
from picolm.train.methods.plain import Plain
from picolm.train.setup import build_fabric, initial_model, loss_scale_of
from picolm.train.state import copy_state, read_state, write_state
from picolm.train.train import run_training

from ..conftest import ConfigMaker
from ..recording import Recording, all_equal, weights


class Alternating(TrainingMethod):
    """Odd updates pull the weights to zero and have no language-model loss; keeps a tensor and a tensor of each process."""

    supports = frozenset()

    def begin_run(self, facts: RunFacts) -> None:
        self.rows = facts.rows_of_step
        self.mean = torch.zeros(2)

    def forward_backward(self, model: nn.Module, batch: StepBatch, fabric: Any) -> StepResult:
        if batch.step % 2 == 0:
            return language_model_step(model, batch, fabric)
        decay = sum(parameter.square().sum() for parameter in model.parameters()) / 1000
        fabric.backward(decay * (torch.inf if batch.step == 5 else 1.0))
        return StepResult(None, {"decay": decay.detach()}, method_tokens=7, method_flops=100.0)

    def after_update(self, step: int, model: LanguageModel, optimizer: Any, *, applied: bool) -> Series:
        self.mean += self.rows(step).float().mean() * (1 if applied else -1)
        return {"seen_after": float(step), f"once_{step}": 1.0}

    def state(self, model: LanguageModel) -> MethodState:
        return MethodState({"words": ["a"]}, {"mean": self.mean}, {"own": self.mean * 2})

    def restore(self, state: MethodState, model: LanguageModel) -> None:
        assert state.values == {"words": ["a"]}
        assert torch.equal(state.process_tensors["own"], state.tensors["mean"] * 2)
        self.mean = state.tensors["mean"].clone()


@pytest.fixture
def alternating(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    METHODS.entries()
    monkeypatch.setattr(METHODS, "_entries", dict(METHODS._entries))
    METHODS.register("alternating")(Alternating)
    return {"method": "alternating"}


def test_a_step_without_a_language_model_loss_has_none_in_the_log_and_counts_apart(
    make_config: ConfigMaker, alternating: dict[str, Any]
):
    observer = Recording()
    run_training(make_config(training=alternating), observer)
    rows = {row["step"]: row for row in observer.rows}
    assert [rows[made]["loss"] is None for made in range(1, 9)] == [False, True] * 4
    assert "decay" not in rows[1]
    assert rows[2]["decay"] > 0
    assert [rows[made]["tokens"] for made in range(1, 9)] == [128, 128, 256, 256, 384, 384, 512, 512]
    assert [rows[made]["method_tokens"] for made in (1, 2, 8)] == [0, 7, 28]
    assert rows[8]["method_flops"] == 400.0
    assert rows[8]["flops"] == 4 * rows[1]["flops"] + 400.0


def test_the_guard_looks_at_the_gradient_where_there_is_no_loss(make_config: ConfigMaker, alternating: dict[str, Any]):
    observer = Recording()
    run_training(make_config(training=alternating), observer)
    assert [row["skipped_updates"] for row in observer.rows] == [0, 0, 0, 0, 0, 1, 1, 1]


def test_what_is_said_between_two_rows_is_in_the_next(make_config: ConfigMaker, alternating: dict[str, Any]):
    observer = Recording()
    run_training(make_config(training=alternating, monitoring={"logging": {"log_every_n_steps": 4}}), observer)
    assert [row["step"] for row in observer.rows] == [1, 4, 8]
    assert [row["seen_after"] for row in observer.rows] == [0.0, 3.0, 7.0]
    assert {name for name in observer.rows[1] if name.startswith("once")} == {"once_1", "once_2", "once_3"}


def test_state_of_tensors_and_of_each_process_survives_an_interruption(make_config: ConfigMaker, alternating: dict[str, Any]):
    whole = run_training(make_config("whole", training=alternating), Recording()).run
    run_training(make_config("parts", training=alternating), Recording(stop_at=3))
    resumed = run_training(make_config("parts", training=alternating), Recording()).run
    state = RunDirectory(resumed).checkpoint(8) / "training_state"
    assert {"method.safetensors", "method_rank0.safetensors"} <= {path.name for path in state.iterdir()}
    assert all_equal(weights(whole, 8), weights(resumed, 8))
    first, second = (read_state(RunDirectory(run).checkpoint(8) / "training_state") for run in (whole, resumed))
    assert torch.equal(first.method_tensors["mean"], second.method_tensors["mean"])
    assert first.method_tensors["mean"].any()


def test_tensors_of_single_processes_come_back_to_as_many_processes_only(tmp_path: Path):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))])
    own = [{"buffer": torch.tensor([float(rank)])} for rank in range(2)]
    names = {id(optimizer.param_groups[0]["params"][0]): "p"}
    generators = [{"cpu": torch.get_rng_state()} for _ in range(2)]
    state = copy_state(
        step=1,
        tokens=2,
        skipped=0,
        optimizer=optimizer,
        names=names,
        method_state=MethodState(process_tensors=own[0]),
        generators=generators,
        method_of_processes=own,
    )
    write_state(tmp_path / "state", state)
    read = read_state(tmp_path / "state")
    assert float(read.method_state(rank=1, world=2).process_tensors["buffer"]) == 1.0
    assert read.method_state(rank=0, world=3).process_tensors == {}


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [({"compile": True}, "does not support compile"), ({"fabric": {"num_devices": 2}}, "does not support several processes")],
)
def test_a_way_to_run_that_the_method_does_not_support_is_refused(
    make_config: ConfigMaker,
    alternating: dict[str, Any],
    changes: dict[str, Any],
    complaint: str,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("lightning_fabric.Fabric.launch", lambda self: None)
    with pytest.raises(PicoError, match=complaint):
        run_training(make_config(training={**alternating, **changes}), Recording())


def test_an_extra_term_adds_its_gradient_once_however_the_step_is_cut(make_config: ConfigMaker):
    config = make_config()
    fabric = build_fabric(config, Plain(), loss_scale_of(config))
    tokens_BT = torch.randint(0, 320, (8, 17), generator=torch.Generator().manual_seed(1))
    gradients: list[Mapping[str, Tensor]] = []
    for parts in (1, 4):
        model = initial_model(config)
        head = model.get_parameter("de_embedding_proj.weight")
        batch = StepBatch(0, tokens_BT.chunk(parts), 8 * 16)

        def penalty(head: Tensor = head) -> dict[str, Tensor]:
            return {"size": head.square().mean(), "sum": head.sum() / 100}

        result = language_model_step(fabric.setup_module(model), batch, fabric, penalty)
        assert result.series.keys() == {"size", "sum"}
        assert not result.series["size"].requires_grad  # type: ignore[union-attr]
        gradients.append({name: parameter.grad.clone() for name, parameter in model.named_parameters()})  # type: ignore[union-attr]
    model = initial_model(config)
    head = model.get_parameter("de_embedding_proj.weight")
    loss = model.loss_sum(tokens_BT[:, :-1], tokens_BT[:, 1:]) / 128 + head.square().mean() + head.sum() / 100
    loss.backward()
    for name, parameter in model.named_parameters():
        for found in gradients:
            torch.testing.assert_close(found[name], parameter.grad, rtol=1e-4, atol=1e-7)


def test_draws_depend_on_their_key_alone_and_leave_the_global_stream():
    before = torch.get_rng_state()
    first = torch.rand(4, generator=draws_for(1, "a", 2, 3))
    torch.rand(9, generator=draws_for(2, "b"))
    assert torch.equal(first, torch.rand(4, generator=draws_for(1, "a", 2, 3)))
    others = [draws_for(2, "a", 2, 3), draws_for(1, "b", 2, 3), draws_for(1, "a", 3, 2), draws_for(1, "a", 23)]
    assert not any(torch.equal(first, torch.rand(4, generator=other)) for other in others)
    assert torch.equal(before, torch.get_rng_state())
