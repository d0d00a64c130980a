from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from picolm.base.errors import PicoError
from picolm.base.registry import Named
from picolm.optim.contract import OPTIMIZERS, build_schedule, optimizer_options
from picolm.optim.optimizers import decay_groups


def schedule(name: str, max_steps: int = 100, warmup_steps: int = 10, **options: float):
    return build_schedule(Named(name=name, **options), max_steps=max_steps, warmup_steps=warmup_steps, tokens_per_step=1000)


@pytest.mark.data
def test_the_papers_schedule_gives_the_learning_rates_of_the_oracle(test_data: Path):
    trace = json.loads((test_data / "oracles/pico_decoder/expected.json").read_text())["training_trace"]
    factor = schedule("linear_with_warmup", trace["max_steps"], trace["warmup_steps"])
    assert [trace["lr"] * factor(row["step"]) for row in trace["steps"]] == pytest.approx([row["lr"] for row in trace["steps"]])


@pytest.mark.parametrize("name", ["linear_with_warmup", "cosine", "wsd", "1-sqrt", "restarts", "constant"])
def test_every_schedule_starts_at_zero_and_peaks_after_warm_up(name: str):
    factor = schedule(name, **({"period_steps": 30} if name == "restarts" else {}))
    assert factor(0) == 0.0
    assert factor(5) == 0.5
    assert factor(10) == 1.0
    assert max(factor(step) for step in range(100)) == 1.0


def test_cosine_agrees_with_torch():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=90, eta_min=0.1)
    factor = schedule("cosine")
    for step in range(10, 100):
        assert factor(step) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-12)
        optimizer.step()
        reference.step()


def test_wsd_is_flat_and_then_falls_in_a_line():
    factor = schedule("wsd", decay_share=0.2)
    assert {factor(step) for step in range(10, 81)} == {1.0}
    assert factor(90) == pytest.approx(0.5)
    assert factor(100) == 0.0


def test_one_minus_sqrt_is_flat_and_then_falls_as_it_is_called():
    factor = schedule("1-sqrt", decay_steps=40)
    assert {factor(step) for step in range(10, 61)} == {1.0}
    assert factor(70) == pytest.approx(1 - (10 / 40) ** 0.5)
    assert factor(100) == 0.0


def test_restarts_agree_with_torch():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    reference = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=15, T_mult=2, eta_min=0.05)
    factor = schedule("restarts", period_steps=15, period_factor=2.0, final_share=0.05)
    for step in range(10, 100):
        assert factor(step) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-12)
        optimizer.step()
        reference.step()


def test_lengths_in_tokens_are_whole_updates_rounded_up():
    in_steps, in_tokens = schedule("wsd", decay_steps=25), schedule("wsd", decay_tokens=24_100)
    assert [in_steps(step) for step in range(101)] == [in_tokens(step) for step in range(101)]
    with pytest.raises(PicoError, match="not a number of tokens"):
        schedule("restarts", period_tokens="many")


def test_no_warm_up_starts_at_the_peak():
    assert schedule("constant", warmup_steps=0)(0) == 1.0


def test_weight_decay_reaches_only_its_scope():
    named = [
        ("embedding_proj.weight", nn.Parameter(torch.zeros(4, 2))),
        ("layers.0.attention.q_proj.weight", nn.Parameter(torch.zeros(2, 2))),
        ("output_norm.weight", nn.Parameter(torch.zeros(2))),
    ]
    counts = {
        scope: [len(group["params"]) for group in decay_groups(named, 0.1, scope)]
        for scope in ("all", "matrices", "hidden_matrices")
    }
    assert counts == {"all": [3], "matrices": [2, 1], "hidden_matrices": [1, 2]}


def test_an_optimiser_takes_only_settings_it_has():
    shared = {"betas": (0.9, 0.95), "eps": None, "weight_decay": None}
    assert optimizer_options(Named(name="adamw"), shared, lr=0.1)["betas"] == (0.9, 0.95)
    with pytest.raises(PicoError, match=r"optimizer sgd.*betas is not a setting"):
        optimizer_options(Named(name="sgd"), shared, lr=0.1)


@pytest.mark.parametrize("entry", OPTIMIZERS.entries(), ids=lambda entry: entry.name)
def test_every_optimiser_lowers_a_quadratic(entry):
    weight = nn.Parameter(torch.tensor([[3.0, -2.0], [1.0, 4.0]]))
    optimizer = entry.object([("layers.0.weight", weight)], **optimizer_options(Named(name=entry.name), {}, lr=0.1))
    before = float(weight.square().sum())
    for _ in range(20):
        optimizer.zero_grad()
        weight.square().sum().backward()
        optimizer.step()
    assert float(weight.square().sum()) < before / 2
