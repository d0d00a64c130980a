from __future__ import annotations

import csv
import json
import shutil
import sys
from pathlib import Path

import pytest
import torch

from picolm.cli.main import main
from picolm.data.tokenizer import train_tokenizer
from picolm.model.contract import build_model, save_model
from picolm.model.decoder import DecoderConfig
from picolm.records.evaluation import read_scores, read_settings
from picolm.records.items import read_items
from picolm.records.manifest import Manifest, sealed_folder
from picolm.records.rundir import RunDirectory

TEXT = "The cat sat on the mat. A dog ran after the cat, and the cat ran up a tree. "


@pytest.fixture(scope="module")
def tokenizer_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    train_tokenizer(iter([TEXT * 20]), path, vocab_size=280)
    return path


def write_model(folder: Path, tokenizer_file: Path, seed: int) -> None:
    config = DecoderConfig(
        vocab_size=280,
        max_seq_len=48,
        d_model=16,
        n_layers=1,
        attention_n_heads=2,
        attention_n_kv_heads=1,
        activation_hidden_dim=16,
    )
    save_model(build_model(config, torch.Generator().manual_seed(seed)), folder)
    shutil.copy(tokenizer_file, folder / "tokenizer.json")


@pytest.fixture
def place(tmp_path: Path, tokenizer_file: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with texts, pairs, questions, two models and a run with two checkpoints."""
    monkeypatch.chdir(tmp_path)
    Path("text.jsonl").write_text(json.dumps({"text": TEXT}) + "\n")
    Path("pairs.jsonl").write_text(
        "".join(json.dumps({"sentence_good": f"The cat {i}.", "sentence_bad": f"Cat the {i}."}) + "\n" for i in range(6))
    )
    questions = [{"query": "The cat", "choices": ["sat", "tree", "mat"], "gold": i % 3} for i in range(6)]
    Path("questions.json").write_text(json.dumps(questions))
    for seed, name in enumerate(("one", "two")):
        write_model(Path(name), tokenizer_file, seed)
    run = RunDirectory(Path("runs/tiny"))
    run.write_identity({"name": "tiny"})
    run.config_file.write_text("evaluation: {metrics: [{name: perplexity, data: text.jsonl}]}\n")
    for step in (0, 10):
        with sealed_folder(run.checkpoint(step), Manifest(step=step, tokens=step * 64, parent=None, config_hash="0")) as folder:
            write_model(folder, tokenizer_file, step)
    return tmp_path


def pico(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["pico", "evaluate", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_a_runs_own_evaluations_are_written_into_the_run(place, monkeypatch, capsys):
    assert pico(monkeypatch, "runs/tiny") == 0
    rows = read_scores(RunDirectory(Path("runs/tiny")))
    assert sorted(set(rows.step)) == [0, 10] and set(rows.tokens) == {0, 640}
    assert "perplexity" in set(rows.measure) and (rows.value > 0).all()
    printed = capsys.readouterr()
    assert "tiny@10" in printed.out and printed.err.strip().endswith("next: pico report runs/tiny")


def test_other_evaluations_of_chosen_steps_are_added_to_those_there(place, monkeypatch, capsys):
    assert pico(monkeypatch, "runs/tiny", "--steps", "10") == 0
    assert (
        pico(
            monkeypatch,
            "runs/tiny@10",
            "--metric",
            "minimal_pairs:data=pairs.jsonl",
            "--metric",
            "samples:prompts=[The],max_new_tokens=4",
        )
        == 0
    )
    run = RunDirectory(Path("runs/tiny"))
    assert set(read_settings(run, 10)) == {"perplexity", "minimal_pairs", "samples"} and not read_settings(run, 0)
    assert read_settings(run, 10)["samples"]["samples"][0]["prompt"] == "The"
    assert "The|" in capsys.readouterr().out


def test_single_items_of_a_run_are_kept_and_their_mean_is_the_score(place, monkeypatch, capsys):
    assert (
        pico(monkeypatch, "runs/tiny@10", "--metric", "minimal_pairs:data=pairs.jsonl", "--metric", "perplexity:data=text.jsonl")
        == 0
    )
    run = RunDirectory(Path("runs/tiny"))
    rows = read_scores(run).query("group == 'all'").set_index("measure").value
    pairs, texts = (read_items(run, 10, name) for name in ("minimal_pairs", "perplexity"))
    assert pairs.measure == "accuracy" and len(pairs.values) == len(pairs.clusters) == 6
    assert sum(pairs.values) / 6 == rows["accuracy"]
    assert sum(texts.values) / sum(texts.weights) == pytest.approx(rows["loss_per_token"])
    assert read_items(run, 0, "minimal_pairs") is None


def test_a_model_folder_is_scored_and_printed_as_json(place, monkeypatch, capsys):
    assert pico(monkeypatch, "one", "--metric", "multiple_choice:data=questions.json", "--json") == 0
    content = json.loads(capsys.readouterr().out)
    accuracy = next(score for score in content["scores"] if score["measure"] == "accuracy")
    assert accuracy["baseline"] == pytest.approx(1 / 3) and accuracy["n"] == 6
    assert content["settings"]["multiple_choice"]["delimiter"] == " "


@pytest.mark.parametrize("ending", ["csv", "md", "tex", "json"])
def test_models_stand_side_by_side_with_the_quoted_rows_of_the_paper(place, monkeypatch, capsys, ending):
    metrics = ["perplexity:data=text.jsonl,label=paloma", "multiple_choice:data=questions.json,label=hellaswag"]
    options = [piece for metric in metrics for piece in ("--metric", metric)]
    assert pico(monkeypatch, "one", "two", "runs/tiny", *options, "--table", "--output", f"table.{ending}") == 0
    text = Path(f"table.{ending}").read_text()
    assert "two - one, hellaswag:" in capsys.readouterr().err, "differences are paired, item by item"
    if ending == "json":
        entries = json.loads(text)
        assert [entry["model"] for entry in entries] == ["one", "two", "tiny@10"]
        assert [gap["first"] for gap in entries[1]["differences"]] == ["one", "one"] and not entries[0]["differences"]
        return
    assert "tiny@10" in text and "136.17" in text and "quoted" in text.lower() and "arXiv 2509.16413" in text
    if ending == "csv":
        rows = list(csv.DictReader(text.splitlines()))
        assert len(rows) == 3 + 10 and rows[0]["source"] == "measured" and rows[-1]["model"] == "OPT 350M"
        assert float(rows[0]["paloma"]) > 1 and rows[2]["tokens"] == "640"
        assert rows[0]["hellaswag_difference"] == "" and rows[-1]["hellaswag_difference"] == ""
        gap = float(rows[1]["hellaswag_difference"])
        assert 100 * gap == pytest.approx(float(rows[1]["hellaswag"]) - float(rows[0]["hellaswag"]))
        assert float(rows[1]["paloma_difference_standard_error"] or 0) >= 0
    else:
        assert text.count("tiny@10") == 3, "in the table, and twice among the differences"
        assert "Differences from one, item by item (paired)" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere/at/all"], "neither a run folder nor a model folder"),
        (["runs/tiny", "--steps", "7"], "no checkpoint of step 7"),
        (["runs/tiny", "--steps", "x"], "not a list of steps"),
        (["one"], "which evaluations?"),
        (["one", "--metric", "perplexity:data=text.jsonl", "--output", "x.doc"], "not a known format"),
        (["one", "--metric", "perplexity:data=text.jsonl,label=../x"], "cannot name a file"),
        (["one", "--metric", "blmp"], "did you mean `blimp`"),
        (["one", "--metric", "perplexity:data=test.jsonl"], "did you mean `text.jsonl`"),
        (["one", "--metric", "samples:max_new_tokens=90"], "the model accepts 48"),
    ],
)
def test_mistakes_get_one_clear_error_and_nothing_is_written(place, monkeypatch, capsys, arguments, message):
    assert pico(monkeypatch, *arguments) == 2
    assert message in capsys.readouterr().err.replace("\n", " ")
    assert not RunDirectory(Path("runs/tiny")).evaluations.exists()


def test_one_revision_of_a_published_series_is_a_model_too(place, monkeypatch, capsys):
    asked = []

    def download(name, *, revision, allow_patterns):
        asked.append((name, revision, allow_patterns))
        return str(place / "one")

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert pico(monkeypatch, "owner/suite@demo-step-10", "--metric", "multiple_choice:data=questions.json") == 0
    assert capsys.readouterr().out.startswith("owner/suite@demo-step-10\n")
    assert asked == [("owner/suite", "demo-step-10", ["*.json", "*.safetensors"])]
