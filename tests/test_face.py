"""The Python face works as the README shows it, and a run is followed from folder to metric."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

import picolm
from picolm.train.train import run_training

from .train.conftest import make_config, tiny_data  # noqa: F401 - fixtures
from .train.recording import Recording

README = (Path(__file__).parents[1] / "README.md").read_text()


@pytest.fixture
def demo_run(make_config: Any, tmp_path: Path) -> Path:  # noqa: F811
    """A run where the README has one: runs/training below the working directory."""
    return run_training(make_config("training"), Recording()).run


def blocks_of(language: str) -> list[str]:
    """The code blocks of the README in one language."""
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_the_readmes_python_runs_as_it_stands(demo_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    tour = next(block for block in blocks_of("python") if "open_run" in block)
    names: dict[str, Any] = {}
    exec(tour, names)
    assert names["run"].steps == [0, 1, 2, 5, 8]
    assert len(picolm.analyze("runs/training", "table5")) > 100


def test_the_readmes_own_metric_gives_rows(demo_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for language, name in (("python", "spread.py"), ("yaml", "spread.yaml")):
        block = next(block for block in blocks_of(language) if block.startswith(f"# {name}"))
        assert len([line for line in block.splitlines() if line and not line.startswith("#")]) <= 10
        Path(name).write_text(block)
    rows = picolm.analyze("runs/training", "spread.yaml")
    assert set(rows["metric"]) == {"per", "./spread.py:spread"}
    assert rows[rows["metric"] != "per"]["options"].str.contains("columns").sum() == rows["metric"].eq("per").sum()
    assert set(rows["data_type"]) == {"weights", "gradients", "updates"}
    assert rows[rows["value"].isna()]["note"].str.contains("no update was applied").all()


def test_a_run_is_read_without_a_trainer(demo_run: Path):
    run = picolm.open_run(demo_run)
    assert run.config.model.d_model == 16
    assert list(run.log()["step"]) == list(range(1, 9))
    checkpoint = run.checkpoint(5)
    assert (checkpoint.step, checkpoint.tokens) == (5, 5 * 8 * 16)
    logits = checkpoint.load_model()(torch.zeros(1, 4, dtype=torch.long))
    assert logits.shape == (1, 4, 320)
    assert set(checkpoint.snapshot("val").gradients) == set(checkpoint.snapshot("train").gradients)


def test_weights_are_read_under_their_plain_names(demo_run: Path):
    """Query and key rows are stored in another order; the plain tensors are the module's own."""
    checkpoint = picolm.open_run(demo_run).checkpoint(5)
    parameters = dict(checkpoint.load_model().named_parameters())
    weights = checkpoint.snapshot().weights
    assert len(weights) == len(parameters)
    for name in weights:
        assert torch.equal(weights[name], parameters[f"{name}.weight"])


def test_a_step_that_does_not_exist_lists_those_that_do(demo_run: Path):
    with pytest.raises(picolm.PicoError, match="steps: 0, 1, 2, 5, 8"):
        picolm.open_run(demo_run).checkpoint(3)


def test_a_damaged_checkpoint_is_refused_by_name_on_opening(demo_run: Path):
    path = demo_run / "checkpoints" / "step_5" / "learning_dynamics" / "val_activations.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(picolm.PicoError, match=r"val_activations\.safetensors has changed"):
        picolm.open_run(demo_run).checkpoint(5)


def test_a_metric_gives_a_number_or_a_reason():
    rank_one_MN = torch.outer(torch.arange(1.0, 5.0), torch.ones(4))
    assert picolm.metric("per")(rank_one_MN) == pytest.approx(1 / 4)
    with pytest.raises(picolm.Undefined):
        picolm.metric("per")(torch.zeros(3, 3))
    tensor_SD = torch.randn(32, 5, generator=torch.Generator().manual_seed(0))
    assert picolm.metric("cka")(tensor_SD, 2 * tensor_SD, debiased=True) == pytest.approx(1.0)


def test_the_decoder_is_at_hand():
    model = picolm.PicoDecoder(picolm.DecoderConfig(d_model=96, activation_hidden_dim=384, vocab_size=64, n_layers=1))
    assert model(torch.zeros(2, 3, dtype=torch.long)).shape == (2, 3, 64)
