"""The study file: what it accepts, and how it says no."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pydantic
import pytest
import yaml

from picolm.base.config import Settings, dump_yaml, flatten, read_yaml, walk_fields
from picolm.base.errors import PicoError
from picolm.study.config import StudyConfig, load_study, parse_study, substance
from picolm.study.spec_checks import Check
from picolm.study.spec_measures import REDUCTION_OPTIONS, MeasureConfig
from picolm.study.spec_predictions import PredictionConfig

EVERYTHING = """
id: everything
statement: Something that could be wrong.
rationale: {source: "a paper", notes: a note}
base: base.yaml
language: {folder: data/x, train_tokens: 1000, settings: {depth: 2}}
variants:
  a: {role: baseline, label: the usual}
  b: {role: control, set: {training.optimization.lr: x0.5}}
  c: {role: treatment, set: {training.method: {name: relora, rank: 4}}}
tuning: {key: training.optimization.lr, grid: [1.0e-3, 2.0e-3], pick: final, variants: [a]}
seeds: {tuning: [901, 902], confirm: [1, 2, 3, 4, 5, 6], reserve: [7, 8, 9, 10], share: [init, data]}
budget: {axis: steps, value: 10, max_core_hours: 2}
measures:
  final: {series: evaluation.perplexity.loss_per_token, where: {group: all}, reduce: mean_last, k: 5, label: loss}
  hit: {series: evaluation.perplexity.loss_per_token, reduce: tokens_to, level: 4.2}
  jump: {series: train.loss, reduce: jump_at, events: {every: 100}, window: 20}
  curve: {series: train.loss, reduce: curve, smooth: 3}
  per: {series: analysis.spectra, where: {metric: per, layer: [0, 1]}, reduce: curve, x: step}
  size: {series: run.parameters}
analyses: {spectra: table5}
checks:
  - {kind: invariant, series: train.gradient_norm, max: 10, variants: [a]}
  - {kind: manipulation, series: analysis.spectra, where: {metric: per}, op: ">", value: 0}
  - {kind: noise_floor, variant: a, measure: final}
  - {kind: positive_control, set: {training.optimization.lr: x0.05}, measure: final}
  - {kind: headroom, measure: final, bound: entropy_floor, min_gap: 0.1}
predictions:
  difference: {kind: difference, of: c, versus: a, measure: final, direction: lower, at_least: 0.02, expect: 0.05, primary: true}
  ratio: {kind: ratio, of: c, versus: a, measure: final, direction: higher, at_least: 1.01}
  equivalence: {kind: equivalence, of: c, versus: a, measure: final, margin: 0.04, scale: ratio}
  non_inferiority: {kind: non_inferiority, of: c, versus: a, measure: final, margin: 0.04}
  order: {kind: order, variants: [a, b, c], measure: final, direction: increasing}
  trend: {kind: trend, over: {a: 1, b: 2, c: 4}, minus: {a: b}, measure: final, direction: decreasing}
  tokens_to_level: {kind: tokens_to_level, of: c, versus: a, measure: hit}
  event_alignment: {kind: event_alignment, of: c, events: curve, response: per, lag: [0, 5]}
  shape: {kind: shape, of: c, versus: a, measure: per, shape: rise_then_fall}
  whole_curve: {kind: whole_curve, of: c, versus: a, measure: curve, direction: lower}
  invariant: {kind: invariant, of: c, measure: size, equals: 5, tolerance: 1}
