"""The documentation of the data room: commands and options exist, YAML is accepted, numbers are those of the code."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer.main

from picolm.base.config import parse_settings, parse_yaml
from picolm.cli.data import app
from picolm.data.contract import DataConfig
from picolm.data.synthetic import LanguageSettings, build_language

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = (DOCS / "guides/data.md", DOCS / "concepts/synthetic-language.md")


def test_every_command_and_option_exists():
    group = typer.main.get_command(app)
    lines = [line.strip() for page in PAGES for line in page.read_text().splitlines() if re.match(r"    pico data ", line)]
    assert len(lines) > 12
    for line in lines:
        _, _, verb, *arguments = shlex.split(line, comments=True)
        known = {option for parameter in group.commands[verb].params for option in parameter.opts + parameter.secondary_opts}
        used = {argument for argument in arguments if argument.startswith("--")}
        assert used <= known, f"{line}: {used - known}"


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
