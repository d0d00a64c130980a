from __future__ import annotations

import functools
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from picolm.base.errors import PicoError
from picolm.records import trainlog
from picolm.records.rundir import RunDirectory
from picolm.records.snapshot import open_snapshot
from picolm.train.train import run_training

from .conftest import ConfigMaker
from .recording import Recording, all_equal, file_hashes, tokens_of, weights


def test_a_run_leaves_every_file_that_the_readme_draws(make_config: ConfigMaker):
    outcome = run_training(make_config(), Recording())
    run = outcome.run
    assert (outcome.complete, outcome.step, outcome.tokens) == (True, 8, 8 * 8 * 16)
    assert sorted(path.name for path in run.iterdir()) == ["checkpoints", "logs", "run.json", "training_config.yaml"]
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["step_0", "step_1", "step_2", "step_5", "step_8"]
    checkpoint = run / "checkpoints" / "step_2"
    for name in ("manifest.json", "config.json", "model.safetensors", "tokenizer.json", "layout.json"):
        assert (checkpoint / name).is_file()
    dynamics = {path.name for path in (checkpoint / "learning_dynamics").iterdir()}
    assert {"train_updates.safetensors", "val_gradients.safetensors", "train_batch.parquet", "val.json"} <= dynamics
    assert "val_updates.safetensors" not in dynamics
    assert [row["step"] for row in trainlog.read_rows(run / "logs" / "train.jsonl")] == list(range(1, 9))


def test_the_final_snapshot_applies_no_update(make_config: ConfigMaker):
    run = run_training(make_config(), Recording()).run
    snapshot = open_snapshot(run / "checkpoints" / "step_8", 8, "train")
    assert snapshot.info["applied"] is False
    assert len(snapshot.gradients) == 6
    assert "no update was applied" in snapshot.updates.reason


def test_updates_lead_from_one_checkpoint_to_the_next(make_config: ConfigMaker):
    run = run_training(make_config(), Recording()).run
    before, after = (open_snapshot(run / "checkpoints" / f"step_{step}", step, "train") for step in (1, 2))
    for name in before.updates:
        assert torch.allclose(before.weights[name] + before.updates[name], after.weights[name], atol=1e-7)


def test_the_train_gradient_is_the_mean_over_the_batch_of_that_step(make_config: ConfigMaker, tiny_data: Path):
    """Recomputed by hand, in one piece, from the sealed weights and the recorded batch."""
    import picolm

    run = run_training(make_config(), Recording()).run
    checkpoint = run / "checkpoints" / "step_2"
    snapshot = open_snapshot(checkpoint, 2, "train")
    tokens_BT = tokens_of(snapshot)
    model = picolm.load_model(checkpoint)
    loss = torch.nn.functional.cross_entropy(model(tokens_BT[:, :-1]).flatten(0, 1), tokens_BT[:, 1:].flatten())
    loss.backward()
    for name in snapshot.gradients:
        assert torch.allclose(snapshot.gradients[name], model.get_parameter(f"{name}.weight").grad, atol=1e-6)
    log = trainlog.read_rows(run / "logs" / "train.jsonl")
    assert log[2]["loss"] == pytest.approx(loss.item(), rel=1e-5)
    norm = torch.linalg.vector_norm(torch.stack([parameter.grad.norm() for parameter in model.parameters()]))
    assert log[2]["gradient_norm"] == pytest.approx(norm.item(), rel=1e-4)


def keep_output(outputs: dict[str, torch.Tensor], name: str, module: object, inputs: object, output: torch.Tensor) -> None:
    outputs[name] = output


def test_activations_are_the_outputs_at_the_last_position(make_config: ConfigMaker):
    import picolm

    checkpoint = run_training(make_config(), Recording()).run / "checkpoints" / "step_5"
    model = picolm.load_model(checkpoint)
    for split, count in (("train", 8), ("val", 6)):
        snapshot = open_snapshot(checkpoint, 5, split)
        tokens_BT = tokens_of(snapshot)[:, :-1]
        outputs: dict[str, torch.Tensor] = {}
        for name in snapshot.activations:
            keep = functools.partial(keep_output, outputs, name)
            model.get_submodule(name).register_forward_hook(keep)
        model(tokens_BT)
        for name in snapshot.activations:
            assert snapshot.activations[name].shape == (count, outputs[name].shape[-1])
            assert torch.allclose(snapshot.activations[name], outputs[name][:, -1], atol=1e-6)


