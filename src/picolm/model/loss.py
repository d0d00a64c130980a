"""The output head and the cross-entropy in one, without ever holding the logits of a whole batch.

With 50,304 words and a width of 96 the logits are five hundred times larger than what they are computed from. So tokens go
through in chunks: each chunk's logits become its loss and, in the same memory, its gradients. The loss is a sum, so the
gradient that arrives in backward is one number to multiply with; nothing is computed twice.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from picolm.model.precision import product_dtype

IGNORED_LABEL = -100
"""A label that does not count towards the loss."""
LOGITS_BUDGET_BYTES = {"cpu": 50 * 2**20, "cuda": 2**30}
"""Logits of one chunk, in float32, take at most this much: on a CPU what its caches nearly hold (docs/log.md has the table)."""


def read_out(x_BTD: Tensor, head: nn.Linear, labels_BT: Tensor | None, *, features: bool) -> Tensor:
    """The end of every architecture's forward: `features` as they are, logits, or, with labels, the summed cross-entropy."""
    if features:
        return x_BTD
    if labels_BT is None:
        logits_BTV: Tensor = head(x_BTD)
        return logits_BTV
    return cross_entropy_sum(x_BTD.flatten(0, 1), head.weight, labels_BT.flatten())


def cross_entropy_sum(hidden_ND: Tensor, weight_VD: Tensor, labels_N: Tensor) -> Tensor:
    """Sum over labels other than -100 of -log softmax(W h)[label], in float32.

    Gradients are those of the unchunked loss. Under autocast the products have its dtype (see `precision`), all
    reductions float32. For second derivatives, and only then, the logits of all tokens are held at once.
    """
    chunk_tokens = tokens_per_chunk(hidden_ND.shape[0], weight_VD.shape[0], hidden_ND.device.type)
    dtype = product_dtype(hidden_ND.device.type, hidden_ND.dtype)
    if torch.is_grad_enabled():
        loss: Tensor = _LinearCrossEntropy.apply(hidden_ND, weight_VD, labels_N, chunk_tokens, dtype)  # type: ignore[no-untyped-call]
        return loss
    return _loss_and_gradients(hidden_ND, weight_VD, labels_N, chunk_tokens, dtype, with_gradients=False).loss


