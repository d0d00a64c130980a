from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from picolm.base.errors import PicoError
from picolm.optim.optimizers import adamw, muon


def parameters(seed: int = 0) -> dict[str, nn.Parameter]:
    draw = torch.Generator().manual_seed(seed)
    shapes = {"embedding_proj.weight": (7, 4), "layers.0.attention.q_proj.weight": (4, 4), "output_norm.weight": (4,)}
    return {name: nn.Parameter(torch.randn(shape, generator=draw)) for name, shape in shapes.items()}


def with_gradients(named: dict[str, nn.Parameter], step: int) -> None:
    draw = torch.Generator().manual_seed(100 + step)
    for parameter in named.values():
        parameter.grad = torch.randn(parameter.shape, generator=draw)


def test_matrices_inside_blocks_move_by_muon_and_the_rest_by_adamw():
    named, by_muon, by_adamw = parameters(), parameters(), parameters()
    hidden = "layers.0.attention.q_proj.weight"
    joined = muon(named.items(), lr=0.1)
    reference_muon = torch.optim.Muon([by_muon[hidden]], lr=0.1, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    reference_adamw = adamw(by_adamw.items(), lr=0.1, betas=(0.9, 0.95), weight_decay=0.1, decay_scope="matrices")
    for step in range(5):
        for group in (named, by_muon, by_adamw):
            with_gradients(group, step)
        for optimizer in (joined, reference_muon, reference_adamw):
            for settings in optimizer.param_groups:
                settings["lr"] = 0.1 / (1 + step)
            optimizer.step()
    for name, parameter in named.items():
        assert torch.equal(parameter, (by_muon if name == hidden else by_adamw)[name])


def test_a_loaded_state_continues_exactly():
    named, resumed = parameters(), parameters()
    whole = muon(named.items(), lr=0.1)
    for step in range(3):
        with_gradients(named, step)
        whole.step()
    for name, parameter in named.items():
        resumed[name].data.copy_(parameter.data)
    again = muon(resumed.items(), lr=0.1)
    again.load_state_dict(copy.deepcopy(whole.state_dict()))
    for step in range(3, 6):
        for group, optimizer in ((named, whole), (resumed, again)):
            with_gradients(group, step)
            optimizer.step()
    assert all(torch.equal(named[name], resumed[name]) for name in named)


def test_a_model_without_hidden_matrices_is_refused():
    with pytest.raises(PicoError, match="no matrix inside a block"):
        muon([("output_norm.weight", nn.Parameter(torch.ones(3)))], lr=0.1)
