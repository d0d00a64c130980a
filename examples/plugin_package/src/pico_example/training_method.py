from typing import Any

import torch
from torch import nn

from picolm.train.methods.contract import RunFacts, StepBatch, StepResult, TrainingMethod, draws_for


class TokenDropout(TrainingMethod):
    """Some tokens are hidden from the model at every step, which must still predict all of them."""

    def __init__(self, *, share: float = 0.1, hidden_as: int = 0) -> None:
        self._share, self._hidden_as = share, hidden_as

    def begin_run(self, facts: RunFacts) -> None:
        self._facts = facts

    def forward_backward(self, model: nn.Module, batch: StepBatch, fabric: Any) -> StepResult:
        scale = fabric.world_size / batch.global_tokens  # the loss is a sum over tokens; processes are averaged
        loss_sum = torch.zeros((), device=fabric.device)
        whole_BT = self._hidden_of_step(batch.step)
        hidden_BT = whole_BT.chunk(fabric.world_size)[fabric.global_rank].to(fabric.device)
        parts = list(zip(batch.micro_batches, hidden_BT.chunk(len(batch.micro_batches)), strict=True))
        for number, (tokens_BT, hidden_bT) in enumerate(parts, start=1):
            inputs_BT = tokens_BT[:, :-1].masked_fill(hidden_bT, self._hidden_as)
            with fabric.no_backward_sync(model, enabled=fabric.world_size > 1 and number < len(parts)):
                loss = model(inputs_BT, labels_BT=tokens_BT[:, 1:])
                fabric.backward(loss * scale)
            loss_sum = loss_sum + loss.detach()
        return StepResult(loss_sum, {"hidden_share": whole_BT.float().mean()})

    def _hidden_of_step(self, step: int) -> torch.Tensor:
        """(B, T), drawn for the rows of all processes, so that devices and micro-batches change nothing."""
        draws = draws_for(self._facts.seed, "token_dropout", step)
        return torch.rand(self._facts.batch_sequences, self._facts.row_tokens, generator=draws) < self._share