def tokens_per_chunk(tokens: int, vocabulary: int, device: str) -> int:
    """The largest equal chunks whose logits fit the budget."""
    most = max(1, LOGITS_BUDGET_BYTES.get(device, LOGITS_BUDGET_BYTES["cuda"]) // (4 * vocabulary))
    chunks = max(1, math.ceil(tokens / most))
    return max(1, math.ceil(tokens / chunks))


class _Result(NamedTuple):
    loss: Tensor
    hidden_gradient_ND: Tensor
    weight_gradient_VD: Tensor


def _loss_and_gradients(
    hidden_ND: Tensor, weight_VD: Tensor, labels_N: Tensor, chunk_tokens: int, dtype: torch.dtype, *, with_gradients: bool
) -> _Result:
    """All of it, chunk after chunk. On a CPU a compiler sees it as one operation: nothing to fuse, and no loop to unroll."""
    arguments = (hidden_ND, weight_VD, labels_N, chunk_tokens, dtype, with_gradients)
    if torch.compiler.is_compiling() and hidden_ND.device.type == "cpu":
        return _Result(*_as_one_operation(*arguments))
    return _chunk_after_chunk(*arguments)


def _chunk_after_chunk(
    hidden_ND: Tensor, weight_VD: Tensor, labels_N: Tensor, chunk_tokens: int, dtype: torch.dtype, with_gradients: bool
) -> _Result:
    with torch.no_grad(), torch.autocast(hidden_ND.device.type, enabled=False):
        low_weight_VD, wide = weight_VD.to(dtype), torch.promote_types(dtype, torch.float32)
        hidden_gradient_ND = torch.empty_like(hidden_ND if with_gradients else hidden_ND[:0])
        weight_gradient_VD = torch.zeros_like(weight_VD if with_gradients else weight_VD[:0], dtype=wide)
        # One piece of memory serves all chunks: fresh pages cost more than the arithmetic done in them.
        logits_CV = hidden_ND.new_empty(min(chunk_tokens, hidden_ND.shape[0]), weight_VD.shape[0], dtype=dtype)
        shares_CV = logits_CV if dtype == wide else torch.empty_like(logits_CV, dtype=wide)
        losses = []
        for start in range(0, hidden_ND.shape[0], chunk_tokens):
            chunk = slice(start, start + chunk_tokens)
            counted_C1 = (labels_N[chunk] != IGNORED_LABEL)[:, None]
            label_C1 = labels_N[chunk, None].clamp(min=0)
            hidden_CD = hidden_ND[chunk].to(dtype)
            logits_cV, share_cV = logits_CV[: hidden_CD.shape[0]], shares_CV[: hidden_CD.shape[0]]
            torch.mm(hidden_CD, low_weight_VD.T, out=logits_cV)
            torch.log_softmax(logits_cV.to(wide), dim=-1, out=share_cV)
            losses.append(-torch.where(counted_C1, share_cV.gather(-1, label_C1), 0.0).sum())
            if not with_gradients:
                continue
            share_cV.exp_().scatter_add_(-1, label_C1, torch.full_like(share_cV[:, :1], -1.0))
            gradient_cV = share_cV if dtype == wide else logits_cV.copy_(share_cV)
            # Labels that do not count are taken out of the narrow tensors: no further pass over the logits.
            hidden_gradient_ND[chunk] = (gradient_cV @ low_weight_VD) * counted_C1
            _add_product(weight_gradient_VD, gradient_cV.T, hidden_CD * counted_C1)
        return _Result(torch.stack(losses).sum(), hidden_gradient_ND, weight_gradient_VD.to(weight_VD.dtype))


@torch.library.custom_op("picolm::linear_cross_entropy", mutates_args=())
def _as_one_operation(
    hidden_ND: Tensor, weight_VD: Tensor, labels_N: Tensor, chunk_tokens: int, dtype: torch.dtype, with_gradients: bool
) -> tuple[Tensor, Tensor, Tensor]:
    loss, hidden, weight = _chunk_after_chunk(hidden_ND, weight_VD, labels_N, chunk_tokens, dtype, with_gradients)
    return loss, hidden, weight


@_as_one_operation.register_fake
def _(
    hidden_ND: Tensor, weight_VD: Tensor, labels_N: Tensor, chunk_tokens: int, dtype: torch.dtype, with_gradients: bool
) -> tuple[Tensor, Tensor, Tensor]:
    kept = slice(None) if with_gradients else slice(0)
    loss = hidden_ND.new_empty((), dtype=torch.promote_types(dtype, torch.float32))
    return loss, torch.empty_like(hidden_ND[kept]), torch.empty_like(weight_VD[kept])


def _add_product(total_VD: Tensor, left_VC: Tensor, right_CD: Tensor) -> None:
    """total += left @ right, summed in the total's dtype."""
    if left_VC.dtype == total_VD.dtype:
        total_VD.addmm_(left_VC, right_CD)
    else:
        total_VD.add_(left_VC @ right_CD)


class _LinearCrossEntropy(torch.autograd.Function):
    """Loss and, in the same pass, the gradients with respect to hidden states and head."""

    @staticmethod
    def forward(
        ctx: Any, hidden_ND: Tensor, weight_VD: Tensor, labels_N: Tensor, chunk_tokens: int, dtype: torch.dtype
    ) -> Tensor:
        result = _loss_and_gradients(hidden_ND, weight_VD, labels_N, chunk_tokens, dtype, with_gradients=True)
        ctx.save_for_backward(hidden_ND, weight_VD, labels_N, result.hidden_gradient_ND, result.weight_gradient_VD)
        return result.loss

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        hidden_ND, weight_VD, labels_N, hidden_gradient_ND, weight_gradient_VD = ctx.saved_tensors
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():  # only where second derivatives are wanted
            loss = F.cross_entropy(hidden_ND @ weight_VD.T, labels_N, reduction="sum", ignore_index=IGNORED_LABEL)
            return *torch.autograd.grad(loss, (hidden_ND, weight_VD), upstream, create_graph=True), None, None, None
        return hidden_gradient_ND * upstream.to(hidden_gradient_ND.dtype), weight_gradient_VD * upstream, None, None, None
