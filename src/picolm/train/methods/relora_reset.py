"""What happens at a reset: the low-rank change goes into the weights, its factors begin anew, the optimiser forgets them.

Source: Lialin et al. (2023), section 3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor

from picolm.model.contract import LanguageModel
from picolm.train.methods.contract import draws_for
from picolm.train.methods.relora_layers import LowRankLinear

Pruning = Literal["none", "zero", "magnitude", "random"]
PROBE_SEQUENCES, PROBE_TOKENS = 2, 64


def merge(layer: LowRankLinear, *, scaled: bool = True) -> None:
    """W := W + s B A, computed in 64 bits and written once. Not scaled: the published departure, W + B A."""
    with torch.no_grad():
        change_OI = layer.change() if scaled else layer.change() / layer.scale
        layer.weight.copy_(layer.weight + change_OI)


def begin_factors(layer: LowRankLinear, generator: torch.Generator, *, zero_a: bool = False) -> None:
    """A uniform within ±1/√I (Kaiming with a = √5), B zero: the change is zero, its gradient is not."""
    rank, inputs = layer.lora_a.shape
    a_RI = (torch.rand(rank, inputs, generator=generator) * 2 - 1) / inputs**0.5
    with torch.no_grad():
        layer.lora_a.copy_(torch.zeros_like(a_RI) if zero_a else a_RI)
        layer.lora_b.zero_()


def prune_moments(
    optimizer: torch.optim.Optimizer,
    parameter: Tensor,
    pruning: Pruning,
    ratio: float,
    draws: Callable[[str], torch.Generator],
    *,
    apart: bool = False,
) -> None:
    """Set the share `ratio` of the parameter's moments to zero: all, those of least magnitude, or random ones.

    The moments of one value stay or go together, chosen by the first of them: a first moment without its second would make
    an update of thousands of learning rates. Apart is how the published code does it. `draws`: moment -> generator.
    """
    moments = _moments(optimizer, parameter)
    kept: Tensor | None = None
    for name, moment in moments.items():
        if kept is None or apart:
            kept = _kept(moment, pruning, ratio, draws(name))
        moment *= kept.to(moment)


def _kept(moment: Tensor, pruning: Pruning, ratio: float, draws: torch.Generator) -> Tensor:
    """Which values of a moment stay."""
    if pruning == "none":
        return torch.ones_like(moment, dtype=torch.bool)
    if pruning == "zero":
        return torch.zeros_like(moment, dtype=torch.bool)
    if pruning == "random":
        return torch.rand(moment.shape, generator=draws).to(moment.device) >= ratio
    largest = moment.abs().flatten().argsort(descending=True, stable=True)
    kept = torch.zeros(moment.numel(), dtype=torch.bool, device=moment.device)
    kept[largest[: moment.numel() - round(ratio * moment.numel())]] = True
    return kept.view(moment.shape)


def forget_steps(optimizer: torch.optim.Optimizer, parameter: Tensor) -> None:
    """Set the parameter's step counter back, so that the bias of its moments is corrected as at the beginning."""
    state = optimizer.state.get(parameter, {})
    if isinstance(state.get("step"), Tensor):
        state["step"].zero_()
    elif "step" in state:
        state["step"] = 0


def _moments(optimizer: torch.optim.Optimizer, parameter: Tensor) -> dict[str, Tensor]:
    state = optimizer.state.get(parameter, {})
    return {name: entry for name, entry in state.items() if isinstance(entry, Tensor) and entry.shape == parameter.shape}


def probe_logits(model: LanguageModel, seed: int) -> Tensor:
    """Logits of fixed random tokens, without dropout and in the parameters' own precision; leaves the model as it was."""
    tokens_BT = torch.randint(
        model.vocab_size, (PROBE_SEQUENCES, min(PROBE_TOKENS, model.max_seq_len)), generator=draws_for(seed, "relora.probe")
    )
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), torch.autocast(device.type, enabled=False), _full_precision():
            logits_BTV: Tensor = model(tokens_BT.to(device))
    finally:
        model.train(was_training)
    return logits_BTV


def relative_change(before: Tensor, after: Tensor) -> float:
    """Largest change of a logit over the largest logit."""
    return float((after - before).abs().max() / before.abs().max().clamp_min(torch.finfo(before.dtype).tiny))


def norm_of(tensors: Sequence[Tensor]) -> Tensor:
    """Norm of all values together."""
    norm: Tensor = torch.nn.utils.get_total_norm(tensors)
    return norm


@contextmanager
def _full_precision() -> Iterator[None]:
    """Products in full float32 inside the block, also on devices that would round their factors."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
