"""`pico new`: what it makes runs as it is, says only what the settings say, and never overwrites."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import jsonschema
import pytest
from typer.testing import CliRunner, Result

import picolm
from picolm.analyze.config import load_analysis
from picolm.base.config import flatten, identity_hash, read_yaml, walk_fields
from picolm.base.errors import PicoError
from picolm.cli.main import app
from picolm.project.make import make_project, start_from_run, start_from_text, template
from picolm.records.rundir import open_run_directory
from picolm.study.config import StudyConfig, load_study
from picolm.testing.checks.component import check_component
from picolm.testing.checks.method import check_method
from picolm.testing.checks.metric import check_metric
from picolm.train.config import load_config, parse_config
from picolm.train.identity import read_config

SCHEMAS = {f"schemas/{name}.schema.json" for name in ("training", "analysis", "study")}
FILES = {"README.md", "mine.py", "training.yaml", "analysis.yaml", "study/study.yaml", *SCHEMAS}
SHORT = ["--set", "training.max_steps=4", "--set", "checkpointing.steps=0,2"]


def pico(*words: str) -> Result:
    return CliRunner().invoke(app, list(words), catch_exceptions=False)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("new") / "first"
    result = pico("new", str(folder))
    assert result.exit_code == 0, result.output
    return folder


@pytest.fixture
def inside(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project as working directory."""
    monkeypatch.chdir(project)
    return project


