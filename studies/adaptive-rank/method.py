"""ReLoRA whose layers begin each cycle with about as many directions as they used in the one before."""

from __future__ import annotations

import math

import torch

from picolm.model.contract import LanguageModel
from picolm.train.methods.contract import Series
from picolm.train.methods.relora import ReLoRA
from picolm.train.methods.relora_layers import LowRankLinear, low_rank_layers


class AdaptiveRank(ReLoRA):
    """After a reset only the first k rows of A are kept: k is `slack` times the effective rank of B A before the reset.

    The effective rank is exp(entropy of the shares of the singular values). A row of A that is zero, with its column of B, gets
    no gradient, so the layer has rank k until the next reset.
    """

    def __init__(
        self,
        *,
        rank: int = 8,
        alpha: float = 16.0,
        warm_start_share: float = 0.25,
        reset_every_steps: int = 2000,
        ramp_steps: int = 100,
        slack: float = 1.25,
    ) -> None:
        super().__init__(
            rank=rank,
            alpha=alpha,
            dropout=0.0,
            warm_start_share=warm_start_share,
            reset_every_steps=reset_every_steps,
            ramp_steps=ramp_steps,
            learning_rate_multiplier=1.0,
        )
        self._slack = slack

    def after_update(self, step: int, model: LanguageModel, optimizer: torch.optim.Optimizer, *, applied: bool) -> Series:
        """What ReLoRA does; at a reset also the choice of ranks."""
        layers = low_rank_layers(model)
        changes = {name: (layer.lora_b.detach().clone(), layer.lora_a.detach().clone()) for name, layer in layers.items()}
        said = dict(super().after_update(step, model, optimizer, applied=applied))
        if "relora_resets" in said:
            for name, layer in layers.items():
                b_OR, a_RI = changes[name]
                keep(layer, min(len(a_RI), max(1, math.ceil(self._slack * effective_rank(b_OR @ a_RI)))), optimizer)
        used = [float(layer.lora_a.detach().any(dim=1).sum()) for layer in layers.values() if layer.low_rank]
        return said | ({"mean_rank": sum(used) / len(used)} if used else {})


def effective_rank(change_OI: torch.Tensor) -> float:
    """exp(entropy of the shares of the singular values); 1 for a change that is zero."""
    sigma_R = torch.linalg.svdvals(change_OI.double())
    if not sigma_R.any():
        return 1.0
    return float(torch.special.entr(sigma_R / sigma_R.sum()).sum().exp())


def keep(layer: LowRankLinear, rank: int, optimizer: torch.optim.Optimizer) -> None:
    """Leave the first `rank` directions of a layer that begins a cycle."""
    with torch.no_grad():
        layer.lora_a[rank:] = 0.0
        for name, moment in optimizer.state.get(layer.lora_a, {}).items():
            if name.startswith("exp_avg"):
                moment[rank:] = 0.0
        for name, moment in optimizer.state.get(layer.lora_b, {}).items():
            if name.startswith("exp_avg"):
                moment[:, rank:] = 0.0
