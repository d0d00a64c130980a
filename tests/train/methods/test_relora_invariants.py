"""What must hold while ReLoRA trains, and which published departure breaks it: in one process and two, eager and compiled."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning_fabric.wrappers  # noqa: F401 - it wraps torch.compile, which must happen before a test does
import pytest
import torch
import yaml
from safetensors.torch import load_file

from picolm.records.rundir import RunDirectory
from picolm.testing.tiny import merged
from picolm.train.methods.relora_options import PUBLISHED

from .relora_runs import PUBLISHED_RESETS, RESETS, STEPS, WARM_START_STEPS, column, relora_content, train_relora

UNSEEN: dict[str, Any] = {"checkpointing": {"learning_dynamics": {"enabled": False}}}


def first_gradient_of_b_is_positive(run: RunDirectory) -> bool:
    gradients = column(run, "relora_b_gradient_norm")
    return gradients[min(gradients)] > 0


def merges_change_no_output(run: RunDirectory) -> bool:
    return max(column(run, "relora_merge_output_change").values()) <= 1e-5


def b_is_a_few_learning_rates_after_a_reset(run: RunDirectory) -> bool:
    return max(column(run, "relora_b_after_reset").values()) < 4


def weights_move_at_full_rank_first(run: RunDirectory) -> bool:
    return min(column(run, "relora_b_norm")) == WARM_START_STEPS


def a_hundredth_of_the_moments_survives(run: RunDirectory) -> bool:
    """The checkpoint after the first reset: of the 128 values of a factor A, both moments of one."""
    moments = load_file(run.checkpoint(RESETS[0]) / "training_state" / "optimizer.safetensors")
    first, second = (moments[f"layers.1.swiglu.w_2.lora_a/{moment}"] for moment in ("exp_avg", "exp_avg_sq"))
    return int((first != 0).sum()) == 1 and torch.equal(first != 0, second != 0)


def learning_rate_is_doubled_at_low_rank(run: RunDirectory) -> bool:
    rates = column(run, "learning_rate")
    plain = 0.01 * (STEPS - 5) / (STEPS - 2)  # linear decay from step 2 to 12; update 6 is half-way up the ramp of 4
    return rates[6] == pytest.approx(2 * 0.5 * plain)


BROKEN_BY: dict[str, Callable[[RunDirectory], bool]] = {
    "dead_start": first_gradient_of_b_is_positive,
    "unscaled_merge": merges_change_no_output,
    "undone_reset": b_is_a_few_learning_rates_after_a_reset,
    "no_warm_start": weights_move_at_full_rank_first,
    "random_pruning": a_hundredth_of_the_moments_survives,
    "same_learning_rate": learning_rate_is_doubled_at_low_rank,
}
"""Departure -> the invariant that it breaks."""


@pytest.fixture(scope="module")
def specified(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    return train_relora(tiny_data, tmp_path_factory.mktemp("runs"), "specified", UNSEEN)


def test_every_published_departure_has_an_invariant_that_it_breaks():
    assert BROKEN_BY.keys() == PUBLISHED


@pytest.mark.parametrize("departure", BROKEN_BY)
def test_the_invariant_holds_and_fails_with_the_departure_alone(
    specified: RunDirectory, departure: str, tiny_data: Path, tmp_path: Path
):
    holds = BROKEN_BY[departure]
    assert holds(specified)
    departing = train_relora(tiny_data, tmp_path, departure, UNSEEN, departures=[departure])
    assert not holds(departing)
    for other in BROKEN_BY.keys() - {departure, *ALSO_BROKEN.get(departure, ())}:
        assert BROKEN_BY[other](departing), f"{departure} breaks what {other} stands for, too"


ALSO_BROKEN = {
    "dead_start": ("random_pruning",),  # nothing to keep: moments of zero
    "unscaled_merge": (),
    "no_warm_start": ("random_pruning", "same_learning_rate"),  # resets and ramps at other steps
}


def test_with_a_dead_start_no_target_moves_before_the_first_reset(tiny_data: Path, tmp_path: Path):
    changes = {"checkpointing": {"learning_dynamics": {"enabled": False}, "steps": [0, PUBLISHED_RESETS[0], 6]}}
    run = train_relora(tiny_data, tmp_path, "dead", changes, departures=["dead_start", "no_warm_start"])
    weights = [load_file(run.checkpoint(step) / "model.safetensors") for step in (0, PUBLISHED_RESETS[0], 6)]
    target, other = "model.layers.0.self_attn.v_proj.weight", "model.embed_tokens.weight"
    assert torch.equal(weights[0][target], weights[1][target])
    assert not torch.equal(weights[1][target], weights[2][target])
    assert not torch.equal(weights[0][other], weights[1][other])


def check_that_specified_holds(run: RunDirectory) -> None:
    assert set(column(run, "relora_merge_output_change")) == set(RESETS)
    assert all(holds(run) for name, holds in BROKEN_BY.items() if name != "random_pruning")


def check_that_published_breaks(run: RunDirectory) -> None:
    assert set(column(run, "relora_merge_output_change")) == set(PUBLISHED_RESETS)
    gradients, changes = column(run, "relora_b_gradient_norm"), column(run, "relora_merge_output_change")
    assert all(gradients[made] == 0.0 for made in range(1, PUBLISHED_RESETS[0] + 1))
    assert gradients[PUBLISHED_RESETS[0] + 1] > 0
    assert changes[PUBLISHED_RESETS[0]] == 0.0  # nothing learnt, nothing merged wrongly
    assert all(changes[made] > 1e-5 for made in PUBLISHED_RESETS[1:])
    assert column(run, "relora_b_after_reset")[PUBLISHED_RESETS[2] + 1] > 4


def test_the_published_variant_breaks_them_together(tiny_data: Path, tmp_path: Path):
    check_that_published_breaks(train_relora(tiny_data, tmp_path, "published", UNSEEN, variant="published"))


@pytest.mark.parametrize("variant", ["specified", "published"])
def test_compiled_steps_keep_and_break_the_same(variant: str, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Traced, guarded and differentiated as compiled code is, without the minutes that generating machine code takes."""
    compile_model = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model, **options: compile_model(model, **{**options, "backend": "aot_eager"}))
    changes = {**UNSEEN, "training": {"compile": True}, "model": {"n_layers": 1}}
    run = train_relora(tiny_data, tmp_path, variant, changes, variant=variant)
    (check_that_specified_holds if variant == "specified" else check_that_published_breaks)(run)


