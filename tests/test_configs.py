"""Every configuration that ships is parsed, and files written for the original load unchanged."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from picolm.base.config import walk_fields
from picolm.base.errors import PicoError
from picolm.model.contract import parameter_count
from picolm.model.decoder import DecoderConfig
from picolm.train.config import RunConfig, load_config, notes

CONFIGS = Path(__file__).parents[1] / "configs"

TABLE_3 = {
    "data.dataset.name": "pico-lm/pretokenized-dolma",
    "data.dataloader.batch_size": 1024,
    "data.tokenizer.name": "allenai/OLMo-7B-0724-hf",
    "data.tokenizer.vocab_size": 50304,
    "model.model_type": "pico_decoder",
    "model.d_model": 768,
    "model.n_layers": 12,
    "model.vocab_size": 50304,
    "model.batch_size": 1024,
    "model.max_seq_len": 2048,
    "model.attention_n_heads": 12,
    "model.attention_n_kv_heads": 4,
    "model.activation_hidden_dim": 3072,
    "model.norm_eps": 1e-6,
    "model.position_emb_theta": 10000.0,
    "training.max_steps": 200000,
    "training.optimization.lr": 3e-4,
    "training.optimization.lr_warmup_steps": 2500,
    "training.optimization.gradient_accumulation_steps": 128,
    "training.fabric.num_nodes": 1,
    "training.fabric.num_devices": 1,
    "training.fabric.precision": "bf16-mixed",
    "checkpointing.run_name": None,
    "checkpointing.runs_dir": "runs",
    "checkpointing.checkpoints_dir": "checkpoints",
    "checkpointing.logs_dir": "logs",
    "checkpointing.fabric_checkpoint_dir": "fabric_state",
    "checkpointing.fabric_checkpoint_filename": "checkpoint.pt",
    "checkpointing.learning_dynamics_dir": "learning_dynamics",
    "checkpointing.save_every_n_steps": 1000,
    "checkpointing.save_to_hf": False,
    "checkpointing.hf_checkpoint.repo_id": "",
    "checkpointing.hf_checkpoint.collection_slug": None,
    "checkpointing.training.auto_resume": True,
    "checkpointing.evaluation.eval_results_dir": "eval_results",
    "checkpointing.learning_dynamics.layer_suffixes": ("attention.v_proj", "attention.o_proj", "swiglu.w_2"),
    "checkpointing.learning_dynamics.sequence_idx": -1,
    "checkpointing.learning_dynamics.batch_size": 8,
    "checkpointing.learning_dynamics.eval_data": "pico-lm/pretokenized-paloma-tinsy",
    "evaluation.paloma.dataset_name": "pico-lm/pretokenized-paloma-tinsy",
    "evaluation.paloma.dataset_split": "val",
    "evaluation.paloma.max_length": 2048,
    "evaluation.paloma.batch_size": 16,
    "monitoring.logging.log_level": "INFO",
    "monitoring.logging.log_every_n_steps": 100,
    "monitoring.save_to_wandb": False,
    "monitoring.wandb.project": "",
    "monitoring.wandb.entity": "",
}
"""Every key of the original's training file with its default; `accelerator` differs on purpose (auto instead of cuda)."""


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.name)
def test_every_shipped_configuration_parses(path: Path):
    config = load_config(path)
    assert config.run_name
    assert config.checkpoint_steps[-1] == config.training.max_steps


@pytest.mark.parametrize(("key", "default"), TABLE_3.items())
def test_every_key_of_the_original_has_its_default(key: str, default: object):
    fields = dict(walk_fields(RunConfig[DecoderConfig]))
    assert fields[key].get_default(call_default_factory=True) == default


def test_the_names_that_became_objects_still_default_to_the_originals():
    optimization = load_config(CONFIGS / "pico-decoder-medium.yaml").training.optimization
    assert (optimization.optimizer.name, optimization.lr_scheduler.name) == ("adamw", "linear_with_warmup")
    assert (optimization.betas, optimization.eps, optimization.weight_decay, optimization.clip_norm) == (
        (0.9, 0.999),
        1e-8,
        0.01,
        None,
    )


@pytest.mark.parametrize(("size", "millions"), [("tiny", 11.28), ("small", 64.6), ("medium", 181.0), ("large", 570.0)])
def test_the_suite_has_the_papers_parameter_counts(size: str, millions: float):
    count = parameter_count(load_config(CONFIGS / f"pico-decoder-{size}.yaml").model)
    assert count / 1e6 == pytest.approx(millions, rel=2e-3)


def test_a_training_file_written_for_the_original_loads_and_says_what_has_no_effect(tmp_path: Path):
    """The shape of the original's suite files, with every key of its configuration given."""
    content: dict[str, object] = {}
    for key, value in {**TABLE_3, "evaluation.metrics": ["paloma"], "training.optimization.optimizer": "adamw"}.items():
        section = content
        *parents, last = key.split(".")
        for parent in parents:
            section = section.setdefault(parent, {})  # type: ignore[assignment]
        section[last] = list(value) if isinstance(value, tuple) else value
    content["checkpointing"]["run_name"] = "pico-decoder-tiny-1"  # type: ignore[index]
    content["checkpointing"]["save_to_hf"] = True  # type: ignore[index]
    content["checkpointing"]["hf_checkpoint"]["repo_id"] = "pico-lm/demo"  # type: ignore[index]
    content["training"]["fabric"].update(num_nodes=4, num_devices=4, accelerator="cuda")  # type: ignore[index]
    content["training"]["optimization"].update(gradient_accumulation_steps=4, lr_scheduler="linear_with_warmup")  # type: ignore[index]
    path = tmp_path / "original.yaml"
    path.write_text(yaml.safe_dump(content))
    config = load_config(path)
    assert config.run_name == "pico-decoder-tiny-1"
    assert config.training.fabric.accelerator == "cuda"
    assert any(note.startswith("model.batch_size: Accepted") for note in notes(config))


def test_every_setting_has_a_sentence():
    silent = [key for key, field in walk_fields(RunConfig[DecoderConfig]) if not (field.description or "").strip()]
    assert silent == []


@pytest.mark.parametrize("key", [key for key, _ in walk_fields(RunConfig[DecoderConfig])])
def test_a_misspelt_key_names_the_right_one(key: str):
    section, _, last = key.rpartition(".")
    misspelt = f"{section}.{last}s" if not last.endswith("s") else f"{section}.{last[:-1]}"
    known = {name for name, _ in walk_fields(RunConfig[DecoderConfig])}
    if misspelt in known:
        pytest.skip("that is another setting")
    with pytest.raises(PicoError) as caught:
        load_config(CONFIGS / "pico-decoder-tiny.yaml", [f"{misspelt}=1"])
    assert caught.value.message.endswith(f"{misspelt} is not a setting")
    assert key in caught.value.hint
