"""The method against a straightforward computation, and each invariant against the published departure that breaks it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from picolm.base.errors import PicoError
from picolm.train.methods.maml import HEAD_NAME, Maml
from picolm.train.methods.maml_head import Head, logits, with_prototypes, with_zero_output
from picolm.train.methods.maml_passes import FeatureReader
from picolm.train.methods.smlmt_episodes import Examples
from picolm.train.train import default_dtype_of

from .topics import BATCH, EPISODES, LENGTH, VOCABULARY, Bench, rows_of_step


@pytest.fixture(autouse=True)
def _double_precision() -> Iterator[None]:
    """As in a run with `64-true`: Fabric casts what a module returns to torch's default type."""
    with default_dtype_of("64-true"):
        yield


ON_EPISODES: dict[str, Any] = {"episode_share": 1.0}


def straightforward(bench: Bench, step: int, *, start: str, exact: bool, rate: float = 1.0) -> dict[str, Tensor]:
    """The gradient of the mean query loss, with everything on one graph and no pass cut in two."""
    bench.model.zero_grad(set_to_none=True)
    episodes = bench.method._stream.episodes(step, EPISODES["episodes"])
    losses = []
    for episode in episodes:

        def features(examples: Examples) -> Tensor:
            read_SLD = bench.model(torch.from_numpy(examples.tokens_SL), features=True)
            return read_SLD[:, -1] / math.sqrt(read_SLD.shape[-1])

        support_SD, labels_S = features(episode.support), torch.from_numpy(episode.support.labels_S)
        head: Head = {
            "zero": lambda s=support_SD, n=episode.ways: with_zero_output((), n, s),
            "prototypes": lambda s=support_SD, n=episode.ways, y=labels_S: with_prototypes((), n, s, y),
            "shared": lambda: tuple(getattr(bench.model, HEAD_NAME)),
        }[start]()
        begun = head
        for _ in range(10):
            free = head if exact else tuple(tensor.detach() for tensor in head)
            free = tuple(tensor if tensor.requires_grad else tensor.requires_grad_() for tensor in free)
            loss = F.cross_entropy(logits(free, support_SD if exact else support_SD.detach()), labels_S)
            slopes = torch.autograd.grad(loss, free, create_graph=exact)
            head = tuple(tensor - rate * slope for tensor, slope in zip(free, slopes, strict=True))
        if not exact:  # the Jacobian of the loop is taken for the identity
            head = tuple(first + (last - first).detach() for first, last in zip(begun, head, strict=True))
        losses.append(F.cross_entropy(logits(head, features(episode.query)), torch.from_numpy(episode.query.labels_S)))
    torch.stack(losses).mean().backward()
    return bench.gradients()


@pytest.mark.parametrize("start", ["zero", "prototypes", "shared"])
@pytest.mark.parametrize("order", ["first", "exact"])
def test_the_outer_gradient_is_that_of_the_whole_graph(start: Any, order: Any):
    bench = Bench(start=start, order=order, **ON_EPISODES)
    bench.step(7, micro_batches=4)  # several passes
    found = bench.gradients()
    expected = straightforward(bench, 7, start=start, exact=order == "exact")
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-9, atol=1e-12)


def test_exact_and_first_order_differ():
    gradients = []
    for order in ("first", "exact"):
        bench = Bench(start="shared", order=order, **ON_EPISODES)
        bench.step(7)
        gradients.append(bench.gradients()["layers.0.attention.v_proj.weight"])
    assert (gradients[0] - gradients[1]).norm() > 1e-3 * gradients[0].norm()


def gradient_after(micro_batches: int, **options: Any) -> list[Tensor]:
    """Gradients of several steps, with the step's rows in so many micro-batches."""
    bench = Bench(**options)
    found = []
    for step in range(5, 10):
        bench.step(step, micro_batches)
        found.append(bench.gradients()["layers.0.swiglu.w_2.weight"])
    return found


