"""Whatever line is lost and whatever key is misspelt: the file loads with the default, or the error names the right one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from picolm.analyze.config import AnalysisConfig
from picolm.analyze.plan import plan_analysis
from picolm.base.config import Settings, flatten, parse_settings, parse_yaml, walk_fields
from picolm.base.errors import PicoError
from picolm.evaluate.contract import build_evaluations
from picolm.optim.contract import build_schedule
from picolm.schemas.build import schema_of
from picolm.study.config import parse_study
from picolm.train.config import parse_config

ROOT = Path(__file__).parents[2]
FILES = {
    "configs/demo.yaml": "training",
    "src/picolm/analyze/presets/table5.yaml": "analysis",
    "studies/planted-effect/study.yaml": "study",
}
"""Files of each kind that between them use every form; all others are held to the schemas."""
LINE_KEY = re.compile(r"^\s*(?:- )?([A-Za-z_][\w.]*):")
ANY_KEY = re.compile(r"(?:^|[\s{,])([a-z_][a-z0-9_]*):(?=\s|$)")


def load(kind: str, text: str) -> Settings:
    """The settings in a text, names and options looked up as before a run; PicoError for anything wrong."""
    content = parse_yaml(text, "file.yaml") or {}
    if kind == "study":
        return parse_study(content, "file.yaml")
    if kind == "analysis":
        analysis = parse_settings(AnalysisConfig, content, "file.yaml")
        plan_analysis(analysis, [0, 10])
        return analysis
    training = parse_config(content, "file.yaml", default_name="file")
    named = training.training.optimization.lr_scheduler
    build_schedule(named, max_steps=10, warmup_steps=1, tokens_per_step=8)
    build_evaluations(training.evaluation)
    return training


def lines_of(file: str) -> list[str]:
    return (ROOT / file).read_text(encoding="utf-8").splitlines(keepends=True)


def deletions() -> list[tuple[str, int]]:
    """(file, line) of every line that says something: not comments, and not the middle of a longer text."""
    return [
        (file, number)
        for file in FILES
        for number, line in enumerate(lines_of(file))
        if LINE_KEY.match(line) or line.lstrip().startswith("- ")
    ]


def block_end(lines: list[str], number: int) -> int:
    """The first line after the block that a line begins."""
    indent = len(lines[number]) - len(lines[number].lstrip())
    for later in range(number + 1, len(lines)):
        if lines[later].strip() and len(lines[later]) - len(lines[later].lstrip()) <= indent:
            return later
    return len(lines)


def names_what_is_missing(error: PicoError, lines: list[str], number: int) -> bool:
    """Whether an error names a key of the lost line or the section it stood in, or the lines that hang in the air without it."""
    text = f"{error.message} {error.hint}"
    above = next((match[1] for line in reversed(lines[:number]) if (match := LINE_KEY.match(line))), "")
    words = {*re.findall(r"([A-Za-z_][\w.]*):", lines[number]), above} - {""}
    at = re.search(r"line (\d+)", text)
    first = next(place for place, line in enumerate(lines) if line.strip() and line.strip()[0] != "#")
    if number == first and "first key" in text:
        return True
    near = at is not None and number <= int(at[1]) <= block_end(lines, number) + 2
    return near or any(word in text for word in words)


@pytest.mark.parametrize(("file", "number"), deletions(), ids=lambda each: str(each).rpartition("/")[2])
def test_a_lost_line_is_named_or_has_a_default(file: str, number: int):
    lines, kind = lines_of(file), FILES[file]
    whole = flatten(load(kind, "".join(lines)))
    try:
        left = load(kind, "".join(lines[:number] + lines[number + 1 :]))
    except PicoError as error:
        assert names_what_is_missing(error, lines, number), str(error)
        return
    defaults = dict(walk_fields(type(left)))
    for key, value in flatten(left).items():
        if key in whole and value != whole[key] and not isinstance(value, dict | list):
            default = defaults[key].get_default(call_default_factory=True) if key in defaults else value
            derived = value in (default, str(default)) or default is None or key.startswith("model.") or key.endswith(".method")
            assert derived, f"{key} was {whole[key]}, is {value} and not its default {default}"


def known_keys(kind: str) -> set[str]:
    """Every name of a setting in the schema of a kind of file; other keys are names that the writer chose."""
    found: set[str] = set()

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            found.update(value.get("properties", {}) if isinstance(value.get("properties"), dict) else ())
            for item in value.values():
                walk(item)
        elif isinstance(value, list):
            for item in value:
                walk(item)

    walk(schema_of(kind, "built-in"))
    return found


def misspelt(key: str) -> str:
    """The key with its last letter doubled, or two letters in the middle exchanged."""
    middle = len(key) // 2
    return key + key[-1] if len(key) < 4 else key[: middle - 1] + key[middle] + key[middle - 1] + key[middle + 1 :]


def misspellings() -> list[tuple[str, int, str]]:
    """(file, place, key) of every setting that a file names, in whichever form."""
    cases = []
    for file, kind in FILES.items():
        known, text = known_keys(kind), "".join(lines_of(file))
        seen: set[str] = set()
        for match in ANY_KEY.finditer(text):
            comment = "#" in text[text.rfind("\n", 0, match.start(1)) + 1 : match.start(1)]
            if match[1] in known and match[1] not in seen and misspelt(match[1]) != match[1] and not comment:
                seen.add(match[1])
                cases.append((file, match.start(1), match[1]))
    return cases


@pytest.mark.parametrize(("file", "place", "key"), misspellings(), ids=lambda each: str(each).rpartition("/")[2])
def test_a_misspelt_key_is_refused_and_the_right_one_named(file: str, place: int, key: str):
    text = "".join(lines_of(file))
    wrong = text[:place] + misspelt(key) + text[place + len(key) :]
    with pytest.raises(PicoError) as caught:
        load(FILES[file], wrong)
    assert key in f"{caught.value.message} {caught.value.hint}".replace(misspelt(key), ""), str(caught.value)