family: {method: holm, order: [difference, equivalence]}
stopping: {looks: [6, 10], spend: [0.015625, 0.04]}
failures: {diverged: drop_seed, crashed: count_as_missing, max_missing: 1}
execution: {threads: 2, at_once: 3}
"""


def everything() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(EVERYTHING)
    content["tuning"]["grid"] = [0.001, 0.002]
    return content


def test_a_file_with_every_section_and_every_kind_is_read() -> None:
    study = parse_study(everything(), "study.yaml")
    assert study.baseline == "a" and study.primary == ("difference",) and study.family_order == ("difference", "equivalence")
    assert {prediction.kind for prediction in study.predictions.values()} == set(study.predictions)
    assert study.looks == (6, 10) and study.spend == (0.015625, 0.04)


def test_what_is_written_out_is_read_back_as_the_same_study() -> None:
    study = parse_study(everything(), "study.yaml")
    again = parse_study(yaml.safe_load(dump_yaml(study)), "again")
    assert again == study and flatten(again) == flatten(study)


def test_without_a_family_every_prediction_counts_and_the_first_is_primary() -> None:
    content = everything()
    del content["family"], content["predictions"]["difference"]["primary"]
    study = parse_study(content, "study.yaml")
    assert study.family_order == tuple(content["predictions"]) and study.primary == ("difference",)


def models() -> Iterator[type[Settings]]:
    yield StudyConfig
    yield MeasureConfig
    for union in (Check, PredictionConfig):
        for member in union.__origin__.__args__:
            yield member.__origin__


@pytest.mark.parametrize("model", list(models()), ids=lambda model: model.__name__)
def test_every_field_has_its_sentence(model: type[Settings]) -> None:
    for key, field in walk_fields(model):
        assert field.description, f"{model.__name__}.{key} says nothing about itself"


def places(content: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every mapping with fixed keys in the file, as a path."""
    named = ("variants", "measures", "predictions", "analyses")
    free = ("set", "where", "settings", "over", "minus", "method", "rank")
    if isinstance(content, dict):
        if not path or path[-1] not in (*named, *free, "training.method"):
            yield path
        for key, value in content.items():
            if key not in free:
                yield from places(value, (*path, key))
    elif isinstance(content, list):
        for number, value in enumerate(content):
            yield from places(value, (*path, number))


def at(content: Any, path: tuple[Any, ...]) -> Any:
    for part in path:
        content = content[part]
    return content


@pytest.mark.parametrize("path", list(places(everything())), ids=lambda path: ".".join(map(str, path)) or "top")
def test_a_misspelt_key_is_an_error_that_names_the_right_one_wherever_it_stands(path: tuple[Any, ...]) -> None:
    for key in at(everything(), path):
        if key == "kind" or len(key) < 3:
            continue
        content = everything()
        section = at(content, path)
        wrong = key[:-1] + "qz"
        section[wrong] = section.pop(key)
        with pytest.raises(PicoError) as caught:
            parse_study(content, "study.yaml")
        shown = ".".join(map(str, (*path, wrong)))
        assert f"study.yaml: {shown} is not a setting" in caught.value.message
        if len(key) > 3:
            assert f"`{'.'.join(map(str, (*path, key)))}`" in caught.value.hint


