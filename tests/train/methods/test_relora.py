"""ReLoRA against hand calculations, autograd on the merged model, and itself interrupted."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from picolm.base.errors import PicoError
from picolm.model.contract import flops_per_token, load_model
from picolm.records.rundir import RunDirectory
from picolm.records.snapshot import open_snapshot
from picolm.testing.tiny import training_content
from picolm.train.config import load_config, parse_config
from picolm.train.fork import Fork
from picolm.train.methods.contract import draws_for
from picolm.train.methods.plain import Plain
from picolm.train.methods.relora_checks import check_beginning, check_frozen, check_movement, fingerprints
from picolm.train.methods.relora_layers import LowRankLinear, add_low_rank
from picolm.train.methods.relora_options import Cycles
from picolm.train.methods.relora_reset import Pruning, begin_factors, forget_steps, merge, prune_moments
from picolm.train.plan import plan_run
from picolm.train.setup import initial_model
from picolm.train.train import run_training

from ..conftest import ConfigMaker
from ..recording import Recording, all_equal, file_hashes, tokens_of, weights
from .relora_runs import OPTIONS, RESETS, STEPS, WARM_START_STEPS, column, relora_content, train_relora

VALUE = "layers.0.attention.v_proj"


@pytest.fixture(scope="module")
def whole(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    return train_relora(tiny_data, tmp_path_factory.mktemp("runs"), "whole")


def layer_of(rank: int = 3, inputs: int = 8, outputs: int = 6, scale: float = 2.0) -> LowRankLinear:
    torch.manual_seed(0)
    layer = LowRankLinear(nn.Linear(inputs, outputs, bias=False), rank=rank, scale=scale, dropout=0.0)
    layer.freeze()
    begin_factors(layer, draws_for(1, "a"))
    return layer


# ---- The layer ----


def test_a_wrapped_model_computes_what_the_original_did_bit_for_bit(make_config: ConfigMaker):
    config = make_config()
    plain, wrapped = initial_model(config), initial_model(config)
    add_low_rank(wrapped, ("layers.*",), rank=4, scale=2.0, dropout=0.0)
    for layer in (module for module in wrapped.modules() if isinstance(module, LowRankLinear)):
        layer.freeze()
        begin_factors(layer, draws_for(0, "a"))
    tokens_BT = torch.arange(32).view(2, 16)
    assert torch.equal(plain(tokens_BT), wrapped(tokens_BT))


def test_the_layer_is_the_product_with_w_plus_s_b_a():
    layer = layer_of()
    nn.init.normal_(layer.lora_b)
    x_BI = torch.randn(5, 8)
    expected = x_BI.double() @ (layer.weight.double() + 2.0 * layer.lora_b.double() @ layer.lora_a.double()).T
    torch.testing.assert_close(layer(x_BI).double(), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(x_BI.double() @ layer.effective_weight().T, expected)


def test_a_merge_leaves_the_function_and_an_unscaled_one_does_not():
    for scaled, limit in ((True, 1e-5), (False, None)):
        layer = layer_of()
        nn.init.normal_(layer.lora_b)
        x_BI = torch.randn(5, 8)
        before, product_OI = layer(x_BI), layer.lora_b @ layer.lora_a
        weight_OI = layer.weight.clone()
        merge(layer, scaled=scaled)
        begin_factors(layer, draws_for(1, "a", 1))
        change = (layer(x_BI) - before).abs().max() / before.abs().max()
        assert change <= limit if limit else change > 0.1
        torch.testing.assert_close(layer.weight - weight_OI, (2.0 if scaled else 1.0) * product_OI)


def test_a_begins_uniform_within_one_over_the_root_of_its_inputs_and_b_at_zero():
    layer = layer_of(rank=64, inputs=400, outputs=70)
    bound = 400**-0.5
    assert layer.lora_a.abs().max() <= bound
    assert float(layer.lora_a.std()) == pytest.approx(bound / 3**0.5, rel=0.02)
    assert not layer.lora_b.any()
    again = layer_of(rank=64, inputs=400, outputs=70)
    assert torch.equal(layer.lora_a, again.lora_a)
    begin_factors(again, draws_for(1, "a", 1))
    assert not torch.equal(layer.lora_a, again.lora_a)


def test_the_checks_notice_what_they_are_for():
    layers = {VALUE: layer_of()}
    before = fingerprints(layers)
    check_beginning(layers, dead=False)
    check_frozen(layers, before)
    layers[VALUE].lora_b.grad = torch.zeros_like(layers[VALUE].lora_b)
    with pytest.raises(PicoError, match="gradient of B is zero"):
        check_movement(layers)
    with torch.no_grad():
        layers[VALUE].weight[0, 0] += 1e-6
    with pytest.raises(PicoError, match=f"frozen weights changed since the last merge: {VALUE}"):
        check_frozen(layers, before)
    nn.init.zeros_(layers[VALUE].lora_a)
    with pytest.raises(PicoError, match="does not begin at zero with a gradient"):
        check_beginning(layers, dead=False)


# ---- The optimiser ----


def adam_with_moments() -> tuple[torch.optim.AdamW, nn.Parameter]:
    parameter = nn.Parameter(torch.zeros(20, 10))
    optimizer = torch.optim.AdamW([parameter])
    parameter.grad = torch.randn(20, 10, generator=torch.Generator().manual_seed(3))
    optimizer.step()
    return optimizer, parameter


def drawn_by(moment: str) -> torch.Generator:
    return draws_for(0, moment)


@pytest.mark.parametrize(("pruning", "kept"), [("none", 200), ("zero", 0), ("magnitude", 10), ("random", None)])
def test_pruning_keeps_the_share_it_says_and_both_moments_of_a_value(pruning: Pruning, kept: int | None):
    optimizer, parameter = adam_with_moments()
    before = {name: moment.clone() for name, moment in optimizer.state[parameter].items()}
    prune_moments(optimizer, parameter, pruning, 0.95, drawn_by)
    first, second = (optimizer.state[parameter][name] for name in ("exp_avg", "exp_avg_sq"))
    left = first != 0
    assert torch.equal(left, second != 0)
    assert torch.equal(first[left], before["exp_avg"][left])
    assert torch.equal(second[left], before["exp_avg_sq"][left])
    assert 1 <= int(left.sum()) <= 30 if kept is None else int(left.sum()) == kept
    if pruning == "magnitude":
        assert before["exp_avg"][left].abs().min() >= before["exp_avg"][~left].abs().max()


def test_moments_pruned_apart_make_an_update_of_very_many_learning_rates_and_together_they_do_not():
    """Why a value's moments stay or go together: a first moment that lost its second is divided by next to nothing."""
    sizes = {}
    for apart in (False, True):
        optimizer, parameter = adam_with_moments()
        prune_moments(optimizer, parameter, "random", 0.5, drawn_by, apart=apart)
        parameter.grad = torch.full_like(parameter, 1e-5)
        before = parameter.detach().clone()
        optimizer.step()
        sizes[apart] = float((parameter.detach() - before).abs().max()) / optimizer.param_groups[0]["lr"]
    assert sizes[False] < 10
    assert sizes[True] > 100


