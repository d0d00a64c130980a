"""The built-in optimisers: torch's own, with weight decay on the parameters it should act on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import torch
from torch import nn

from picolm.base.errors import PicoError
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


@OPTIMIZERS.register("muon")
def muon(
    parameters: Iterable[tuple[str, nn.Parameter]],
    *,
    lr: float,
    momentum: float = 0.95,
    nesterov: bool = True,
    ns_steps: int = 5,
    weight_decay: float = 0.1,
    adjust_lr_fn: Literal["original", "match_rms_adamw"] = "match_rms_adamw",
    betas: tuple[float, float] = (0.9, 0.95),
    eps: float = 1e-8,
    decay_scope: DecayScope = "matrices",
) -> torch.optim.Optimizer:
    """Muon (Jordan et al., 2024) on the matrices inside blocks, AdamW with `betas` and `eps` on all other parameters.

    With `match_rms_adamw` an update is as large as AdamW's, so that one learning rate serves both (Liu et al., 2025).
    """
    named = list(parameters)
    hidden = [(name, parameter) for name, parameter in named if _is_hidden_matrix(name, parameter)]
    others = [(name, parameter) for name, parameter in named if not _is_hidden_matrix(name, parameter)]
    if not hidden:
        raise PicoError(
            "training.optimization.optimizer: muon finds no matrix inside a block of this model", "use the optimizer `adamw`"
        )
    parts: list[torch.optim.Optimizer] = [
        torch.optim.Muon(
            [parameter for _, parameter in hidden],
            lr=lr,
            weight_decay=weight_decay,
            momentum=momentum,
            nesterov=nesterov,
            ns_steps=ns_steps,
            adjust_lr_fn=adjust_lr_fn,
        )
    ]
    if others:
        parts.append(torch.optim.AdamW(decay_groups(others, weight_decay, decay_scope), lr=lr, betas=betas, eps=eps, fused=True))
    return Joined(parts)


class Joined(torch.optim.Optimizer):
    """Several optimisers, each over its own parameters, that step, save and load as one."""

    def __init__(self, parts: Sequence[torch.optim.Optimizer]) -> None:
        super().__init__([group for part in parts for group in part.param_groups], {})
        self._parts = list(parts)

    def step(self, closure: Any = None) -> Any:
        """Step every part with this optimiser's groups and state, which loading a state replaces."""
        loss = None if closure is None else closure()
        groups = iter(self.param_groups)
        for part in self._parts:
            part.param_groups = [next(groups) for _ in part.param_groups]
            part.state = self.state
            part.step()
        return loss


def decay_groups(parameters: Iterable[tuple[str, nn.Parameter]], weight_decay: float, scope: DecayScope) -> list[dict[str, Any]]:
    """Parameter groups with and without weight decay; a group without parameters is left out."""
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for name, parameter in parameters:
        (decayed if _is_decayed(name, parameter, scope) else free).append(parameter)
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def _is_hidden_matrix(name: str, parameter: nn.Parameter) -> bool:
    return parameter.dim() == 2 and name.startswith("layers.")


def _is_decayed(name: str, parameter: nn.Parameter, scope: DecayScope) -> bool:
    if scope == "all":
        return True
    if parameter.dim() < 2:
        return False
    return scope == "matrices" or name.startswith("layers.")
