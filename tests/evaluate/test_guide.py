"""What the guide shows is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from picolm.base.config import parse_settings, parse_yaml
from picolm.evaluate.contract import EVALUATIONS, EvaluationConfig, build_evaluations, check_evaluations, run_evaluations

GUIDE = (Path(__file__).parents[2] / "docs/guides/evaluate.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL)


def test_its_code_runs(bigram, tokenizer, tmp_path, monkeypatch):
    (yaml,), (python,) = blocks("yaml"), blocks("python")
    (tmp_path / "mine.py").write_text(python.replace("The cat sat on the mat.", "A short text."))
    monkeypatch.chdir(tmp_path)
    config = parse_settings(EvaluationConfig, parse_yaml(yaml, "guide")["evaluation"], "guide")
    evaluations = build_evaluations(config, tokenizer=tokenizer)
    assert [named.label for named in evaluations] == ["perplexity", "domains", "blimp", "hellaswag", "samples", "score"]
    check_evaluations(evaluations[-1:])
    (score,) = run_evaluations(evaluations[-1:], bigram, tokenizer).scores
    assert score.value == pytest.approx(bigram.log_prob([256, *b"A short text."]), rel=1e-6)


def test_it_names_every_evaluation():
    assert all(f"`{entry.name}`" in GUIDE for entry in EVALUATIONS.entries())