def test_machine_code_trains_as_eager_steps_do(tiny_data: Path, tmp_path: Path):
    changes = {**UNSEEN, "model": {"n_layers": 1}}
    eager = train_relora(tiny_data, tmp_path, "eager", changes)
    compiled = train_relora(tiny_data, tmp_path, "compiled", merged(changes, {"training": {"compile": True}}))
    check_that_specified_holds(compiled)
    assert list(column(compiled, "loss").values()) == pytest.approx(list(column(eager, "loss").values()), rel=1e-4)


TRAIN_EACH = """
import sys
from pathlib import Path
from picolm.train.config import load_config
from picolm.train.run import Silence
from picolm.train.train import run_training

for file in sys.argv[1:]:
    run_training(load_config(Path(file)), Silence())
"""


def test_two_processes_keep_and_break_the_same(tiny_data: Path, tmp_path: Path):
    files = []
    for variant in ("specified", "published"):
        changes = merged(UNSEEN, {"training": {"fabric": {"num_devices": 2}}})
        files.append(tmp_path / f"{variant}.yaml")
        files[-1].write_text(yaml.safe_dump(relora_content(tiny_data, tmp_path, variant, changes, variant=variant)))
    script = tmp_path / "train_each.py"
    script.write_text(TRAIN_EACH)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", script, *files]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment)
    assert result.returncode == 0, result.stderr
    check_that_specified_holds(RunDirectory(tmp_path / "specified"))
    check_that_published_breaks(RunDirectory(tmp_path / "published"))
