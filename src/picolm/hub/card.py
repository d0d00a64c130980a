"""The page of a published run: what it is, what it was trained on and how, how it learned, how to load a step, how to cite it."""

from __future__ import annotations

import io
import json
from typing import Any

from picolm.hub.series import Index
from picolm.records import evaluation
from picolm.records.rundir import RunDirectory

CURVE_NAME = "training_curve.png"
SHOWN_STEPS = 12
FRONT_MATTER = "---\nlibrary_name: transformers\npipeline_tag: text-generation\ntags:\n- pico\n- learning-dynamics\n---"
CITATION = """```bibtex
@misc{pico2025,
  title         = {Pico: A Modular Framework for Hypothesis-Driven Small Language Model Research},
  year          = {2025},
  eprint        = {2509.16413},
  archivePrefix = {arXiv}
}
```"""


def write_card(run: RunDirectory, step: int, index: Index, repo_id: str, *, with_curve: bool) -> str:
    """The card as Markdown, from the run's own records."""
    identity = run.identity()
    parameters = identity.get("model", {}).get("parameters")
    title = f"`{plain(run.name)}`: a {plain(identity.get('model', {}).get('type', 'language'))} model"
    size = f" of {parameters:,} parameters" if isinstance(parameters, int) else ""
    tokens = index.series[-1].tokens if index.series else None
    seen = f", after {tokens:,} tokens" if tokens is not None else ""
    sections = [
        FRONT_MATTER,
        f"# {plain(repo_id)}",
        f"{title}{size}, trained with picolm, published step by step: this is step {step:,}{seen}. "
        "Weights, activations, gradients and updates of every step are in the same commit.",
        _data(identity),
        f"![Training curve]({CURVE_NAME})" if with_curve else "",
        _scores(run, step),
        _steps(index, repo_id),
        how_to_load(run.name, step, repo_id),
        _configuration(run),
        "## Cite\n\n" + CITATION,
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _data(identity: dict[str, Any]) -> str:
    data, code = identity.get("data", {}), identity.get("code", {})
    facts = [
        ("data", data.get("name")),
        ("data fingerprint", data.get("fingerprint")),
        ("tokenizer SHA-256", data.get("tokenizer_sha256")),
        ("configuration hash", identity.get("config_hash")),
        ("seeds", ", ".join(f"{name} {seed}" for name, seed in identity.get("seeds", {}).items())),
        ("picolm", " ".join(str(part) for part in (code.get("version"), code.get("git_commit")) if part)),
    ]
    lines = ["## What it was trained on, and how", "", "| | |", "| --- | --- |"]
    return "\n".join(lines + [f"| {name} | `{plain(value)}` |" for name, value in facts if value])


def _scores(run: RunDirectory, step: int) -> str:
    table = evaluation.read_scores(run)
    table = table[(table["step"] <= step) & (table["group"] == "all") & table["value"].notna()]
    if table.empty:
        return ""
    columns = list(dict.fromkeys(zip(table["evaluation"], table["measure"], strict=True)))[:8]
    keys = zip(table["step"], table["evaluation"], table["measure"], strict=True)
    values = dict(zip(keys, table["value"].astype(float), strict=True))
    lines = ["## Evaluation", "", "| step | " + " | ".join(plain(" ".join(column)) for column in columns) + " |"]
    lines.append("| ---: |" + " ---: |" * len(columns))
    for shown in _thinned(sorted(int(number) for number in table["step"].unique())):
        cells = [_number(values.get((shown, *column))) for column in columns]
        lines.append(f"| {shown:,} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _count(number: int | None) -> str:
    return "" if number is None else format(number, ",")


def _number(value: float | None) -> str:
    return "" if value is None else format(value, ".4g")


def _thinned(steps: list[int]) -> list[int]:
    if len(steps) <= SHOWN_STEPS:
        return steps
    last = len(steps) - 1
    return [steps[round(place * last / (SHOWN_STEPS - 1))] for place in range(SHOWN_STEPS)]


def _steps(index: Index, repo_id: str) -> str:
    lines = ["## Steps", "", "| step | tokens | revision | SHA-256 of the manifest |", "| ---: | ---: | --- | --- |"]
    rows = {row.step: row for row in index.series}
    lines += [
        f"| {rows[step].step:,} | {_count(rows[step].tokens)} | `{plain(rows[step].tag)}` | `{rows[step].manifest[:16]}` |"
        for step in _thinned(list(rows))
    ]
    lines += ["", f"All of them are in `index.json`; `pico hub verify {repo_id}` proves that the series is what was trained."]
    return "\n".join(lines)


def how_to_load(name: str, step: int, repo_id: str) -> str:
    """The section that says how a step is opened."""
    place = f'"{repo_id}", revision="{name}-step-{step}"'
    code = "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
    code += f"\nmodel = AutoModelForCausalLM.from_pretrained({place})\ntokenizer = AutoTokenizer.from_pretrained({place})"
    return f"## Load a step\n\n```python\n{code}\n```\n\nThe whole run, verified: `pico hub pull {repo_id}@{name}`"


def _configuration(run: RunDirectory) -> str:
    if not run.config_file.is_file():
        return ""
    text = run.config_file.read_text(encoding="utf-8").replace("```", "'''")
    return f"## Configuration\n\n<details><summary>training_config.yaml</summary>\n\n```yaml\n{text}```\n\n</details>"


def plain(value: Any) -> str:
    """A value that can stand in a table: no markup, no line breaks."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return "".join(" " if character in "|`<>\n\r[]" else character for character in text)


def draw_curve(rows: list[dict[str, Any]]) -> bytes | None:
    """Training loss against tokens as PNG; None if fewer than two rows of the log have a loss."""
    points = [{"tokens": row["tokens"], "loss": row["loss"]} for row in rows if row.get("loss") is not None]
    if len(points) < 2:
        return None
    import altair

    kept = points[:: max(1, len(points) // 2000)]
    line = altair.Chart({"values": kept}, width=640, height=320, title="Training loss").mark_line()
    chart = line.encode(
        x=altair.X("tokens:Q", title="training tokens", axis=altair.Axis(format="~s")),
        y=altair.Y("loss:Q", title="loss (nats per token)", scale=altair.Scale(zero=False)),
    )
    picture = io.BytesIO()
    chart.save(picture, format="png", ppi=144)
    return picture.getvalue()