def test_native_weights_load_as_a_state_dict_and_the_kernel_is_named(make_config: ConfigMaker):
    import picolm

    observer = Recording()
    tied = {"formats": ["huggingface", "pytorch"], "steps": [0]}
    run = run_training(make_config(model={"tied_embeddings": True}, checkpointing=tied), observer).run
    checkpoint = run / "checkpoints" / "step_8"
    model = picolm.load_model(checkpoint)
    native = load_file(checkpoint / "pytorch" / "model.safetensors")
    assert native.keys() == dict(model.named_parameters()).keys()
    assert all(torch.equal(native[name], parameter) for name, parameter in model.named_parameters())
    assert any("attention by" in sentence for sentence in observer.sentences)


def test_the_head_has_gradients_but_no_activations_since_its_product_is_part_of_the_loss(make_config: ConfigMaker):
    dynamics = {"learning_dynamics": {"layer_suffixes": ["attention.v_proj", "de_embedding_proj"]}}
    run = run_training(make_config(checkpointing=dynamics), Recording()).run
    snapshot = open_snapshot(run / "checkpoints" / "step_2", 2, "train")
    assert "de_embedding_proj" in snapshot.gradients
    assert list(snapshot.activations) == ["layers.0.attention.v_proj", "layers.1.attention.v_proj"]


def test_capture_and_evaluation_on_or_off_give_bit_identical_weights(make_config: ConfigMaker, tiny_data: Path):
    score = {"metrics": [{"name": "perplexity", "data": str(tiny_data)}]}
    watched = run_training(make_config("watched", evaluation=score), Recording()).run
    off = {"learning_dynamics": {"enabled": False}, "steps": [0]}
    alone = run_training(make_config("alone", checkpointing=off), Recording()).run
    assert (watched / "evaluation" / "step_5.json").is_file()
    assert not (alone / "checkpoints" / "step_8" / "learning_dynamics").exists()
    assert all_equal(weights(watched, 8), weights(alone, 8))
    state = "training_state/optimizer.safetensors"
    assert file_hashes(watched, 8)[state] == file_hashes(alone, 8)[state]


@pytest.mark.parametrize("stop_at", range(1, 8))
def test_resumed_run_equals_uninterrupted_run(make_config: ConfigMaker, stop_at: int):
    """Interrupted twice, at any step, scheduled or not: every file of every scheduled checkpoint is the same."""
    whole = run_training(make_config("whole"), Recording()).run
    config = make_config("parts")
    first = run_training(config, Recording(stop_at=stop_at))
    assert not first.complete
    again = run_training(config, Recording(stop_at=7))
    last = again if again.complete else run_training(config, Recording())
    assert last.complete
    for step in (0, 1, 2, 5, 8):
        assert file_hashes(last.run, step) == file_hashes(whole, step)
    timings = {"tokens_per_second", "step_seconds", "paused_seconds", "mfu"}
    logs = [trainlog.read_rows(run / "logs" / "train.jsonl") for run in (last.run, whole)]
    assert [{k: v for k, v in row.items() if k not in timings} for row in logs[0]] == [
        {k: v for k, v in row.items() if k not in timings} for row in logs[1]
    ]


def test_a_finished_run_is_left_as_it_is(make_config: ConfigMaker):
    run = run_training(make_config(), Recording()).run
    before = {step: file_hashes(run, step) for step in (0, 8)}
    observer = Recording()
    assert run_training(make_config(), observer).complete
    assert observer.rows == []
    assert {step: file_hashes(run, step) for step in (0, 8)} == before


