"""The chunked loss against torch's own cross-entropy in double precision."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from picolm.model import loss as loss_module
from picolm.model import precision
from picolm.model.loss import cross_entropy_sum


def problem() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    hidden_ND = torch.randn(37, 16, generator=generator)
    weight_VD = torch.randn(53, 16, generator=generator)
    labels_N = torch.randint(0, 53, (37,), generator=generator)
    labels_N[[0, 11, 36]] = -100
    return hidden_ND.requires_grad_(), weight_VD.requires_grad_(), labels_N


def truth(scale: float) -> tuple[Tensor, Tensor, Tensor]:
    hidden_ND, weight_VD, labels_N = problem()
    hidden, weight = hidden_ND.detach().double().requires_grad_(), weight_VD.detach().double().requires_grad_()
    loss = F.cross_entropy(hidden @ weight.T, labels_N, reduction="sum")
    (loss * scale).backward()
    assert hidden.grad is not None and weight.grad is not None
    return loss.detach(), hidden.grad, weight.grad


@pytest.mark.parametrize("tokens_per_chunk", [1, 10, 37, 1000])
def test_loss_and_gradients_equal_double_precision_for_every_chunk_size(
    tokens_per_chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(loss_module.LOGITS_BUDGET_BYTES, "cpu", 4 * 53 * tokens_per_chunk)
    hidden_ND, weight_VD, labels_N = problem()
    loss = cross_entropy_sum(hidden_ND, weight_VD, labels_N)
    (loss * 0.25).backward()
    true_loss, true_hidden_ND, true_weight_VD = truth(0.25)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(true_loss.item(), rel=1e-6)
    torch.testing.assert_close(hidden_ND.grad, true_hidden_ND.float(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(weight_VD.grad, true_weight_VD.float(), rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        assert cross_entropy_sum(hidden_ND, weight_VD, labels_N).item() == pytest.approx(true_loss.item(), rel=1e-6)


@pytest.mark.parametrize("in_hardware", [True, False])
def test_under_autocast_the_error_is_that_of_bfloat16_products_or_less(
    in_hardware: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "cpu_multiplies", lambda _: in_hardware)
    hidden_ND, weight_VD, labels_N = problem()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = cross_entropy_sum(hidden_ND, weight_VD, labels_N)
    loss.backward()
    true_loss, true_hidden_ND, true_weight_VD = truth(1.0)
    assert loss.dtype == hidden_ND.grad.dtype == weight_VD.grad.dtype == torch.float32
    assert loss.item() == pytest.approx(true_loss.item(), rel=1e-2)
    for ours, true in ((hidden_ND.grad, true_hidden_ND), (weight_VD.grad, true_weight_VD)):
        assert ((ours.double() - true).norm() / true.norm()).item() < 1e-2


def test_ignored_labels_alone_give_zero_and_no_gradient() -> None:
    hidden_ND, weight_VD, labels_N = problem()
    loss = cross_entropy_sum(hidden_ND, weight_VD, torch.full_like(labels_N, -100))
    loss.backward()
    assert loss.item() == 0.0
    assert not hidden_ND.grad.any() and not weight_VD.grad.any()


def test_backward_twice_gives_the_same_gradient() -> None:
    hidden_ND, weight_VD, labels_N = problem()
    loss = cross_entropy_sum(hidden_ND, weight_VD, labels_N)
    first, second = (torch.autograd.grad(loss, hidden_ND, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)


def test_second_derivatives_equal_those_of_the_plain_loss() -> None:
    seconds = []
    for loss_of in (cross_entropy_sum, lambda h, w, y: F.cross_entropy(h @ w.T, y, reduction="sum")):
        hidden_ND, weight_VD, labels_N = problem()
        first = torch.autograd.grad(loss_of(hidden_ND, weight_VD, labels_N), (hidden_ND, weight_VD), create_graph=True)
        seconds.append(torch.autograd.grad(sum(gradient.square().sum() for gradient in first), (hidden_ND, weight_VD)))
    for ours, plain in zip(*seconds, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-4)


def test_chunks_are_equal_and_within_the_budget() -> None:
    for tokens in (1, 255, 2048, 5000):
        most = loss_module.LOGITS_BUDGET_BYTES["cpu"] // (4 * 50304)
        chunk = loss_module.tokens_per_chunk(tokens, 50304, "cpu")
        assert 1 <= chunk <= most
        assert tokens - chunk * ((tokens - 1) // chunk) > chunk - (tokens // chunk + 1)
    assert loss_module.tokens_per_chunk(7, 10**12, "cpu") == 1


def test_double_precision_models_get_double_precision_gradients() -> None:
    hidden_ND, weight_VD, labels_N = problem()
    double = hidden_ND.detach().double().requires_grad_(), weight_VD.detach().double().requires_grad_()
    (cross_entropy_sum(*double, labels_N) * 0.25).backward()
    for ours, true in zip((value.grad for value in double), truth(0.25)[1:], strict=True):
        torch.testing.assert_close(ours, true, rtol=1e-12, atol=1e-12)


def test_compiled_loss_and_gradients_equal_double_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(loss_module.LOGITS_BUDGET_BYTES, "cpu", 4 * 53 * 10)
    hidden_ND, weight_VD, labels_N = problem()
    loss = torch.compile(cross_entropy_sum, fullgraph=True)(hidden_ND, weight_VD, labels_N)
    (loss * 0.25).backward()
    true_loss, true_hidden_ND, true_weight_VD = truth(0.25)
    assert loss.item() == pytest.approx(true_loss.item(), rel=1e-6)
    torch.testing.assert_close(hidden_ND.grad, true_hidden_ND.float(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(weight_VD.grad, true_weight_VD.float(), rtol=1e-5, atol=1e-6)
