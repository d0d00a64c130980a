"""Next-token prediction with a penalty on how far the singular values of each matrix are apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from picolm.model.contract import LanguageModel
from picolm.train.methods.contract import StepBatch, StepResult, TrainingMethod
from picolm.train.methods.language_model import language_model_step

if TYPE_CHECKING:
    from lightning_fabric import Fabric


class ConditionPenalty(TrainingMethod):
    """Adds weight x mean over the matrices of the blocks of log(largest / smallest singular value) to the loss."""

    def __init__(self, *, weight: float = 0.001) -> None:
        self._weight = weight
        self._matrices: list[nn.Parameter] = []

    def wrap_model(self, model: LanguageModel) -> LanguageModel:
        """The model as it is; its matrices are noted."""
        named = model.named_parameters()
        self._matrices = [tensor for name, tensor in named if name.startswith("layers.") and tensor.dim() == 2]
        return model

    def forward_backward(self, model: nn.Module, batch: StepBatch, fabric: Fabric) -> StepResult:
        """One step on text, and the gradient of the penalty."""
        return language_model_step(model, batch, fabric, self._penalty)

    def _penalty(self) -> Mapping[str, Tensor]:
        spreads = []
        for matrix in self._matrices:
            sigma_R = torch.linalg.svdvals(matrix.float())
            spreads.append((sigma_R[0] / sigma_R[-1].clamp_min(1e-6)).log())
        return {"condition_penalty": self._weight * torch.stack(spreads).mean()}
