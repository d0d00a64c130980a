"""The exact gradient of every output-value circuit, summed up while the ordinary backward pass runs.

With M_h = W_Oʰ W_Vᵍ the circuit of query head h, attention adds Σ_h M_h Σ_s A_ts x_s to the residual stream at position t, so

    dL/dM_h = Σ_t δ_t (Σ_s A_ts x_s)ᵀ

with δ the gradient at the output of attention, A the attention pattern of the head and x the input of the value projection.
These three exist in every backward pass; only their sum, (query heads, model width, model width) per layer, is kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from picolm.base.errors import PicoError
from picolm.records.names import join_name, split_name
from picolm.records.snapshot import Layout


@dataclass(frozen=True)
class Circuit:
    """The modules between which the circuits of one layer lie, by plain name."""

    name: str
    """What the gradient is stored as: `layers.<i>.ov_gradient`."""
    value: str
    output: str


def circuits_of(layout: Layout) -> tuple[Circuit, ...]:
    """One for every layer that has a value and an output projection."""
    outputs = {split_name(name).layer: name for name in layout.names_with_role("output")}
    values = {split_name(name).layer: name for name in layout.names_with_role("value")}
    return tuple(Circuit(join_name(layer, "ov_gradient"), values[layer], outputs[layer]) for layer in values if layer in outputs)


class AttentionCall(NamedTuple):
    """What attention was called with; the values are not needed."""

    query_BHTK: Tensor
    key_BGSK: Tensor
    mask: Tensor | None
    is_causal: bool
    scale: float | None

    def pattern(self, sequence: int) -> Tensor:
        """The attention pattern of one sequence, (query heads, T, S), in at least 32 bits."""
        query_HTK, key_GSK = (wide(each[sequence]) for each in (self.query_BHTK, self.key_BGSK))
        heads, length, width = query_HTK.shape
        key_HSK = key_GSK.repeat_interleave(heads // len(key_GSK), dim=0)
        scores_HTS = query_HTK @ key_HSK.mT * (width**-0.5 if self.scale is None else self.scale)
        if self.is_causal:
            allowed_TS = torch.ones(length, key_HSK.shape[1], dtype=torch.bool, device=scores_HTS.device).tril()
            scores_HTS = scores_HTS.masked_fill(~allowed_TS, -torch.inf)
        if self.mask is not None:
            mask = self.mask.expand(len(self.query_BHTK), *self.mask.shape[1:])[sequence] if self.mask.ndim == 4 else self.mask
            scores_HTS = scores_HTS.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores_HTS + mask
        return scores_HTS.softmax(dim=-1)


class _Eavesdropper(TorchFunctionMode):
    """Remembers the last call of attention; passes everything on as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.last: AttentionCall | None = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.scaled_dot_product_attention:
            self.last = _attention_call(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _attention_call(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> AttentionCall:
    if dropout_p > 0:
        raise PicoError("exact OV gradients need attention without dropout", "set ov_gradients: false, or remove the dropout")
    return AttentionCall(query.detach(), key.detach(), attn_mask, is_causal, scale)


class CircuitGradients:
    """The sums so far, and the outputs of attention in the last forward pass."""

    def __init__(self) -> None:
        self.totals: dict[str, Tensor] = {}
        self.outputs: list[Tensor] = []

    def add(self, name: str, call: AttentionCall, input_BSD: Tensor, delta_BTD: Tensor) -> None:
        """Add what one backward pass has to say about one layer."""
        with torch.no_grad(), torch.autocast(delta_BTD.device.type, enabled=False):
            shape = call.query_BHTK.shape[1], delta_BTD.shape[-1], input_BSD.shape[-1]
            total_HDD = self.totals.setdefault(name, wide(delta_BTD.new_empty(0)).new_zeros(shape))
            for sequence, (input_SD, delta_TD) in enumerate(zip(input_BSD, delta_BTD, strict=True)):
                mixed_HTD = call.pattern(sequence) @ wide(input_SD)
                total_HDD += wide(delta_TD).T @ mixed_HTD


@contextmanager
def circuit_gradients(modules: Mapping[str, tuple[nn.Module, nn.Module]]) -> Iterator[CircuitGradients]:
    """Sum up the gradient of each circuit over every forward and backward pass inside the block.

    `modules`: name of the gradient -> value and output projection of that layer. Attention must be computed by
    `torch.nn.functional.scaled_dot_product_attention` between the two. Nothing that the passes compute is changed.
    """
    gradients, ear = CircuitGradients(), _Eavesdropper()
    inputs: dict[str, Tensor] = {}
    handles = []
    for name, (value, output) in modules.items():
        handles.append(value.register_forward_pre_hook(_input_keeper(name, inputs, ear)))
        handles.append(output.register_forward_hook(_output_watcher(name, inputs, ear, gradients)))
    try:
        with ear:
            yield gradients
    finally:
        for handle in handles:
            handle.remove()


def _input_keeper(name: str, inputs: dict[str, Tensor], ear: _Eavesdropper) -> Any:
    def keep(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        inputs[name] = given[0].detach()
        ear.last = None

    return keep


def _output_watcher(name: str, inputs: dict[str, Tensor], ear: _Eavesdropper, gradients: CircuitGradients) -> Any:
    def watch(module: nn.Module, given: tuple[Tensor, ...], output_BTD: Tensor) -> None:
        call, input_BSD = ear.last, inputs.pop(name)
        if call is None:
            raise PicoError(
                f"{name}: attention is not computed by scaled_dot_product_attention, so its pattern cannot be seen",
                "set ov_gradients: false",
            )
        if output_BTD.requires_grad:
            gradients.outputs.append(output_BTD)
            output_BTD.register_hook(  # type: ignore[no-untyped-call]
                lambda delta_BTD: gradients.add(name, call, input_BSD, delta_BTD)
            )

    return watch


def wide(tensor: Tensor) -> Tensor:
    """At least 32 bits."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