def change(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    *parents, last = path.split("/")

    def apply(content: dict[str, Any]) -> None:
        at(content, tuple(int(part) if part.isdigit() else part for part in parents))[last] = value

    return apply


WRONG = {
    "a variant that is not there": (
        change("predictions/ratio/of", "cc"),
        "predictions.ratio.of = 'cc': there is no variant",
        "`c`",
    ),
    "a measure that is not there": (
        change("predictions/ratio/measure", "finale"),
        "there is no measure",
        "did you mean `final`?",
    ),
    "a prediction that is not there": (change("family/order", ["difference", "ratios"]), "'ratios'", "did you mean `ratio`?"),
    "an analysis that is not there": (change("measures/per/series", "analysis.spectre"), "no analysis `spectre`", "`spectra`"),
    "a kind that is not there": (change("predictions/ratio/kind", "ration"), "predictions.ratio.kind = 'ration'", "`ratio`"),
    "a series of no sort": (change("measures/final/series", "evaluatoin.a.b"), "did you mean `evaluation`?", ""),
    "a fact of no run": (change("measures/size/series", "run.parameter"), "did you mean `parameters`?", ""),
    "a column that rows lack": (change("measures/per/where", {"metric": "per", "layr": 1}), "did you mean `layer`?", ""),
    "a curve where a number is needed": (change("predictions/ratio/measure", "curve"), "is a curve", "reduce"),
    "a number where a curve is needed": (change("predictions/shape/measure", "final"), "one number per run", "reduce: curve"),
    "a level that nobody looks for": (
        change("predictions/tokens_to_level/measure", "final"),
        "when a level is reached",
        "tokens_to",
    ),
    "a seed with two purposes": (change("seeds/reserve", [7, 901]), "seed 901 is in tuning and in reserve", ""),
    "two baselines": (change("variants/b/role", "baseline"), "one must have the role baseline, here a, b", ""),
    "a first look before the seeds are done": (change("stopping/looks", [5, 10]), "begins with 5", "all confirmation seeds"),
    "a second look without seeds": (change("stopping/looks", [6, 12]), "the second is at 12 seeds", "seeds.reserve"),
    "a level above alpha": (change("stopping/spend", [0.01, 0.06]), "more than alpha", ""),
    "an option that the reduction does not use": (change("measures/jump/k", 3), "jump_at does not use `k`", ""),
    "an option that the reduction needs": (change("measures/jump/reduce", "mean_last"), "mean_last needs `k`", ""),
    "a control with the name of a variant": (change("checks/3/name", "a"), "checks.3.name = 'a' is taken", ""),
    "a control on a seed that is not run": (change("checks/3/seeds", [5000]), "5000 is not a tuning or confirmation seed", ""),
    "an invariant without bounds": (change("checks/0/max", None), "needs `min` or `max`", ""),
    "a number that is a word": (change("alpha", "small"), "alpha = 'small'", "Share of false claims"),
    "a trend of two": (change("predictions/trend/over", {"a": 1, "b": 2}), "three variants or more", ""),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_meant_is_refused(case: str) -> None:
    wreck, message, hint = WRONG[case]
    content = everything()
    wreck(content)
    with pytest.raises(PicoError) as caught:
        parse_study(content, "study.yaml")
    assert message in caught.value.message and hint in caught.value.hint


def test_labels_and_reasons_may_change_without_making_another_study() -> None:
    content = everything()
    content["variants"]["a"]["label"] = "as ever"
    content["rationale"]["notes"] = "another note"
    content["execution"]["at_once"] = 1
    changed, study = parse_study(content, "a"), parse_study(everything(), "b")
    assert changed != study and substance(changed) == substance(study)


def test_what_is_declared_is_told_key_by_key() -> None:
    declared = substance(parse_study(everything(), "study.yaml"))
    assert declared["predictions.difference.at_least"] == 0.02 and declared["checks.0.max"] == 10
    assert declared["seeds.confirm"] == [1, 2, 3, 4, 5, 6] and declared["variants.b.set.training.optimization.lr"] == "x0.5"


def test_a_frozen_study_cannot_be_changed() -> None:
    study = parse_study(everything(), "study.yaml")
    with pytest.raises(pydantic.ValidationError):
        study.alpha = 0.5  # type: ignore[misc]


def test_every_reduction_is_told_about() -> None:
    assert set(REDUCTION_OPTIONS) == set(MeasureConfig.model_fields["reduce"].annotation.__args__)  # type: ignore[union-attr]


SHIPPED = sorted((Path(__file__).parents[2] / "studies").glob("*/study.yaml"))


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.parent.name)
def test_shipped_studies_are_read_and_are_called_like_their_folder(file: Path) -> None:
    study = load_study(file)
    assert study.id == file.parent.name
    assert (file.parent / study.base).is_file() and (file.parent / "README.md").is_file()
    assert read_yaml(file.parent / study.base)


def test_content_is_not_changed_by_reading_it() -> None:
    content = everything()
    before = copy.deepcopy(content)
    parse_study(content, "study.yaml")
    assert content == before
