"""Every registered optimiser and schedule in a whole run: interrupted and resumed equals uninterrupted."""

from __future__ import annotations

from typing import Any

import pytest

from picolm.optim.contract import OPTIMIZERS
from picolm.train.plan import plan_run
from picolm.train.train import run_training

from .conftest import ConfigMaker
from .recording import Recording, file_hashes


@pytest.mark.parametrize("optimizer", [entry.name for entry in OPTIMIZERS.entries() if entry.name != "adamw"])
def test_every_optimiser_resumes_exactly(make_config: ConfigMaker, optimizer: str):
    named: Any = {"name": "sgd", "momentum": 0.9} if optimizer == "sgd" else optimizer
    changes = {"optimization": {"optimizer": named}}
    whole = run_training(make_config("whole", training=changes), Recording()).run
    config = make_config("parts", training=changes)
    run_training(config, Recording(stop_at=4))
    parts = run_training(config, Recording()).run
    assert file_hashes(parts, 8) == file_hashes(whole, 8)


def test_muon_needs_less_memory_than_adamw(make_config: ConfigMaker):
    plans = [plan_run(make_config(training={"optimization": {"optimizer": name}})) for name in ("muon", "adamw")]
    assert plans[0].checkpoint.training_state < plans[1].checkpoint.training_state


def test_lengths_in_tokens_reach_the_schedule(make_config: ConfigMaker):
    in_tokens, in_steps = Recording(), Recording()
    for observer, option in ((in_tokens, {"decay_tokens": 4 * 8 * 16}), (in_steps, {"decay_steps": 4})):
        schedule = {"name": "wsd", **option}
        name = next(iter(option))
        run_training(make_config(name, training={"optimization": {"lr_scheduler": schedule}}), observer)
    rates = [[row["learning_rate"] for row in observer.rows] for observer in (in_tokens, in_steps)]
    assert rates[0] == rates[1]
    assert rates[0][-1] == pytest.approx(0.01 / 4)
