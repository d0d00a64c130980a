"""What a training method adds to the cost of a run, or saves: asked of the method itself, on a model without storage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from picolm.base.errors import PicoError
from picolm.model.contract import LanguageModel, flops_per_token
from picolm.train.config import RunConfig
from picolm.train.methods.build import build_method
from picolm.train.methods.contract import TrainingMethod

SAMPLED_STEPS = 1000


@dataclass(frozen=True)
class MethodCosts:
    """The model as the method trains it, and what a run works on."""

    model: LanguageModel
    """Wrapped, without storage, as at the first step."""
    last: LanguageModel
    """As at the last step."""
    own_parameters: frozenset[str]
    """Names of the parameters that stand for no plain tensor."""
    state_values: int
    """Values of the method's own state in the last checkpoint."""
    language_model_tokens: float
    """Predicted tokens of the whole run that train the language model."""
    method_tokens: float
    """Tokens of the whole run that serve another purpose."""
    flops: float
    """Operations of the whole run."""


def method_costs(config: RunConfig[Any], row_tokens: int, shape: LanguageModel, shape_at_end: LanguageModel) -> MethodCosts:
    """The costs of the method that `config` names; the shapes are models without storage and are changed."""
    method, at_end = (_method(config, row_tokens) for _ in range(2))
    model, last = method.wrap_model(shape), at_end.wrap_model(shape_at_end)
    at_end.start(config.training.max_steps, last, torch.optim.SGD(last.parameters()))
    plain = {id(tensor) for tensor in method.plain_tensors(model).values()}
    state = at_end.state(last)
    return MethodCosts(
        model=model,
        last=last,
        own_parameters=frozenset(name for name, parameter in model.named_parameters() if id(parameter) not in plain),
        state_values=sum(tensor.numel() for tensors in (state.tensors, state.process_tensors) for tensor in tensors.values()),
        **_work(config, method, model, row_tokens),
    )


def _work(config: RunConfig[Any], method: TrainingMethod, model: LanguageModel, row_tokens: int) -> dict[str, float]:
    """Tokens and operations of the run, from evenly spaced steps if there are many."""
    tokens, plain = config.data.dataloader.batch_size * row_tokens, flops_per_token(config.model, row_tokens)
    steps = config.training.max_steps
    sampled = range(0, steps, max(1, steps // SAMPLED_STEPS))
    language, other, flops = 0.0, 0.0, 0.0
    for step in sampled:
        planned = method.planned_step(step, model, tokens, plain)
        language, other = language + planned.language_model_tokens, other + planned.method_tokens
        flops += planned.language_model_tokens * method.flops_per_token(plain, model, step) + planned.method_flops
    share = steps / len(sampled)
    return {"language_model_tokens": language * share, "method_tokens": other * share, "flops": flops * share}


def _method(config: RunConfig[Any], row_tokens: int) -> TrainingMethod:
    def no_rows(step: int) -> Tensor:
        raise PicoError("a plan reads no data", "ask for the rows of a step in forward_backward, not before")

    return build_method(config, row_tokens=row_tokens, rows_of_step=no_rows)
