"""The wheel in an environment of its own: it brings all it needs, and says in one sentence which extra is missing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from picolm.cli.main import VERBS

from .make_environment import PLACE, PYTHON, ROOT

Outcome = subprocess.CompletedProcess[str]
Command = Callable[..., Outcome]
EXTRAS = ("transformers", "datasets", "lm_eval", "wandb", "tensorboard", "submitit", "playwright", "pytest", "sphinx")
SHORT = ("--set", "training.max_steps=4", "--set", "checkpointing.steps=[0]", "--set", "evaluation.metrics=null")
TRACKED = (*SHORT, "--set", "checkpointing.run_name=tracked")


def outside(*words: str, folder: Path) -> Outcome:
    """A command of the installed package, in a folder that is not the repository and with nothing of it on any path."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "PICO"))}
    environment |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [str(PYTHON.with_name("pico")), *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("newcomer")
    assert (made := outside("new", "first", folder=folder)).returncode == 0, made.stderr
    return folder / "first"


@pytest.fixture(scope="module")
def pico(project: Path) -> Command:
    """A command in the project that must succeed, or with `code` end as said."""

    def run(*words: str, code: int = 0) -> Outcome:
        result = outside(*words, folder=project)
        assert result.returncode == code, result.stderr[-3000:]
        return result

    return run


def test_the_environment_has_no_extra_and_not_the_repository():
    script = "import importlib.util, json, picolm, sys; " + (
        f"print(json.dumps([picolm.__file__, [n for n in {EXTRAS!r} if importlib.util.find_spec(n)]]))"
    )
    result = subprocess.run([PYTHON, "-I", "-c", script], capture_output=True, text=True, check=True, cwd=PLACE)
    place, extras = json.loads(result.stdout)
    assert str(ROOT / "src") not in place
    assert extras == []


def test_the_wheel_holds_the_package_and_its_data_and_nothing_else():
    (wheel,) = (PLACE / "wheels").glob("picolm-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name.split("/")[0].split("-")[0] for name in names} == {"picolm"}
    for needed in (
        "configs/demo.yaml",
        "project/templates/mine.py",
        "project/templates/study.yaml",
        "analyze/presets/table5.yaml",
    ):
        assert f"picolm/{needed}" in names
    assert not [name for name in names if name.endswith((".pyc", ".ipynb")) or "/tests/" in name]


@pytest.mark.parametrize("verb", list(VERBS))
def test_every_verb_has_its_help(verb: str, pico: Command):
    assert VERBS[verb].sentence.split()[0] in pico(verb, "--help").stdout


def test_a_newcomer_goes_from_nothing_to_a_report_with_a_metric_of_their_own(project: Path, pico: Command):
    assert pico("--version").stdout.startswith("pico ")
    pico("train", "training.yaml")
    (project / "spread.py").write_text(
        "def spread(matrix_MN):\n    return float(matrix_MN.norm(dim=1).std())\n", encoding="utf-8"
    )
    analysis = (
        "analysis_name: spread\nmetrics: [./spread.py:spread]\ncomponents: [{name: simple, data_type: [weights, gradients]}]\n"
    )
    (project / "spread.yaml").write_text(analysis, encoding="utf-8")
    pico("analyze", "runs/training", "analysis.yaml")
    pico("analyze", "runs/training", "spread.yaml")
    page = project / pico("report", "runs/training").stdout.strip()
    assert "spread" in page.read_text(encoding="utf-8")
    pico("study", "lock", "study")
    pico("study", "plan", "study")


WITHOUT: dict[str, tuple[str, tuple[str, ...]]] = {
    "transformers": ("hf", ("capture", "series/step{step}", "--data", "data/language", "--out", "runs/captured")),
    "datasets": ("hf", ("data", "prepare", "hf:owner/name", "--tokenizer", "data/language", "--out", "data/hub")),
    "lm-eval": ("eval", ("evaluate", "runs/bare", "--metric", "lm_eval:tasks=[piqa]")),
    "tensorboard": ("tensorboard", ("train", "training.yaml", *TRACKED, "--set", "monitoring.tensorboard=true")),
    "wandb": ("wandb", ("train", "training.yaml", *TRACKED, "--set", "monitoring.save_to_wandb=true")),
}


@pytest.mark.parametrize("package", WITHOUT)
def test_what_needs_a_missing_extra_says_so_in_one_sentence_that_names_it(package: str, project: Path, pico: Command):
    extra, command = WITHOUT[package]
    if not (project / "runs" / "bare").is_dir():
        pico("train", "training.yaml", *SHORT, "--set", "checkpointing.run_name=bare")
        ours = shutil.ignore_patterns("manifest.json", "layout.json", "training_state", "learning_dynamics")
        shutil.copytree(project / "runs" / "bare" / "checkpoints" / "step_4", project / "series" / "step4", ignore=ours)
    result = outside(*command, folder=project)
    said = result.stderr + result.stdout
    assert "Traceback" not in said
    assert f"picolm[{extra}]" in said, said[-1500:]
