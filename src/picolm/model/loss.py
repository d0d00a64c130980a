"""The output head and the cross-entropy in one, without ever holding the logits of a whole batch.

With 50,304 words and a width of 96 the logits are five hundred times larger than what they are computed from. So tokens go
through in chunks: each chunk's logits become its loss and, at once, its gradients, and are gone. The loss is a sum, so
the gradient that arrives in backward is one number to multiply with; nothing is computed twice.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORED_LABEL = -100
LOGITS_BUDGET_BYTES = 64 * 2**20
"""Logits of one chunk, in float32, take at most this much memory."""


def cross_entropy_sum(hidden_ND: Tensor, weight_VD: Tensor, labels_N: Tensor) -> Tensor:
    """Sum over labels other than -100 of -log softmax(W h)[label], in float32; under autocast logits have its dtype.

    Gradients are those of the unchunked loss. For second derivatives, and only then, the logits of all tokens are held at once.
    """
    device = hidden_ND.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden_ND.dtype
    chunk_tokens = max(1, LOGITS_BUDGET_BYTES // (4 * weight_VD.shape[0]))
    if torch.is_grad_enabled():
        loss: Tensor = _LinearCrossEntropy.apply(hidden_ND, weight_VD, labels_N, chunk_tokens, dtype)  # type: ignore[no-untyped-call]
        return loss
    with torch.autocast(device, enabled=False):
        weight_VD = weight_VD.to(dtype)
        losses = [
            _chunk_loss((hidden_CD.to(dtype) @ weight_VD.T).float(), labels_C)[0]
            for hidden_CD, labels_C in zip(torch.split(hidden_ND, chunk_tokens), torch.split(labels_N, chunk_tokens), strict=True)
        ]
    return torch.stack(losses).sum()


def _chunk_loss(logits_CV: Tensor, labels_C: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Summed loss of a chunk, its normaliser (infinite where the label is ignored) and which labels count."""
    counted_C = labels_C != IGNORED_LABEL
    normaliser_C = logits_CV.logsumexp(dim=-1)
    label_logit_C = logits_CV.gather(-1, labels_C.clamp(min=0)[:, None]).squeeze(-1)
    loss = torch.where(counted_C, normaliser_C - label_logit_C, 0.0).sum()
    return loss, torch.where(counted_C, normaliser_C, torch.inf), counted_C


class _LinearCrossEntropy(torch.autograd.Function):
    """Loss and, in the same pass, the gradients with respect to hidden states and head."""

    @staticmethod
    def forward(
        ctx: Any, hidden_ND: Tensor, weight_VD: Tensor, labels_N: Tensor, chunk_tokens: int, dtype: torch.dtype
    ) -> Tensor:
        with torch.autocast(hidden_ND.device.type, enabled=False):
            low_weight_VD = weight_VD.to(dtype)
            losses, hidden_gradients = [], []
            weight_gradient_VD = torch.zeros_like(weight_VD, dtype=torch.float32)
            for hidden_CD, labels_C in zip(
                torch.split(hidden_ND, chunk_tokens), torch.split(labels_N, chunk_tokens), strict=True
            ):
                low_hidden_CD = hidden_CD.to(dtype)
                logits_CV = (low_hidden_CD @ low_weight_VD.T).float()
                loss, normaliser_C, counted_C = _chunk_loss(logits_CV, labels_C)
                gradient_CV = logits_CV.sub_(normaliser_C[:, None]).exp_()
                gradient_CV.scatter_add_(1, labels_C.clamp(min=0)[:, None], -counted_C.float()[:, None])
                low_gradient_CV = gradient_CV.to(dtype)
                losses.append(loss)
                hidden_gradients.append(low_gradient_CV @ low_weight_VD)
                weight_gradient_VD += low_gradient_CV.T @ low_hidden_CD
            hidden_gradient_ND = torch.cat(hidden_gradients).to(hidden_ND.dtype)
            ctx.save_for_backward(hidden_ND, weight_VD, labels_N, hidden_gradient_ND, weight_gradient_VD.to(weight_VD.dtype))
            return torch.stack(losses).sum()

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        hidden_ND, weight_VD, labels_N, hidden_gradient_ND, weight_gradient_VD = ctx.saved_tensors
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():  # only where second derivatives are wanted
            loss = F.cross_entropy(hidden_ND @ weight_VD.T, labels_N, reduction="sum", ignore_index=IGNORED_LABEL)
            return *torch.autograd.grad(loss, (hidden_ND, weight_VD), upstream, create_graph=True), None, None, None
        return hidden_gradient_ND * upstream.to(hidden_gradient_ND.dtype), weight_gradient_VD * upstream, None, None, None
