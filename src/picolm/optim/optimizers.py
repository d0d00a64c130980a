"""The built-in optimisers: torch's own, with weight decay on the parameters it should act on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import nn

from picolm.optim.contract import OPTIMIZERS

DecayScope = Literal["all", "matrices", "hidden_matrices"]
"""`all`: every parameter, as in the paper. `matrices`: two or more dimensions. `hidden_matrices`: those inside blocks."""


@OPTIMIZERS.register("adamw")
def adamw(
    parameters: Iterable[tuple[str, nn.Parameter]],
    *,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.01,
    decay_scope: DecayScope = "all",
    fused: bool = True,
) -> torch.optim.Optimizer:
    """AdamW (Loshchilov and Hutter, 2019). The defaults are torch's, which the paper used."""
    groups = decay_groups(parameters, weight_decay, decay_scope)
    return torch.optim.AdamW(groups, lr=lr, betas=betas, eps=eps, fused=fused)


@OPTIMIZERS.register("sgd")
def sgd(
    parameters: Iterable[tuple[str, nn.Parameter]],
    *,
    lr: float,
    momentum: float = 0.0,
    nesterov: bool = False,
    weight_decay: float = 0.0,
    decay_scope: DecayScope = "matrices",
) -> torch.optim.Optimizer:
    """Stochastic gradient descent with momentum."""
    groups = decay_groups(parameters, weight_decay, decay_scope)
    return torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=nesterov)


def decay_groups(parameters: Iterable[tuple[str, nn.Parameter]], weight_decay: float, scope: DecayScope) -> list[dict[str, Any]]:
    """Parameter groups with and without weight decay; a group without parameters is left out."""
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for name, parameter in parameters:
        (decayed if _is_decayed(name, parameter, scope) else free).append(parameter)
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def _is_decayed(name: str, parameter: nn.Parameter, scope: DecayScope) -> bool:
    if scope == "all":
        return True
    if parameter.dim() < 2:
        return False
    return scope == "matrices" or name.startswith("layers.")