@pytest.mark.parametrize("accumulation", [1, 4, 8])
def test_the_same_rows_and_the_same_gradient_whatever_the_micro_batch_size(make_config: ConfigMaker, accumulation: int):
    reference = run_training(make_config("reference"), Recording()).run
    other = run_training(
        make_config("other", training={"optimization": {"gradient_accumulation_steps": accumulation}}), Recording()
    ).run
    for step in (0, 5):
        snapshots = [open_snapshot(run / "checkpoints" / f"step_{step}", step, "train") for run in (reference, other)]
        assert snapshots[0].batch()["row"].tolist() == snapshots[1].batch()["row"].tolist() == list(range(step * 8, step * 8 + 8))
    first, second = (
        load_file(run / "checkpoints/step_0/learning_dynamics/train_gradients.safetensors") for run in (reference, other)
    )
    for name in first:
        assert (first[name] - second[name]).norm() <= 1e-6 * first[name].norm()


def test_a_changed_file_is_refused_by_name(make_config: ConfigMaker):
    run_training(make_config(), Recording(stop_at=6))
    run = Path(make_config().checkpointing.runs_dir) / "tiny"
    newest = max(int(path.name.removeprefix("step_")) for path in (run / "checkpoints").iterdir())
    path = run / "checkpoints" / f"step_{newest}" / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(PicoError, match=r"model\.safetensors has changed"):
        run_training(make_config(), Recording())


def test_another_configuration_under_an_existing_run_is_refused_with_the_difference(make_config: ConfigMaker):
    run_training(make_config(), Recording())
    with pytest.raises(PicoError, match=r"training\.optimization\.lr: 0\.01 -> 0\.02"):
        run_training(make_config(training={"optimization": {"lr": 0.02}}), Recording())


def test_operational_settings_may_change_and_are_recorded(make_config: ConfigMaker):
    run_training(make_config(), Recording(stop_at=3))
    run = run_training(make_config(monitoring={"logging": {"log_every_n_steps": 2}}), Recording()).run
    history = json.loads((run / "run.json").read_text())["history"]
    assert history[-1]["changes"] == {"monitoring.logging.log_every_n_steps": [1, 2]}


def test_other_data_under_an_existing_run_are_refused_unless_their_fingerprint_is_given(make_config: ConfigMaker, tmp_path: Path):
    run_training(make_config(), Recording(stop_at=3))
    identity = RunDirectory(tmp_path / "runs" / "tiny").identity()
    now = identity["data"]["fingerprint"]
    identity["data"]["fingerprint"] = "0" * 64  # as if it had begun with others
    RunDirectory(tmp_path / "runs" / "tiny").write_identity(identity)
    for accepted in (None, now[:8], "1" * 64):
        with pytest.raises(PicoError, match=f"fingerprint {'0' * 12}, now {now[:12]}") as caught:
            run_training(make_config(checkpointing={"training": {"accept_data": accepted}}), Recording())
    assert f"--set checkpointing.training.accept_data={now[:12]}" in caught.value.hint
    run = run_training(make_config(checkpointing={"training": {"accept_data": now[:12]}}), Recording()).run
    history = json.loads((run / "run.json").read_text())["history"]
    assert history[-1]["changes"] == {"checkpointing.training.accept_data": [None, now[:12]]}


def test_auto_resume_false_refuses_an_existing_run(make_config: ConfigMaker):
    run_training(make_config(), Recording())
    with pytest.raises(PicoError, match="auto_resume is false"):
        run_training(make_config(checkpointing={"training": {"auto_resume": False}}), Recording())


def test_a_step_that_is_not_finite_is_recorded_and_not_applied(make_config: ConfigMaker):
    changes = {"optimization": {"lr": 1e30, "lr_warmup_steps": 0}, "max_skipped_updates": 2}
    with pytest.raises(PicoError, match=r"2 updates were skipped"):
        run_training(make_config(training=changes), Recording())
    run = Path(make_config().checkpointing.runs_dir) / "tiny"
    dumps = sorted((run / "logs" / "nonfinite").glob("*.json"))
    assert len(dumps) == 3
    assert set(load_file(dumps[0].with_suffix(".random_rank0.safetensors"))) >= {"cpu"}
    dump = json.loads(dumps[0].read_text())
    assert dump["rows"] == list(range(dump["step"] * 8, dump["step"] * 8 + 8))