def test_the_step_counter_goes_back_only_when_asked():
    optimizer, parameter = adam_with_moments()
    prune_moments(optimizer, parameter, "zero", 1.0, drawn_by)
    assert float(optimizer.state[parameter]["step"]) == 1
    forget_steps(optimizer, parameter)
    assert float(optimizer.state[parameter]["step"]) == 0


# ---- The schedule ----


def test_the_learning_rate_is_zero_at_a_reset_and_returns_over_the_ramp():
    cycles = Cycles(warm_start_steps=100, period=50, ramp_steps=10, multiplier=2.0)
    assert [cycles.factor(step) for step in (0, 99, 100, 105, 110, 149, 150, 151)] == [1, 1, 0, 1, 2, 2, 0, 0.2]
    assert [made for made in range(260) if cycles.reset_number(made)] == [151, 201, 251]


def test_without_a_warm_start_the_first_cycle_has_only_the_schedules_own_warm_up():
    published = Cycles(warm_start_steps=0, period=2000, ramp_steps=100, multiplier=1.0)
    assert [published.factor(step) for step in (0, 1, 1999, 2000, 2050, 2100)] == [1, 1, 1, 0, 0.5, 1]
    assert [made for made in range(7000) if published.reset_number(made)] == [2001, 4001, 6001]


# ---- Runs ----