@pytest.fixture
def mine(project: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("mine_of_a_project", project / "mine.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["mine_of_a_project"] = module
    spec.loader.exec_module(module)
    return module


def test_it_writes_the_files_and_says_what_to_do_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("picolm.project.make.prepare_demo_data", prepared_for_free)
    result = pico("new", str(tmp_path / "it"))
    assert {path.removeprefix(f"{tmp_path / 'it'}/") for path in result.stdout.splitlines()} == FILES
    assert result.stderr.splitlines()[-1] == f"next: cd {tmp_path / 'it'} && pico train training.yaml"


def prepared_for_free(*_: Any, **__: Any) -> Any:
    from types import SimpleNamespace

    return SimpleNamespace(manifest={"entropy_floor_nats_per_token": 2.0})


def test_its_run_is_trained_analysed_with_its_own_metric_and_drawn(inside: Path):
    assert pico("train", "training.yaml", *SHORT).exit_code == 0
    assert pico("analyze", "runs/training", "analysis.yaml").exit_code == 0
    rows = picolm.open_run("runs/training").rows("mine")
    gaps = rows[(rows["metric"] == "./mine.py:gap") & (rows["component"] == "./mine.py:gates_and_units")]
    assert sorted(gaps["step"].unique()) == [0, 2, 4]
    assert gaps["value"].between(0, 1).all()
    page = Path(pico("report", "runs/training").stdout.strip())
    assert "gap" in page.read_text()


def test_its_method_trains_under_the_name_the_study_gives_it(inside: Path):
    study = load_study(Path("study"))
    named = study.variants["noisy"].set["training.method"]
    config = load_config(Path("training.yaml"), [f"training.method={named}".replace("'", ""), *SHORT[1::2]])
    assert (config.training.method.name, config.training.method.options) == ("./mine.py:NoisyGradient", {"share": 4.0})
    method = [f"training.method={{name: {named['name']}, share: {named['share']}}}", "checkpointing.run_name=noisy"]
    assert pico("train", "training.yaml", *SHORT, "--set", method[0], "--set", method[1]).exit_code == 0
    assert list(picolm.open_run("runs/noisy").log()["noise_share"]) == pytest.approx([4.0, 4.0 / 2])


def test_what_is_in_mine_keeps_every_promise(mine: ModuleType):
    findings = [
        *check_metric(mine.gap),
        *check_component(mine.gates_and_units),
        *check_method(mine.NoisyGradient, processes=False),
    ]
    assert [(finding.promise, finding.detail) for finding in findings if not finding.ok] == []


def test_every_comment_is_a_sentence_of_a_setting(inside: Path):
    config = load_config(Path("training.yaml"))
    for name, model in (("training.yaml", type(config)), ("study/study.yaml", StudyConfig)):
        said = " ".join(sentences_of(model).split())
        lines = Path(name).read_text().splitlines()
        comments = [line.strip().removeprefix("# ") for line in lines[3:] if line.strip().startswith("#")]
        assert len(comments) > 20
        assert [comment for comment in comments if comment.lower() not in said.lower()] == []


def sentences_of(model: Any) -> str:
    """All sentences that stand in the source of the settings of a file, sections included."""
    import inspect
    import re

    modules = {inspect.getmodule(kind) for kind in settings_below(model)}
    text = " ".join(inspect.getsource(module) for module in modules if module is not None)
    return re.sub(r"\\(.)", r"\1", text)


def settings_below(model: Any, seen: set[Any] | None = None) -> set[Any]:
    from picolm.base.config import Settings, element_types, leaf_types

    seen = set() if seen is None else seen
    if model in seen:
        return seen
    seen |= {model, *(base for base in model.__mro__ if base.__module__.startswith("picolm."))}
    for field in model.model_fields.values():
        kinds = list(leaf_types(field.annotation))
        for kind in [*kinds, *element_types(kinds)]:
            if isinstance(kind, type) and issubclass(kind, Settings):
                settings_below(kind, seen)
    return seen


def test_all_writes_every_setting_that_has_an_effect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("picolm.project.make.prepare_demo_data", prepared_for_free)
    assert pico("new", str(tmp_path / "all"), "--all").exit_code == 0
    written = read_yaml(tmp_path / "all" / "training.yaml")
    config = load_config(tmp_path / "all" / "training.yaml")
    effective = {key for key, field in walk_fields(type(config)) if not (field.description or "").startswith("Accepted")} - {
        "checkpointing.run_name",
        "checkpointing.runs_dir",
    }
    given = flatten(parse_config(written, "it", default_name="x"))
    assert effective <= set(given)
    assert [key for key in effective if not is_written(written, key)] == []


def is_written(values: Any, key: str) -> bool:
    for part in key.split("."):
        if part not in values:
            return False
        values = values[part]
    return True


def test_a_folder_with_something_in_it_is_refused(tmp_path: Path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(PicoError, match="is not empty"):
        pico("new", str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    with pytest.raises(PicoError, match="is a file"):
        pico("new", str(tmp_path / "notes.txt"))


def test_from_a_run_gives_the_run_again(inside: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Trained from its own folder, the new file makes the same run: same data, same settings, same weights."""
    pico("train", "training.yaml", *SHORT, "--set", "checkpointing.run_name=first", "--set", "model.d_model=32")
    again = tmp_path / "again"
    make_project(again, start_from_run(again, "runs/first"))
    before = read_config(open_run_directory("runs/first"))
    monkeypatch.chdir(again)
    after = load_config(Path("training.yaml"))
    assert after.model == before.model
    assert after.training == before.training
    assert Path(after.data.dataset.name).resolve() == Path(inside / before.data.dataset.name).resolve()
    assert pico("train", "training.yaml").exit_code == 0
    first, second = picolm.open_run(inside / "runs/first").checkpoint(4), picolm.open_run("runs/training").checkpoint(4)
    assert (first.path / "model.safetensors").read_bytes() == (second.path / "model.safetensors").read_bytes()


def test_own_text_becomes_a_project_of_its_own_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path("book.txt").write_text("\n\n".join(f"Chapter {n}. The keeper counted the {n} boats twice." * 8 for n in range(120)))
    said: list[str] = []
    make_project(Path("own"), start_from_text(Path("own"), ["book.txt"], documents="paragraphs", say=said.append))
    assert "learned by heart" in said[-1]
    monkeypatch.chdir("own")
    config = load_config(Path("training.yaml"))
    assert config.data.dataset.name == "data/text"
    assert [entry.name for entry in config.evaluation.entries] == ["perplexity"]
    assert pico("train", "training.yaml", *SHORT).exit_code == 0
    assert load_study(Path("study")).base == "../training.yaml"
    assert load_analysis("analysis.yaml").analysis_name == "mine"


def test_text_that_leaves_nothing_to_hold_out_is_refused(tmp_path: Path):
    (tmp_path / "short.txt").write_text("Too short.")
    with pytest.raises(PicoError, match="the train split has"):
        start_from_text(tmp_path / "own", [str(tmp_path / "short.txt")], documents="file", say=lambda _: None)


def test_a_study_of_a_run_without_perplexity_measures_its_training_loss(inside: Path, tmp_path: Path):
    pico("train", "training.yaml", *SHORT, "--set", "checkpointing.run_name=bare", "--set", "evaluation.metrics=null")
    make_project(tmp_path / "bare", start_from_run(tmp_path / "bare", "runs/bare"))
    assert load_study(tmp_path / "bare" / "study").measures["final_loss"].series == "train.loss"


def test_the_readme_names_every_file_and_no_other():
    text = template("README.md")
    assert [name for name in FILES - SCHEMAS - {"README.md"} if f"`{name}`" not in text] == []


@pytest.mark.parametrize("name", ["training.yaml", "analysis.yaml", "study/study.yaml"])
def test_editors_are_told_which_schema_a_file_follows_and_it_does(name: str, inside: Path):
    """The first line is a comment that YAML language servers read; the path is relative to the file."""
    first = Path(name).read_text().splitlines()[0]
    place = Path(name).parent / first.removeprefix("# yaml-language-server: $schema=")
    schema = json.loads(place.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    assert [error.message for error in jsonschema.Draft202012Validator(schema).iter_errors(read_yaml(Path(name)))] == []


def test_identity_does_not_depend_on_the_comments(inside: Path):
    config = load_config(Path("training.yaml"))
    assert identity_hash(config) == identity_hash(parse_config(read_yaml(Path("training.yaml")), "x", default_name="training"))