def test_the_loss_falls(make_config: ConfigMaker):
    rows = Recording()
    run_training(make_config(training={"max_steps": 60}, checkpointing={"steps": [0]}), rows)
    losses = [row["loss"] for row in rows.rows]
    assert sum(losses[-5:]) / 5 < losses[0] - 1.5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": {"dataset": {"name": "no/such/folder"}}}, r"data\.dataset\.name = 'no/such/folder'"),
        ({"data": {"dataloader": {"batch_size": 7}}}, r"batch_size = 7 does not divide"),
        ({"model": {"vocab_size": 100}}, r"model\.vocab_size = 100"),
        ({"model": {"max_seq_len": 8}}, r"model\.max_seq_len = 8"),
        ({"model": {"attention_n_heads": 3}}, r"attention_n_heads = 3"),
        (
            {"checkpointing": {"learning_dynamics": {"layer_suffixes": ["attention.w_proj"]}}},
            r"`attention\.w_proj` matches no layer",
        ),
        ({"checkpointing": {"learning_dynamics": {"eval_data": "nowhere"}}}, r"learning_dynamics\.eval_data = 'nowhere'"),
        ({"checkpointing": {"learning_dynamics": {"sequence_idx": 16}}}, r"sequence_idx: 16 is outside"),
        ({"checkpointing": {"steps": "9,3"}}, r"checkpointing\.steps = '9,3'"),
        ({"checkpointing": {"run_name": "../x"}}, r"checkpointing\.run_name"),
        ({"training": {"max_step": 3}}, r"training\.max_step is not a setting"),
        ({"training": {"method": "reloar"}}, r"training method `reloar` is not known"),
        ({"training": {"optimization": {"optimizer": "adam_w"}}}, r"optimizer `adam_w` is not known"),
        ({"training": {"optimization": {"lr_scheduler": "cos"}}}, r"schedule `cos` is not known"),
        ({"training": {"fabric": {"num_devices": 999}}}, r"does not divide|999 device"),
        ({"training": {"fabric": {"accelerator": "cuda"}}}, r"no CUDA device"),
        ({"evaluation": {"metrics": ["perplexitty"]}}, r"evaluation `perplexitty` is not known"),
    ],
)
def test_a_mistake_gives_one_clear_message_and_writes_nothing(make_config: ConfigMaker, tmp_path: Path, changes, message: str):
    if torch.cuda.is_available() and "cuda" in str(changes):
        pytest.skip("this machine has a CUDA device")
    with pytest.raises(PicoError, match=message):
        run_training(make_config(**changes), Recording())
    assert not (tmp_path / "runs").exists()


def test_all_names_that_cannot_be_reached_are_in_one_message(make_config: ConfigMaker):
    changes = {"data": {"dataset": {"name": "a/b"}}, "checkpointing": {"learning_dynamics": {"eval_data": "c/d"}}}
    with pytest.raises(PicoError, match=r"(?s)data\.dataset\.name = 'a/b'.*eval_data = 'c/d'.*--set"):
        run_training(make_config(**changes), Recording())


@pytest.mark.parametrize(("asked", "dtype"), [("bf16-mixed", torch.bfloat16), ("16-mixed", torch.float16)])
def test_16_bits_that_the_processor_would_only_emulate_train_as_float32_compiled_too(
    make_config: ConfigMaker, asked: str, dtype: torch.dtype
):
    """A compiled backward pass is traced under autocast, so switching it off inside the model would not be enough."""
    from picolm.model.precision import cpu_multiplies

    if cpu_multiplies(dtype):
        pytest.skip(f"this processor multiplies {dtype}: nothing is emulated")
    runs = {}
    for precision in ("32-true", asked):
        changes = {"training": {"compile": True, "deterministic": True, "max_steps": 2, "fabric": {"precision": precision}}}
        runs[precision] = run_training(make_config(precision, **changes), Recording()).run
    assert all_equal(weights(runs["32-true"], 2), weights(runs[asked], 2))