@pytest.mark.parametrize(
    ("step", "options"), [(2, {}), (6, {}), (7, {}), (8, {}), (7, {"departures": ["undone_reset"]}), (7, {"dropout": 0.3})]
)
def test_an_interrupted_run_ends_bit_for_bit_where_an_uninterrupted_one_does(
    whole: RunDirectory, tiny_data: Path, tmp_path: Path, step: int, options: dict[str, object]
):
    """In the warm start, right before a reset, right after it, and one update later."""
    assert RESETS[0] == 7
    expected = train_relora(tiny_data, tmp_path, "expected", **options) if options else whole
    content = relora_content(tiny_data, tmp_path, "parts", {}, **options)
    config = parse_config(content, "tiny.yaml", default_name="parts")
    assert not run_training(config, Recording(stop_at=step)).complete
    assert max(RunDirectory(tmp_path / "parts").steps()) == step
    resumed = run_training(config, Recording()).run
    assert all_equal(weights(resumed, STEPS), weights(expected.path, STEPS))
    hashes, others = file_hashes(resumed, STEPS), file_hashes(expected.path, STEPS)
    assert {name: hashes[name] for name in others if name.endswith(".safetensors")} == {
        name: other for name, other in others.items() if name.endswith(".safetensors")
    }


def test_a_checkpoint_is_a_plain_llama_folder_with_merged_weights(whole: RunDirectory, make_config: ConfigMaker):
    plain = run_training(make_config("plain", training={"max_steps": 1}), Recording()).run
    stored, state = weights(whole.path, 6), load_file(whole.checkpoint(6) / "training_state" / "method.safetensors")
    assert stored.keys() == weights(plain, 0).keys()
    a_RI, b_OR = state[f"{VALUE}/lora_a"], state[f"{VALUE}/lora_b"]
    merged_OI = state[f"{VALUE}/weight"] + OPTIONS["alpha"] / OPTIONS["rank"] * b_OR @ a_RI
    torch.testing.assert_close(stored["model.layers.0.self_attn.v_proj.weight"], merged_OI)
    assert b_OR.any()
    assert all(not isinstance(module, LowRankLinear) for module in load_model(whole.checkpoint(6)).modules())


@pytest.mark.parametrize("split", ["train", "val"])
def test_gradients_of_frozen_weights_are_those_of_the_merged_model(whole: RunDirectory, split: str):
    snapshot = open_snapshot(whole.checkpoint(6), 6, split)
    model, tokens_BT = load_model(whole.checkpoint(6)), tokens_of(snapshot)
    (model.loss_sum(tokens_BT[:, :-1], tokens_BT[:, 1:]) / tokens_BT[:, 1:].numel()).backward()
    expected = Plain().plain_tensors(model)
    assert snapshot.gradients.keys() == {name for name in expected if name.endswith(("v_proj", "o_proj", "w_2"))}
    for name, gradient in snapshot.gradients.items():
        assert expected[name].grad is not None
        torch.testing.assert_close(gradient, expected[name].grad, rtol=1e-4, atol=1e-6)


