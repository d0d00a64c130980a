"""How parameters start. A scheme asks only for a tensor's role, so it serves every architecture."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from picolm.base.errors import PicoError, suggestion
from picolm.model.folder import parameter_name

if TYPE_CHECKING:
    from picolm.model.contract import LanguageModel


class Place(NamedTuple):
    """What a scheme may know about a weight: role, inputs per output, number of layers and width of the model."""

    role: str
    fan_in: int
    layers: int
    width: int

    @property
    def ends_block(self) -> bool:
        """Whether the weight's outputs are added to the residual stream."""
        return self.role in ("output", "down")


def _normal(place: Place) -> float:
    return 0.02


def _normal_depth_scaled(place: Place) -> float:
    return 0.02 / math.sqrt(2 * place.layers) if place.ends_block else 0.02


def _fan_in(place: Place) -> float:
    return 1.0 / math.sqrt(place.width if place.role == "embedding" else place.fan_in)


def _fan_in_depth_scaled(place: Place) -> float:
    return _fan_in(place) / math.sqrt(2 * place.layers) if place.ends_block else _fan_in(place)


def _small_wang(place: Place) -> float:
    return 2.0 / (place.layers * math.sqrt(place.width)) if place.ends_block else math.sqrt(2.0 / (5.0 * place.width))


STANDARD_DEVIATIONS: dict[str, Callable[[Place], float]] = {
    "normal": _normal,
    "normal_depth_scaled": _normal_depth_scaled,
    "fan_in": _fan_in,
    "fan_in_depth_scaled": _fan_in_depth_scaled,
    "small_wang": _small_wang,
}
"""Scheme -> standard deviation of a weight.

normal: 0.02 everywhere. normal_depth_scaled: that, divided by sqrt(2 L) where a block ends (Radford et al., 2019).
fan_in: 1 / sqrt(inputs); with _depth_scaled as above. small_wang: sqrt(2 / 5d), and 2 / (L sqrt d) where a block ends (Nguyen
and Salazar, 2019; Wang and Komatsuzaki, 2021), as in Pythia.
"""
SCHEMES = ("torch_default", *STANDARD_DEVIATIONS)


def check_scheme(name: str) -> str:
    """`name`, if it is a scheme; PicoError otherwise."""
    if name not in SCHEMES:
        raise PicoError(f"model.init: `{name}` is not an initialisation", suggestion(name, SCHEMES))
    return name


def known_scheme(name: str) -> str:
    """As `check_scheme`, for use as a validator of settings."""
    try:
        return check_scheme(name)
    except PicoError as error:
        raise ValueError(f"{error.message}; {error.hint}") from None


def initialize(model: LanguageModel, scheme: str, generator: torch.Generator) -> None:
    """Draw every parameter of a model, in the order of its names. Norms start at one, biases at zero.

    `torch_default` is what torch.nn does: embeddings N(0, 1), weights and biases of linear maps U(-1, 1) / sqrt(inputs).
    """
    check_scheme(scheme)
    layout = model.layout()
    roles = {parameter_name(name, place): place.role for name, place in layout.tensors.items()}
    parameters = dict(model.named_parameters())
    layers = len(layout.names_with_role("query"))
    width = next(parameters[f"{name}.weight"].shape[1] for name in layout.names_with_role("embedding"))
    with torch.no_grad():
        for name, parameter in parameters.items():
            if roles[name] == "bias":
                weight = parameters[name.removesuffix("bias") + "weight"]
                _draw_bias(parameter, weight, scheme, generator)
            elif roles[name] == "norm":
                parameter.fill_(1.0)
            else:
                _draw_weight(parameter, Place(roles[name], parameter.shape[1], layers, width), scheme, generator)


def _draw_bias(bias: Tensor, weight: Tensor, scheme: str, generator: torch.Generator) -> None:
    if scheme != "torch_default" or weight.dim() == 1:
        bias.zero_()
        return
    bound = 1.0 / math.sqrt(weight.shape[1])
    bias.uniform_(-bound, bound, generator=generator)


def _draw_weight(weight: Tensor, place: Place, scheme: str, generator: torch.Generator) -> None:
    if scheme != "torch_default":
        weight.normal_(0.0, STANDARD_DEVIATIONS[scheme](place), generator=generator)
    elif place.role == "embedding":
        weight.normal_(0.0, 1.0, generator=generator)
    else:
        bound = 1.0 / math.sqrt(place.fan_in)
        weight.uniform_(-bound, bound, generator=generator)
