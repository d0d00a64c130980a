"""The documentation of the data room: commands and options exist, YAML is accepted, numbers are those of the code."""

from __future__ import annotations

import gzip
import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy
import pytest
import typer.main
from typer.testing import CliRunner

from picolm.base.config import parse_settings, parse_yaml
from picolm.cli.data import app
from picolm.data.contract import DataConfig
from picolm.data.prepare import open_prepared
from picolm.data.synthetic import LanguageSettings, build_language

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = (DOCS / "guides/data.md", DOCS / "concepts/synthetic-language.md")


def test_every_command_and_option_exists():
    group = typer.main.get_command(app)
    lines = [line.strip() for page in PAGES for line in page.read_text().splitlines() if re.match(r"pico data ", line)]
    assert len(lines) > 12
    for line in lines:
        _, _, verb, *arguments = shlex.split(line, comments=True)
        known = {option for parameter in group.commands[verb].params for option in parameter.opts + parameter.secondary_opts}
        used = {argument for argument in arguments if argument.startswith("--")}
        assert used <= known, f"{line}: {used - known}"


def recipe(start: str) -> list[str]:
    """The arguments of the command of the guide that begins so."""
    text = PAGES[0].read_text().partition("### Recipes")[2]
    (line,) = [line.strip() for line in text.splitlines() if line.strip().removeprefix("pico data ").startswith(start)]
    return shlex.split(line, comments=True)[2:]


def run_recipe(arguments: list[str], replaced: dict[str, str]) -> dict[str, Any]:
    """What the command tells, with the big things it names replaced by small ones."""
    small = [replaced.get(argument, argument) for argument in arguments]
    result = CliRunner().invoke(app, [*small, "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_the_recipes_of_the_papers_data_run_on_small_stand_ins(tmp_path: Path, monkeypatch, texts, tokenizer):
    monkeypatch.chdir(tmp_path)
    for name, documents in (
        ("dolma/a", texts),
        ("dolma/b", texts[::-1]),
        ("domains/web/val", texts),
        ("domains/books/val", texts),
    ):
        path = Path(f"{name}.json.gz" if name.startswith("dolma") else f"{name}.jsonl.gz")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress("".join(json.dumps({"text": f"{name}: {text}"}) + "\n" for text in documents).encode()))
    small = {"allenai/OLMo-7B-0724-hf": str(tokenizer.file)}
    dolma = run_recipe([*recipe('prepare "dolma'), "--max-seq-len", "15"], small | {"10000": "100"})
    assert dolma["splits"]["train"]["shards"] == 100
    assert 120 < dolma["splits"]["train"]["documents"] < 240, "30 % of 600"
    run_recipe([*recipe('prepare "dolma'), "--max-seq-len", "15"], small | {"10000": "7", "data/dolma": "data/few"})
    rows, same = (open_prepared(Path(name)).split("train") for name in ("data/dolma", "data/few"))
    every = numpy.arange(rows.rows)
    assert (rows.read(every) == same.read(every)).all(), "the number of shards changes neither rows nor order"
    tinsy = run_recipe([*recipe("prepare --val"), "--max-seq-len", "15"], small)
    assert set(tinsy["splits"]) == {"val"}
    assert 2 <= tinsy["splits"]["val"]["documents"] < 40, "2 % of 600"
    overlap = ["overlap", "data/dolma", "--against", "data/domains-tinsy"]
    assert " ".join(overlap) in PAGES[0].read_text()
    assert run_recipe(overlap, {})


def test_every_yaml_block_is_accepted():
    blocks = [block for page in PAGES for block in re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL)]
    assert blocks
    for block in blocks:
        parse_settings(DataConfig, parse_yaml(block, "docs")["data"], "docs")


def test_the_numbers_of_the_synthetic_language_are_those_of_the_code():
    text = PAGES[1].read_text()
    language = build_language(LanguageSettings())
    assert f"{language.entropy_per_sentence:.2f} nats for {language.words_per_sentence:.2f} words" in text
    words = language.words_per_sentence * language.settings.sentences_per_document
    assert f"{language.entropy_per_document / words:.2f} nats per word" in text
    for name, field in LanguageSettings.model_fields.items():
        row = re.search(rf"\| `{name}` \| (\S+) \|", text)
        assert row is not None, name
        assert float(row[1]) == pytest.approx(field.default)
