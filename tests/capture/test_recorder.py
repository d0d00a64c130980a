from __future__ import annotations

import pytest
import torch
from torch import nn

from picolm.base.errors import PicoError
from picolm.capture.plan import LearningDynamicsConfig, plan_capture, resolve_positions
from picolm.capture.recorder import Recorder


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(3, 5, bias=False)
        self.down = nn.Linear(5, 3, bias=False)

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        return self.down(torch.tanh(self.up(x_BTD)))


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Block() for _ in range(2))

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x_BTD = layer(x_BTD)
        return x_BTD


def recorder_of(model: nn.Module, **settings: object) -> tuple[Recorder, dict[str, nn.Parameter]]:
    plain = {name.removesuffix(".weight"): parameter for name, parameter in model.named_parameters()}
    config = LearningDynamicsConfig.model_validate({"layer_suffixes": ["down"], **settings})
    return Recorder(plan_capture(config, model=model, plain_names=list(plain), tokens_per_sequence=4, seed=0)), plain


def test_activations_are_the_outputs_at_the_position_in_sequence_order_over_micro_batches():
    model, x_BTD = Model(), torch.randn(6, 4, 3)
    recorder, _ = recorder_of(model, sequence_idx=-2)
    with recorder.activations_of(model):
        for part_BTD in x_BTD.split(2):
            model(part_BTD)
    assert list(recorder.activations) == ["layers.0.down", "layers.1.down"]
    assert torch.equal(recorder.activations["layers.1.down"], model(x_BTD)[:, 2].detach())


def test_several_positions_stay_together_by_sequence():
    model, x_BTD = Model(), torch.randn(2, 4, 3)
    recorder, _ = recorder_of(model, positions=[0, -1])
    with recorder.activations_of(model):
        model(x_BTD)
    assert torch.equal(recorder.activations["layers.1.down"], model(x_BTD)[:, [0, 3]].flatten(0, 1).detach())


def test_gradients_are_those_before_clipping_and_updates_what_the_optimiser_did():
    model, x_BTD = Model(), torch.randn(2, 4, 3)
    recorder, plain = recorder_of(model)
    model(x_BTD).square().sum().backward()
    gradient = plain["layers.0.down"].grad.clone()
    recorder.copy_gradients(plain)
    nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
    assert torch.equal(recorder.gradients["layers.0.down"], gradient)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    clipped = plain["layers.0.down"].grad.clone()
    before = plain["layers.0.down"].detach().clone()
    with recorder.updates_of(plain, plain):
        optimizer.step()
    assert torch.equal(recorder.updates["layers.0.down"], (before - 0.5 * clipped) - before)


def test_no_hook_stays_behind_even_after_an_error():
    model = Model()
    recorder, _ = recorder_of(model)
    with pytest.raises(RuntimeError), recorder.activations_of(model):
        raise RuntimeError
    assert not any(module._forward_hooks for module in model.modules())


def test_a_sample_of_positions_is_the_same_for_the_same_seed():
    config = LearningDynamicsConfig.model_validate({"positions": {"sample": 3}})
    first, second = (resolve_positions(config, 50, seed=5) for _ in range(2))
    assert first == second
    assert len(set(first)) == 3
    assert resolve_positions(config, 50, seed=6) != first
    assert resolve_positions(LearningDynamicsConfig(positions="all"), 3, seed=0) == (0, 1, 2)


@pytest.mark.parametrize("settings", [{"sequence_idx": 4}, {"positions": [0, -5]}, {"positions": {"sample": 5}}])
def test_positions_outside_the_sequence_are_refused(settings: dict[str, object]):
    with pytest.raises(PicoError, match=r"checkpointing\.learning_dynamics\."):
        resolve_positions(LearningDynamicsConfig.model_validate(settings), 4, seed=0)


def test_a_layer_that_matches_nothing_is_refused():
    with pytest.raises(PicoError, match=r"layer_suffixes: `up_proj` matches no layer"):
        recorder_of(Model(), layer_suffixes=["up_proj"])
