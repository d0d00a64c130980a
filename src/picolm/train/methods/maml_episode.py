"""One episode from its masked sequences to the gradient of the whole model: adapt the head, judge it on the query set.

The support features are computed once, without a graph. Then the query sequences go through the model pass by pass, each leaving
its share of the gradient; what the head passes back to the support features, if anything, goes through the model last.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from picolm.train.methods.maml_head import Adapted, Head, adapt, columns, logits
from picolm.train.methods.maml_passes import FeatureReader
from picolm.train.methods.smlmt_episodes import Episode, Examples

if TYPE_CHECKING:
    from lightning_fabric import Fabric

SERIES = (
    "ways",
    "support_loss_before",
    "support_loss_after",
    "support_accuracy_before",
    "support_accuracy_after",
    "query_loss_before",
    "query_loss_after",
    "query_accuracy_before",
    "query_accuracy_after",
    "majority_accuracy",
    "adaptation_gain",
    "support_feature_gradient_norm",
    "query_feature_gradient_norm",
)
"""What an episode reports. majority_accuracy: of always naming the most frequent class, 1 / ways if classes are equally frequent.
adaptation_gain: query loss before minus after the inner loop, in nats. The norms are of the gradient of the mean query loss at
the features: zero at the support features in first order, where the model is not trained through the inner loop."""


@dataclass(frozen=True)
class InnerLoop:
    """How the head is adapted."""

    steps: int
    learning_rate: float
    exact: bool = False
    repeated_forwards: bool = False
    """Departure: the features of the support set are computed again for each step."""
    unseen_gradients: bool = False
    """Departure: the steps change nothing; their gradients are added to the head's outer gradient."""
    stale_gradients: bool = False
    """Departure: earlier outer gradients of the head are erased, and the last inner one is added."""


StartHead = Callable[[Tensor, Tensor, int], Head]
"""(support features, their labels, ways) -> the head before the inner loop."""


def run_episode(
    episode: Episode,
    reader: FeatureReader,
    start_head: StartHead,
    inner: InnerLoop,
    *,
    sizes: tuple[int, int],
    weight: float,
    shared_head: Sequence[nn.Parameter],
    columns_N: Tensor | None,
) -> dict[str, Tensor]:
    """Leave in `.grad` of model and shared head `weight` times the gradient of the mean query loss; what the episode reports.

    `sizes`: support and query examples of a full episode.
    """
    device = reader.fabric.device
    support_labels_S = torch.from_numpy(episode.support.labels_S).to(device)
    query_labels_Q = torch.from_numpy(episode.query.labels_S).to(device)
    support_SD = reader.read(episode.support, sizes[0]).requires_grad_()
    start = start_head(support_SD, support_labels_S, episode.ways)

    def again() -> Tensor:
        return reader.read(episode.support, sizes[0])

    adapted = adapt(
        start,
        again if inner.repeated_forwards else lambda: support_SD,
        support_labels_S,
        steps=inner.steps,
        learning_rate=0.0 if inner.unseen_gradients else inner.learning_rate,
        exact=inner.exact,
        columns_N=columns_N,
    )
    _leave_behind(inner, start, adapted, shared_head)
    free = tuple(tensor.detach().requires_grad_() for tensor in adapted.head)
    query_QD, query_slope = _query_pass(episode.query, reader, free, query_labels_Q, columns_N, sizes[1], weight)
    _pass_back(adapted.head, free, reader.fabric)
    if support_SD.grad is not None:
        _support_pass(episode.support, reader, support_SD.grad, sizes[0])
    support_slope = torch.zeros((), device=device) if support_SD.grad is None else support_SD.grad.norm()
    slopes = {"support_feature_gradient_norm": support_slope / weight, "query_feature_gradient_norm": query_slope / weight}
    with torch.no_grad():
        support = _scores("support", start, adapted.head, support_SD, support_labels_S, columns_N)
        query = _scores("query", start, adapted.head, query_QD, query_labels_Q, columns_N)
        most = query_labels_Q.bincount().max() / len(query_labels_Q)
        gain = query["query_loss_before"] - query["query_loss_after"]
    ways = torch.tensor(float(episode.ways), device=device)
    return {"ways": ways, **support, **query, "majority_accuracy": most, "adaptation_gain": gain, **slopes}


def _leave_behind(inner: InnerLoop, start: Head, adapted: Adapted, shared_head: Sequence[nn.Parameter]) -> None:
    """The departures in which inner gradients get into the outer update of a shared head."""
    if not shared_head:
        return
    if inner.stale_gradients:
        for parameter in shared_head:
            parameter.grad = None
        torch.autograd.backward(start, adapted.last_gradient)
    if inner.unseen_gradients:
        torch.autograd.backward(start, adapted.gradient_sum)


def _query_pass(
    query: Examples,
    reader: FeatureReader,
    head: Head,
    labels_Q: Tensor,
    columns_N: Tensor | None,
    size: int,
    weight: float,
) -> tuple[Tensor, Tensor]:
    """Leave the gradient of the weighted mean query loss in model and head; the features, and the norm of their gradient."""
    features, squares = [], torch.zeros((), device=labels_Q.device)
    for part, features_SD in reader.chunks(query, size):
        features_SD.retain_grad()
        scores_SN = columns(logits(head, features_SD), columns_N)
        loss = F.cross_entropy(scores_SN, labels_Q[part], reduction="sum")
        reader.fabric.backward(loss * (weight / len(query)))
        assert features_SD.grad is not None
        squares = squares + features_SD.grad.square().sum()
        features.append(features_SD.detach())
    return torch.cat(features), squares.sqrt()


def _pass_back(adapted: Head, free: Head, fabric: Fabric) -> None:
    """Send the gradient at the adapted head back to what it came from: a shared head, support features, or nothing."""
    for number, (tensor, leaf) in enumerate(zip(adapted, free, strict=True), start=1):
        if tensor.requires_grad and leaf.grad is not None:
            fabric.backward(tensor, leaf.grad, retain_graph=number < len(free))


def _support_pass(support: Examples, reader: FeatureReader, gradient_SD: Tensor, size: int) -> None:
    """Send the gradient at the support features back through the model."""
    for part, features_SD in reader.chunks(support, size):
        reader.fabric.backward(features_SD, gradient_SD[part])


def _scores(
    name: str, start: Head, adapted: Head, features_SD: Tensor, labels_S: Tensor, columns_N: Tensor | None
) -> dict[str, Tensor]:
    """Mean loss and accuracy before and after adaptation."""
    found = {}
    for when, head in (("before", start), ("after", adapted)):
        scores_SN = columns(logits(head, features_SD), columns_N)
        found[f"{name}_loss_{when}"] = F.cross_entropy(scores_SN, labels_S)
        found[f"{name}_accuracy_{when}"] = (scores_SN.argmax(dim=1) == labels_S).float().mean()
    return found
