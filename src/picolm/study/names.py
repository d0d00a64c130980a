"""Whether everything a study names exists: variants, measures, predictions, analyses; and whether looks fit seeds."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from picolm.base.errors import PicoError, suggestion
from picolm.records.rundir import check_run_name
from picolm.study.spec_checks import HeadroomCheck, InvariantCheck, ManipulationCheck, NoiseFloorCheck, PositiveControlCheck
from picolm.study.spec_measures import ANALYSIS_COLUMNS
from picolm.study.spec_predictions import CURVE_KINDS, TokensToLevelPrediction, measures_of, variants_of

if TYPE_CHECKING:
    from picolm.study.config import StudyConfig


def check_names(study: StudyConfig, source: str) -> None:
    """PicoError for the first name that nothing has, with the nearest that something has."""
    _check_variants(study, source)
    _check_measures(study, source)
    _check_checks(study, source)
    _check_predictions(study, source)
    _check_family(study, source)
    _check_looks(study, source)


def _known(source: str, key: str, name: str, allowed: Iterable[str], what: str) -> None:
    names = list(allowed)
    if name not in names:
        raise PicoError(f"{source}: {key} = '{name}': there is no {what} of this name", suggestion(name, names))


def _check_variants(study: StudyConfig, source: str) -> None:
    for name in study.variants:
        check_run_name(name, f"{source}: variants")
    baselines = [name for name, variant in study.variants.items() if variant.role == "baseline"]
    if len(baselines) != 1:
        found = ", ".join(baselines) or "none"
        raise PicoError(
            f"{source}: variants: one must have the role baseline, here {found}", "give it to what one would do otherwise"
        )
    if study.tuning is not None:
        _known(source, "tuning.pick", study.tuning.pick, study.measures, "measure")
        for name in study.tuning.variants:
            _known(source, "tuning.variants", name, study.variants, "variant")
        if not study.seeds.tuning:
            raise PicoError(f"{source}: tuning needs seeds.tuning", "two seeds that are not in confirm or reserve")
        if study.measures[study.tuning.pick].is_curve:
            raise PicoError(
                f"{source}: tuning.pick = '{study.tuning.pick}' is a curve", "name a measure that is one number per run"
            )


def _check_measures(study: StudyConfig, source: str) -> None:
    """Measures of analyses name one that is declared."""
    series = {f"measures.{name}.series": measure.series for name, measure in study.measures.items()}
    for number, check in enumerate(study.checks):
        if isinstance(check, InvariantCheck | ManipulationCheck):
            series[f"checks.{number}.series"] = check.series
    for key, value in series.items():
        sort, _, name = value.partition(".")
        if sort == "analysis":
            hint = suggestion(name, study.analyses) if study.analyses else f"add it: analyses: {{{name}: {name}.yaml}}"
            if name not in study.analyses:
                raise PicoError(f"{source}: {key} = '{value}': there is no analysis `{name}`", hint)
    for key, measure in study.measures.items():
        if measure.sort == "analysis" and "metric" not in measure.where:
            columns = ", ".join(ANALYSIS_COLUMNS[:5])
            raise PicoError(f"{source}: measures.{key}.where names no metric", f"say which rows: {columns}, ...")


def _check_checks(study: StudyConfig, source: str) -> None:
    controls: set[str] = set()
    for number, check in enumerate(study.checks):
        key = f"checks.{number}"
        match check:
            case InvariantCheck() | ManipulationCheck():
                for name in check.variants:
                    _known(source, f"{key}.variants", name, study.variants, "variant")
            case NoiseFloorCheck():
                _known(source, f"{key}.variant", check.variant, study.variants, "variant")
                _known_number(study, source, f"{key}.measure", check.measure)
            case PositiveControlCheck():
                _check_control(study, source, key, check, controls)
            case HeadroomCheck():
                _known_number(study, source, f"{key}.measure", check.measure)


def _check_control(study: StudyConfig, source: str, key: str, check: PositiveControlCheck, controls: set[str]) -> None:
    if check.variant:
        _known(source, f"{key}.variant", check.variant, study.variants, "variant")
    _known_number(study, source, f"{key}.measure", check.measure)
    check_run_name(check.name, f"{source}: {key}.name")
    if check.name in controls or check.name in study.variants:
        raise PicoError(
            f"{source}: {key}.name = '{check.name}' is taken", "every positive control has a name of its own: its runs carry it"
        )
    controls.add(check.name)
    seeds = {*study.seeds.tuning, *study.seeds.confirm}
    for seed in check.seeds or ():
        if seed not in seeds:
            raise PicoError(
                f"{source}: {key}.seeds: {seed} is not a tuning or confirmation seed",
                "a control is compared with runs of the same seed",
            )


def _known_number(study: StudyConfig, source: str, key: str, name: str) -> None:
    _known(source, key, name, study.measures, "measure")
    if study.measures[name].is_curve:
        raise PicoError(f"{source}: {key} = '{name}' is a curve", "name a measure that is one number per run: another `reduce`")


def _check_predictions(study: StudyConfig, source: str) -> None:
    for name, prediction in study.predictions.items():
        for key, variant in variants_of(prediction):
            _known(source, f"predictions.{name}.{key}", variant, study.variants, "variant")
        for key, measure in measures_of(prediction):
            place = f"predictions.{name}.{key}"
            if prediction.kind not in CURVE_KINDS:
                _known_number(study, source, place, measure)
                continue
            _known(source, place, measure, study.measures, "measure")
            if not study.measures[measure].is_curve:
                raise PicoError(
                    f"{source}: {place} = '{measure}' is one number per run",
                    f"{prediction.kind} needs a measure with `reduce: curve`",
                )
        if isinstance(prediction, TokensToLevelPrediction) and study.measures[prediction.measure].reduce != "tokens_to":
            raise PicoError(
                f"{source}: predictions.{name}.measure = '{prediction.measure}' does not say when a level is reached",
                "name a measure with `reduce: tokens_to`",
            )
    if study.mode == "confirmatory" and not study.predictions:
        raise PicoError(f"{source}: a confirmatory study needs predictions", "add one, or say mode: exploratory")


def _check_family(study: StudyConfig, source: str) -> None:
    for name in study.family.order:
        _known(source, "family.order", name, study.predictions, "prediction")
    if len(set(study.family.order)) != len(study.family.order):
        raise PicoError(f"{source}: family.order names a prediction twice")
    for name, prediction in study.predictions.items():
        if prediction.primary and name not in study.family_order:
            raise PicoError(f"{source}: predictions.{name} is primary, but not in family.order", f"add {name} to family.order")


def _check_looks(study: StudyConfig, source: str) -> None:
    looks, seeds = study.looks, study.seeds
    if len(study.spend) != len(looks):
        raise PicoError(f"{source}: stopping.spend has {len(study.spend)} levels for {len(looks)} looks", "one level per look")
    if looks[0] != len(seeds.confirm):
        raise PicoError(
            f"{source}: stopping.looks begins with {looks[0]}, but there are {len(seeds.confirm)} seeds to confirm",
            "the first look is at all confirmation seeds",
        )
    if len(looks) == 2 and not looks[0] < looks[1] <= len(seeds.confirm) + len(seeds.reserve):
        raise PicoError(
            f"{source}: stopping.looks: the second is at {looks[1]} seeds; seeds.confirm and seeds.reserve have "
            f"{len(seeds.confirm)} and {len(seeds.reserve)}",
            "name more seeds in seeds.reserve",
        )
    if any(level > study.alpha for level in study.spend):
        raise PicoError(f"{source}: stopping.spend: no look may use more than alpha = {study.alpha}")