def test_compiled_gradients_of_frozen_weights_are_the_same(
    whole: RunDirectory, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The pass of its own that compiled steps need, with the step itself left uncompiled: it is not what is tested."""
    monkeypatch.setattr("picolm.train.setup.should_compile", lambda config, fabric: True)
    monkeypatch.setattr(torch, "compile", lambda model, **options: model)
    run = train_relora(tiny_data, tmp_path, "compiled")
    first, second = (open_snapshot(each.checkpoint(6), 6, "train").gradients for each in (whole, run))
    for name in first:
        torch.testing.assert_close(second[name], first[name], rtol=1e-5, atol=1e-7)
    assert all_equal(weights(run.path, STEPS), weights(whole.path, STEPS))


def test_updates_are_the_change_of_the_weights_that_act_also_across_a_reset(whole: RunDirectory):
    for step in (5, 6, 7):
        before, after = (open_snapshot(whole.checkpoint(number), number, "train") for number in (step, step + 1))
        for name, update in before.updates.items():
            torch.testing.assert_close(update, after.weights[name] - before.weights[name], rtol=0, atol=1e-7)
    assert torch.linalg.matrix_rank(before.updates[VALUE]) <= 2 * OPTIONS["rank"]


def test_a_target_that_is_not_trained_has_full_rank_gradients_and_low_rank_updates(whole: RunDirectory):
    snapshot = open_snapshot(whole.checkpoint(5), 5, "train")
    name = "layers.1.swiglu.w_2"
    update, gradient = snapshot.updates[name].double(), snapshot.gradients[name].double()
    assert torch.linalg.matrix_rank(update, rtol=1e-5) <= 2 * OPTIONS["rank"] < torch.linalg.matrix_rank(gradient, rtol=1e-5)


def test_a_run_may_turn_to_low_rank_and_back(whole: RunDirectory, tiny_data: Path, tmp_path: Path):
    """Forked into another method: what acts is taken over, what the other method kept is left."""
    plain = parse_config(training_content(tiny_data, tmp_path, "plain"), "tiny.yaml", default_name="plain")
    away = run_training(plain, Recording(), fork=Fork(whole, 6))
    assert all_equal(weights(away.run, 6), weights(whole.path, 6))
    content = relora_content(tiny_data, tmp_path, "low", {})
    low = run_training(parse_config(content, "tiny.yaml", default_name="low"), Recording(), fork=Fork(RunDirectory(away.run), 6))
    assert all_equal(weights(low.run, 6), weights(whole.path, 6))
    state = load_file(low.run / "checkpoints" / "step_6" / "training_state" / "method.safetensors")
    assert not state[f"{VALUE}/lora_b"].any()
    assert state[f"{VALUE}/lora_a"].any()


def test_another_rank_cannot_continue_a_low_rank_run(whole: RunDirectory, tiny_data: Path, tmp_path: Path):
    content = relora_content(tiny_data, tmp_path, "other", {}, rank=2)
    with pytest.raises(PicoError, match="other targets or another rank"):
        run_training(parse_config(content, "tiny.yaml", default_name="other"), Recording(), fork=Fork(whole, 6))


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"targets": ["layers.*.attention.x_proj"]}, "matches no layer"),
        ({"rank": 9}, "has 8 x 16 values"),
        ({"variant": "published", "departures": ["dead_start"]}, "which has all of them"),
        ({"departures": ["dead_stop"]}, "dead_stop"),
        ({"reset_every_steps": 0}, "reset_every_steps"),
    ],
)
def test_options_that_do_not_fit_are_an_error_before_anything_is_written(
    tiny_data: Path, tmp_path: Path, options: dict[str, object], complaint: str
):
    content = relora_content(tiny_data, tmp_path / "runs", "wrong", {}, **options)
    with pytest.raises(PicoError, match=complaint):
        run_training(parse_config(content, "tiny.yaml", default_name="wrong"), Recording())
    assert not (tmp_path / "runs").exists()


# ---- The plan ----


def test_operations_are_counted_by_hand_and_as_planned(whole: RunDirectory):
    config = load_config(whole.config_file)
    plain, tokens = flops_per_token(config.model, 16), 8 * 16
    attention = 2 * (16 * 16 + 8 * 16)
    frozen = 2 * (attention + 3 * 16 * 32)
    factors = 2 * 4 * (2 * (16 + 16) + 2 * (8 + 16) + 3 * (16 + 32))
    low_rank = plain - 2 * frozen + 6 * factors
    expected = tokens * (WARM_START_STEPS * plain + (STEPS - WARM_START_STEPS) * low_rank)
    assert column(whole, "flops")[STEPS] == pytest.approx(expected)
    planned = plan_run(config)
    assert planned.flops == pytest.approx(expected)
    assert planned.tokens == STEPS * tokens
    assert sum(planned.flops_per_token.values()) == pytest.approx(expected / planned.tokens)
    assert planned.parameters["method"] == factors


def test_no_checkpoint_is_larger_than_planned_and_the_largest_not_much_smaller(whole: RunDirectory):
    planned = plan_run(load_config(whole.config_file)).checkpoint
    sizes = []
    for step in whole.steps():
        files = (whole.checkpoint(step) / "training_state").glob("*.safetensors")
        tensors = [tensor for path in files if "random" not in path.name for tensor in load_file(path).values()]
        sizes.append(sum(tensor.nbytes for tensor in tensors))
    assert max(sizes) <= planned.training_state <= 1.1 * max(sizes)
