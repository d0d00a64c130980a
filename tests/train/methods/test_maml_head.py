"""The inner loop against the algorithm written by hand, against autograd through everything, and against finite differences."""

from __future__ import annotations

import numpy
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from picolm.train.methods.maml_head import Head, adapt, drawn_layers, logits, with_prototypes, with_zero_output

WAYS, WIDTH = 3, 5
STEPS, RATE = 4, 0.3


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


SUPPORT_SD, QUERY_QD = normal(12, WIDTH, seed=1), normal(6, WIDTH, seed=2)
LABELS_S, LABELS_Q = torch.arange(WAYS).repeat(4), torch.arange(WAYS).repeat(2)


def linear_head(seed: int = 3) -> Head:
    return normal(WAYS, WIDTH, seed=seed), normal(WAYS, seed=seed + 1)


def query_loss(start: Head, support_SD: Tensor, query_QD: Tensor, *, exact: bool) -> Tensor:
    adapted = adapt(start, lambda: support_SD, LABELS_S, steps=STEPS, learning_rate=RATE, exact=exact)
    return F.cross_entropy(logits(adapted.head, query_QD), LABELS_Q)


def test_the_inner_loop_is_gradient_descent_on_the_support_loss():
    weight, bias = (tensor.numpy().copy() for tensor in linear_head())
    support, onehot = SUPPORT_SD.numpy(), numpy.eye(WAYS)[LABELS_S.numpy()]
    for _ in range(STEPS):
        scores = support @ weight.T + bias
        shares = numpy.exp(scores) / numpy.exp(scores).sum(axis=1, keepdims=True)
        slope = (shares - onehot) / len(support)
        weight, bias = weight - RATE * slope.T @ support, bias - RATE * slope.sum(axis=0)
    for exact in (False, True):
        adapted = adapt(linear_head(), lambda: SUPPORT_SD, LABELS_S, steps=STEPS, learning_rate=RATE, exact=exact)
        assert adapted.head[0].detach().numpy() == pytest.approx(weight)
        assert adapted.head[1].detach().numpy() == pytest.approx(bias)


def test_the_parameters_that_come_in_are_not_changed_and_get_no_gradient():
    start = tuple(tensor.requires_grad_() for tensor in linear_head())
    adapt(start, lambda: SUPPORT_SD, LABELS_S, steps=STEPS, learning_rate=RATE, exact=False)
    assert all(torch.equal(now, before) for now, before in zip(start, linear_head(), strict=True))
    assert all(tensor.grad is None for tensor in start)


def test_in_first_order_the_start_gets_the_gradient_at_the_adapted_head_and_support_features_none():
    support_SD = SUPPORT_SD.clone().requires_grad_()
    start = tuple(tensor.requires_grad_() for tensor in linear_head())
    query_loss(start, support_SD, QUERY_QD, exact=False).backward()
    adapted = adapt(linear_head(), lambda: SUPPORT_SD, LABELS_S, steps=STEPS, learning_rate=RATE, exact=False)
    at_end = tuple(tensor.detach().requires_grad_() for tensor in adapted.head)
    expected = torch.autograd.grad(F.cross_entropy(logits(at_end, QUERY_QD), LABELS_Q), at_end)
    for tensor, gradient in zip(start, expected, strict=True):
        assert tensor.grad is not None
        torch.testing.assert_close(tensor.grad, gradient)
    assert support_SD.grad is None


def test_prototypes_pass_the_first_order_gradient_on_to_the_support_features():
    support_SD = SUPPORT_SD.clone().requires_grad_()
    query_loss(with_prototypes((), WAYS, support_SD, LABELS_S), support_SD, QUERY_QD, exact=False).backward()
    assert support_SD.grad is not None
    assert support_SD.grad.norm() > 0


def test_the_exact_gradient_agrees_with_finite_differences_where_the_first_order_one_does_not():
    def exact(support_SD: Tensor, query_QD: Tensor, *start: Tensor) -> Tensor:
        return query_loss(start, support_SD, query_QD, exact=True)

    def first_order(support_SD: Tensor, query_QD: Tensor, *start: Tensor) -> Tensor:
        return query_loss(start, support_SD, query_QD, exact=False)

    inputs = [tensor.clone().requires_grad_() for tensor in (SUPPORT_SD, QUERY_QD, *linear_head())]
    assert torch.autograd.gradcheck(exact, inputs)
    with pytest.raises(RuntimeError, match="Jacobian mismatch"):
        torch.autograd.gradcheck(first_order, inputs)


def test_the_exact_gradient_passes_through_a_deep_head_and_through_prototypes():
    def loss(support_SD: Tensor, query_QD: Tensor, *body: Tensor) -> Tensor:
        return query_loss(with_prototypes(body, WAYS, support_SD, LABELS_S), support_SD, query_QD, exact=True)

    body = drawn_layers((WIDTH, 4), torch.Generator().manual_seed(5), SUPPORT_SD)
    shifted = (body[0], body[1] + 0.1)  # away from the kink of the ReLU
    assert torch.autograd.gradcheck(loss, [tensor.clone().requires_grad_() for tensor in (SUPPORT_SD, QUERY_QD, *shifted)])


def test_a_zero_output_takes_all_classes_for_equally_likely():
    for body in ((), drawn_layers((WIDTH, 4), torch.Generator().manual_seed(5), SUPPORT_SD)):
        scores_QN = logits(with_zero_output(body, WAYS, SUPPORT_SD), QUERY_QD)
        assert float(F.cross_entropy(scores_QN, LABELS_Q)) == pytest.approx(numpy.log(WAYS))


def test_prototypes_choose_the_nearest_class_mean():
    head = with_prototypes((), WAYS, SUPPORT_SD, LABELS_S)
    means_ND = torch.stack([SUPPORT_SD[label == LABELS_S].mean(dim=0) for label in range(WAYS)])
    nearest_Q = torch.cdist(QUERY_QD, means_ND).argmin(dim=1)
    assert torch.equal(logits(head, QUERY_QD).argmax(dim=1), nearest_Q)


def test_a_head_over_the_vocabulary_is_read_at_the_columns_of_the_classes():
    start = normal(20, WIDTH), normal(20)
    columns_N = torch.tensor([7, 0, 13])
    whole = adapt(start, lambda: SUPPORT_SD, LABELS_S, steps=1, learning_rate=RATE, exact=False, columns_N=columns_N)
    cut = adapt(tuple(t[columns_N] for t in start), lambda: SUPPORT_SD, LABELS_S, steps=1, learning_rate=RATE, exact=False)
    torch.testing.assert_close(whole.head[0][columns_N], cut.head[0])
    untouched = [column for column in range(20) if column not in columns_N]
    assert torch.equal(whole.head[0][untouched], start[0][untouched])


def test_features_are_asked_for_once_in_every_step():
    asked = []

    def features() -> Tensor:
        asked.append(1)
        return SUPPORT_SD

    adapt(linear_head(), features, LABELS_S, steps=STEPS, learning_rate=RATE, exact=False)
    assert len(asked) == STEPS
