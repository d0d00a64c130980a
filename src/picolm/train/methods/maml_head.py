"""The classifier of an episode and its inner loop: a few steps of gradient descent on features computed once.

Everything is a function of tensors: the parameters that come in are never changed, so no engine that wraps modules or
optimisers can get in between. Source of the algorithm: Finn et al. (2017); of the prototype start: Triantafillou et al. (2020).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

Head = tuple[Tensor, ...]
"""Weight (O, I) and bias (O) of each layer in turn; the last one gives the logits. One layer: a linear classifier."""


class Adapted(NamedTuple):
    """A head after the inner loop, and what its steps saw."""

    head: Head
    losses: tuple[Tensor, ...]
    """The support loss before each step."""
    gradient_sum: tuple[Tensor, ...]
    """The gradients of all steps added up, by parameter."""
    last_gradient: tuple[Tensor, ...]


def logits(head: Head, features_SD: Tensor) -> Tensor:
    """(S, O): linear layers with a ReLU between two of them."""
    x_SD = features_SD
    for layer in range(0, len(head), 2):
        x_SD = F.linear(x_SD if layer == 0 else x_SD.relu(), head[layer], head[layer + 1])
    return x_SD


def drawn_layers(widths: Sequence[int], generator: torch.Generator, like: Tensor) -> Head:
    """Layers between the given widths: weights normal with variance 2 / inputs, biases zero. Source: He et al. (2015)."""
    head: list[Tensor] = []
    for inputs, outputs in itertools.pairwise(widths):
        weight_OI = torch.randn(outputs, inputs, generator=generator, dtype=torch.float32) * (2.0 / inputs) ** 0.5
        head += [weight_OI.to(like), like.new_zeros(outputs)]
    return tuple(head)


def with_zero_output(body: Head, ways: int, features_SD: Tensor) -> Head:
    """The layers in `body` and above them a last one of zeros: every class is equally likely before the first step."""
    width = body[-2].shape[0] if body else features_SD.shape[1]
    return (*body, features_SD.new_zeros(ways, width), features_SD.new_zeros(ways))


def with_prototypes(body: Head, ways: int, features_SD: Tensor, labels_S: Tensor) -> Head:
    """The layers in `body` and above them weight 2 c and bias -|c|² for the mean c of every class: nearest mean wins."""
    x_SD = logits(body, features_SD).relu() if body else features_SD
    member_NS = F.one_hot(labels_S, ways).T.to(x_SD)
    mean_ND = member_NS @ x_SD / member_NS.sum(dim=1, keepdim=True).clamp(min=1)
    return (*body, 2 * mean_ND, -mean_ND.square().sum(dim=1))


def adapt(
    start: Head,
    support_features: Callable[[], Tensor],
    labels_S: Tensor,
    *,
    steps: int,
    learning_rate: float,
    exact: bool,
    columns_N: Tensor | None = None,
) -> Adapted:
    """`steps` steps of gradient descent on the mean support loss, from `start`. `support_features` is asked once for each.

    First order (not `exact`): the steps are constants to the outer gradient, which passes straight through to `start`.
    Exact: it passes back through every step, also into the support features.
    """
    head = _free(start, exact)
    losses: list[Tensor] = []
    gradient_sum: tuple[Tensor, ...] = ()
    gradient: tuple[Tensor, ...] = ()
    with torch.enable_grad():
        for _ in range(steps):
            features_SD = support_features() if exact else support_features().detach()
            loss = F.cross_entropy(columns(logits(head, features_SD), columns_N), labels_S)
            gradient = torch.autograd.grad(loss, head, create_graph=exact)
            moved = [tensor - learning_rate * change for tensor, change in zip(head, gradient, strict=True)]
            head = _free(moved, exact)
            losses.append(loss.detach())
            seen = [change.detach() for change in gradient]
            gradient_sum = tuple(map(torch.add, gradient_sum, seen)) if gradient_sum else tuple(seen)
    if not exact:
        head = tuple(begun + (moved.detach() - begun.detach()) for begun, moved in zip(start, head, strict=True))
    return Adapted(head, tuple(losses), gradient_sum, gradient)


def _free(tensors: Sequence[Tensor], exact: bool) -> Head:
    """The tensors as something a gradient can be taken of: on the graph they came by, or as leaves of a new one."""
    return tuple(tensor if exact and tensor.requires_grad else tensor.detach().requires_grad_() for tensor in tensors)


def columns(logits_SO: Tensor, columns_N: Tensor | None) -> Tensor:
    """The outputs that stand for classes 0 to N - 1; all of them without `columns_N`."""
    return logits_SO if columns_N is None else logits_SO[:, columns_N]