def largest_difference(first: list[Tensor], second: list[Tensor]) -> float:
    return max(float((a - b).abs().max() / a.abs().max()) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("mixing", ["alternate", "add"])
def test_the_split_into_micro_batches_changes_nothing(mixing: Any):
    assert largest_difference(gradient_after(1, mixing=mixing), gradient_after(4, mixing=mixing)) < 1e-10


def test_the_split_changes_everything_where_each_micro_batch_is_mixed_alone():
    departure = ("micro_batch_mixing",)
    assert largest_difference(gradient_after(1, departures=departure), gradient_after(4, departures=departure)) > 0.1


def gains(**options: Any) -> list[float]:
    bench = Bench(**ON_EPISODES, **options)
    return [float(bench.step(step).series["adaptation_gain"]) for step in range(5, 10)]


def test_adaptation_helps():
    assert all(gain > 0.05 for gain in gains())


def test_adaptation_does_nothing_where_the_inner_loop_sees_no_gradients():
    assert all(gain == 0 for gain in gains(departures=("unseen_gradients",)))


def test_the_model_is_trained_through_the_query_set_and_not_in_the_inner_loop():
    bench = Bench(**ON_EPISODES)
    series = bench.step(7).series
    assert series["support_feature_gradient_norm"] == 0
    assert series["query_feature_gradient_norm"] > 0
    untouched = {name for name, tensor in bench.model.named_parameters() if tensor.grad is None or not tensor.grad.any()}
    assert untouched == {"de_embedding_proj.weight"}


def test_the_inner_loop_leaves_no_gradient_in_the_model():
    bench = Bench(inner_steps=3, start="shared", **ON_EPISODES)
    seen = []
    original = bench.model.forward

    def watched(*arguments: Any, **named: Any) -> Tensor:
        seen.append(
            (torch.is_grad_enabled(), [name for name, tensor in bench.model.named_parameters() if tensor.grad is not None])
        )
        result: Tensor = original(*arguments, **named)
        return result

    bench.model.forward = watched  # type: ignore[method-assign]
    bench.method._episodes = 1
    bench.step(7)
    assert seen == [(False, []), (True, [])]  # once for the support set, without a graph; once for the query set


def features_passes(**options: Any) -> int:
    bench = Bench(**ON_EPISODES, **{"episodes": 1, **options})
    count = 0

    def hook(*_: Any) -> None:
        nonlocal count
        count += 1

    bench.model.register_forward_hook(hook)
    bench.step(7)
    return count


def test_the_support_features_are_computed_once():
    assert features_passes() == 2


def test_the_support_features_are_computed_in_every_step_where_forwards_are_repeated():
    assert features_passes(departures=("repeated_forwards",)) == 2 + 10
    plain, repeated = Bench(**ON_EPISODES), Bench(departures=("repeated_forwards",), **ON_EPISODES)
    both = [bench.step(7) for bench in (plain, repeated)]
    assert both[1].method_flops > 2 * both[0].method_flops
    for name, gradient in plain.gradients().items():
        torch.testing.assert_close(repeated.gradients()[name], gradient)


def head_gradient_error(**options: Any) -> float:
    """How far the shared head's gradient is from that of the query loss, relative to the latter."""
    bench = Bench(start="shared", **ON_EPISODES, **options)
    bench.step(7)
    found = bench.gradients()[f"{HEAD_NAME}.0"]
    rate = 0.0 if "unseen_gradients" in options.get("departures", ()) else 1.0
    expected = straightforward(bench, 7, start="shared", exact=False, rate=rate)[f"{HEAD_NAME}.0"]
    return float((found - expected).norm() / expected.norm())


def test_the_shared_head_gets_the_gradient_of_the_query_loss_and_nothing_else():
    assert head_gradient_error() < 1e-9


@pytest.mark.parametrize("departure", ["unseen_gradients", "stale_gradients"])
def test_the_shared_head_gets_something_else_where_inner_gradients_are_left(departure: str):
    assert head_gradient_error(departures=(departure,)) > 0.1


def test_the_head_has_one_output_per_class_and_over_the_vocabulary_one_per_token():
    assert getattr(Bench(start="shared").model, HEAD_NAME)[-1].shape == (EPISODES["ways"],)
    bench = Bench(departures=("vocabulary_head",), head_width=8, **ON_EPISODES)
    head = getattr(bench.model, HEAD_NAME)
    assert [tuple(tensor.shape) for tensor in head][::2] == [(8, 16), (8, 8), (8, 8), (VOCABULARY, 8)]
    bench.step(7)
    words = {int(word) for episode in bench.method._stream.episodes(7, 3) for word in episode.words_N}
    columns = head[-1].grad.nonzero().flatten().tolist()
    assert set(columns) == words  # tied to the token for ever, so it can be learnt by heart


def test_the_two_losses_are_never_mixed():
    bench = Bench()
    text, episodes = (bench.step(bench.step_on(text=is_text)) for is_text in (True, False))
    assert text.loss_sum is not None
    assert math.isnan(float(text.series["query_loss_after"]))
    assert (text.method_tokens, text.method_flops) == (0, 0.0)
    assert episodes.loss_sum is None
    assert float(episodes.series["query_loss_after"]) > 0
    assert episodes.method_tokens == 3 * 4 * (3 + 2) * LENGTH
    assert episodes.method_flops > 0


def test_both_losses_are_there_where_they_are_added_and_the_gradient_is_their_weighted_sum():
    weight = 0.25
    parts = []
    for options in ({"mixing": "alternate", "episode_share": 0.0}, ON_EPISODES, {"mixing": "add", "episode_weight": weight}):
        bench = Bench(**options)
        result = bench.step(7)
        parts.append(bench.gradients()["layers.1.attention.o_proj.weight"])
    assert result.loss_sum is not None
    assert float(result.series["query_loss_after"]) > 0
    torch.testing.assert_close(parts[2], parts[0] + weight * parts[1])


def test_series_say_how_the_classes_are_spread():
    for options, flat in (({}, True), ({"departures": ("collapsed_labels",)}, False)):
        series = Bench(**ON_EPISODES, **options).step(7).series
        assert (float(series["majority_accuracy"]) == pytest.approx(1 / float(series["ways"]))) is flat


def test_a_buffer_without_words_trains_the_language_model_instead():
    result = Bench(frequency_band=(0.9, 1.0), **ON_EPISODES).step(7)
    assert result.loss_sum is not None
    assert result.method_tokens == 0


@pytest.mark.parametrize("at_mask", [False, True])
def test_features_are_read_at_the_last_token_or_at_the_mask_however_many_passes_it_takes(at_mask: bool):
    bench = Bench(**ON_EPISODES)
    support = bench.method._stream.episodes(7, 1)[0].support
    whole_SLD = bench.model(torch.from_numpy(support.tokens_SL), features=True)
    places = torch.from_numpy(support.positions_S) if at_mask else torch.full((len(support),), LENGTH - 1)
    expected_SD = whole_SLD[torch.arange(len(support)), places]
    for sequences_per_pass in (100, 5, 1):
        tokens = sequences_per_pass * LENGTH
        reader = FeatureReader(bench.fabric_model, bench.fabric, at_mask=at_mask, scaled=False, tokens_per_pass=tokens)
        torch.testing.assert_close(reader.read(support, len(support) + 3), expected_SD.detach())
        scaled = replace(reader, scaled=True).read(support, len(support))
        torch.testing.assert_close(scaled, expected_SD.detach() / 4)  # the root of a width of 16


def test_steps_are_dealt_out_in_the_declared_share():
    bench = Bench(episode_share=0.3)
    on_episodes = [not bench.method.learns_from_text(step) for step in range(2000)]
    assert sum(on_episodes) / 2000 == pytest.approx(0.3, abs=0.03)


def test_what_is_planned_is_what_is_counted():
    bench = Bench()
    for step in range(5, 12):
        result, planned = bench.step(step), bench.method.planned_step(step, bench.model, BATCH * LENGTH, 1.0)
        assert planned.method_tokens == result.method_tokens
        assert planned.method_flops == pytest.approx(result.method_flops)
        assert planned.language_model_tokens == (0 if result.loss_sum is None else BATCH * LENGTH)


def test_published_is_all_departures_of_the_published_runs():
    bench = Bench(variant="published", **ON_EPISODES)
    series = bench.step(7).series
    assert float(series["adaptation_gain"]) == 0
    assert float(series["majority_accuracy"]) > 1.5 / float(series["ways"])
    with pytest.raises(PicoError, match="departures"):
        Maml(variant="published", departures=("sorted_labels",))
    with pytest.raises(PicoError, match="exclude"):
        Maml(departures=("unseen_gradients", "stale_gradients"))


def test_a_mask_token_that_the_data_use_is_refused():
    def with_a_stop(step: int) -> Tensor:
        rows_BT = rows_of_step(step)
        rows_BT[:, 3] = VOCABULARY - 1
        return rows_BT

    with pytest.raises(PicoError, match=r"occurs in 64 of 64 sequences"):
        Bench(read=with_a_stop, **ON_EPISODES).step(7)
    with pytest.raises(PicoError, match="outside the vocabulary"):
        Bench(mask_token=VOCABULARY)
