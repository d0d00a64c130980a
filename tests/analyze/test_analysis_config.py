"""Analysis files: the original's form, the short form, and what is refused."""

from __future__ import annotations

import pytest

from picolm.analyze.config import AnalysisConfig, load_analysis, preset_names
from picolm.analyze.plan import plan_analysis
from picolm.base.config import dump_yaml, parse_settings, parse_yaml
from picolm.base.errors import PicoError

ORIGINAL = """
analysis_name: original
steps: {start: 0, end: 100, step: 30}
metrics:
  - metric_name: cka
    data_split: val
    target_checkpoint: 90
    components:
      - {component_name: simple, data_type: activations, layer_suffixes: "swiglu.w_2", layers: [0, 1]}
      - component_name: ov_circuit
        data_type: activations
        layer_suffixes: {value_layer: "attention.v_proj", output_layer: "attention.o_proj"}
        layers: [0]
  - metric_name: norm
    data_split: train
    norm_type: inf
    components:
      - {component_name: simple, data_type: gradients, layer_suffixes: "swiglu.w_2", layers: [0]}
monitoring: {output_dir: analysis_results, save_to_wandb: false, wandb: {entity: someone, project: something}}
"""


def parse(text: str) -> AnalysisConfig:
    return parse_settings(AnalysisConfig, parse_yaml(text, "test"), "test")


def test_file_of_the_original_loads_unchanged() -> None:
    config = parse(ORIGINAL)
    measurements = plan_analysis(config, [0, 90]).measurements
    found = [
        (each.metric.name, each.view.component.name, each.view.split, str(each.partner), each.layers) for each in measurements
    ]
    assert found == [
        ("cka", "simple", "val", "step=90", (0, 1)),
        ("cka", "ov_circuit", "val", "step=90", (0,)),
        ("norm", "simple", "train", "None", (0,)),
    ]
    assert measurements[2].metric.options == {"norm_type": "inf"}
    assert config.monitoring.output_dir == "analysis_results"


def test_range_never_passes_its_end() -> None:
    assert parse(ORIGINAL).chosen_steps(range(200)) == [0, 30, 60, 90]


def test_settings_survive_being_written_and_read() -> None:
    config = parse(ORIGINAL)
    assert parse(dump_yaml(config)) == config


def test_both_forms_mean_the_same() -> None:
    short = parse(
        """
        analysis_name: short
        steps: [0]
        data_split: train
        metrics: [per, {name: norm, norm_type: nuclear}]
        components: [{simple: {data_type: [weights, gradients], layer_suffixes: [swiglu.w_2]}}]
        """
    )
    long = parse(
        """
        analysis_name: long
        steps: [0]
        metrics:
          - metric_name: per
            data_split: train
            components: &both
              - {component_name: simple, data_type: weights, layer_suffixes: [swiglu.w_2]}
              - {component_name: simple, data_type: gradients, layer_suffixes: [swiglu.w_2]}
          - {metric_name: norm, norm_type: nuclear, data_split: train, components: *both}
        """
    )
    assert plan_analysis(short, [0]) == plan_analysis(long, [0])


def test_weights_belong_to_no_split() -> None:
    plan = plan_analysis(parse("{analysis_name: a, metrics: [gini], components: [simple]}"), [0])
    assert [each.view.split for each in plan.measurements] == [""]


def test_short_form_sets_aside_what_a_metric_does_not_take_and_says_so() -> None:
    plan = plan_analysis(
        parse("{analysis_name: a, metrics: [per, gini], components: [{simple: {data_type: [weights, activations]}}]}"), 0
    )
    assert plan.skipped == ("per takes only weights, gradients, updates, first_order: not applied to activations",)
    assert len(plan.measurements) == 3


@pytest.mark.parametrize(
    ("metrics", "components", "message", "hint"),
    [
        ("perr", "simple", "metric `perr` is not known", "`per`"),
        ("per", "simpel", "component `simpel` is not known", "`simple`"),
        ("{norm: {norm_tipe: inf}}", "simple", "norm_tipe is not a setting", "`norm_type`"),
        ("norm", "simple", "norm_type must be given", ""),
        ("{norm: {norm_type: big}}", "simple", "norm_type = 'big'", ""),
        ("{per: {components: [{simple: {data_type: activations}}]}}", "simple", "per does not take activations", "weights"),
        ("per", "{simple: {data_type: first_order}}", "simple has no first_order", ""),
        ("cka", "simple", "nothing to apply it to", "activations"),
        ("{per: {target_checkpoint: 3}}", "simple", "compares nothing", "remove"),
        ("per", "{simple: {layer_sufixes: x}}", "layer_sufixes is not a setting", "`layer_suffixes`"),
        ("per", "{simple: {data_type: weight}}", "data_type", ""),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_read(metrics: str, components: str, message: str, hint: str) -> None:
    with pytest.raises(PicoError) as caught:
        plan_analysis(parse(f"{{analysis_name: a, metrics: [{metrics}], components: [{components}]}}"), [0])
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_step_without_checkpoint_is_an_error_that_lists_those_there_are() -> None:
    with pytest.raises(PicoError, match="step 30 has no checkpoint") as caught:
        parse("{analysis_name: a, steps: [0, 30], metrics: [per]}").chosen_steps([0, 10, 20])
    assert "0, 10, 20" in caught.value.hint


@pytest.mark.parametrize("name", preset_names())
def test_presets_can_be_planned(name: str) -> None:
    assert plan_analysis(load_analysis(name), [0, 10]).measurements


def test_unknown_analysis_file_suggests_a_preset() -> None:
    with pytest.raises(PicoError, match="there is no analysis file tabel5") as caught:
        load_analysis("tabel5")
    assert "`table5`" in caught.value.hint
