from collections.abc import Iterable
from typing import Any

import torch
from torch import nn


def lion(
    parameters: Iterable[tuple[str, nn.Parameter]],
    *,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.99),
    weight_decay: float = 0.0,
) -> torch.optim.Optimizer:
    """Lion: steps of one size in the direction of the sign of a momentum (Chen et al., 2023)."""
    return Lion([parameter for _, parameter in parameters], {"lr": lr, "betas": betas, "weight_decay": weight_decay})


class Lion(torch.optim.Optimizer):
    """Its state is one tensor per parameter: what stands in `self.state` is saved and restored with the run."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                momentum = self.state[parameter].setdefault("momentum", torch.zeros_like(parameter))
                mixed = torch.lerp(parameter.grad, momentum, group["betas"][0])
                parameter.mul_(1 - group["lr"] * group["weight_decay"]).sub_(group["lr"] * mixed.sign())
                momentum.lerp_(parameter.grad, 1 - group["betas"][1])
