"""Looks into any Hugging Face causal language model: outputs of its modules and gradients, under plain names.

A model folder arrives from `capture/post_hoc`; a filled recorder leaves for `capture/writer`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor, nn

from picolm.base.errors import PicoError
from picolm.capture.circuits import Circuit, CircuitGradients, circuit_gradients
from picolm.capture.layouts import layout_of_tensors
from picolm.capture.plan import CapturePlan
from picolm.capture.recorder import Recorder
from picolm.model.contract import load_model
from picolm.records.names import natural_order
from picolm.records.snapshot import Layout, Placement, plain_tensor

Precision = Literal["float32", "bfloat16", "float64"]


@dataclass(frozen=True)
class ObservedModel:
    """A loaded model with two layouts of the same plain names."""

    module: nn.Module
    live: Layout
    """Plain name -> parameter of the module."""
    stored: Layout
    """Plain name -> tensor in the weight files."""
    config: dict[str, Any]
    """Content of `config.json`."""

    @property
    def vocab_size(self) -> int:
        """Rows of the embedding."""
        place = self.live.tensors[self.live.names_with_role("embedding")[0]]
        return len(dict(self.module.named_parameters(remove_duplicate=False))[place.tensor])

    @property
    def max_seq_len(self) -> int | None:
        """Longest sequence it takes, where its configuration says so."""
        longest = self.config.get("max_position_embeddings") or self.config.get("max_seq_len")
        return None if longest is None else int(longest)

    def default_layers(self) -> tuple[str, ...]:
        """Value, output and down projections: what the paper's default layers are in a pico-decoder."""
        roles = ("value", "output", "down")
        names = [name for role in roles for name in self.live.names_with_role(role)]
        return tuple(sorted(names, key=natural_order))

    def module_of(self, name: str) -> nn.Module | None:
        """The module whose weight, or rows of it, has this plain name."""
        owner, _, kind = self.live.tensors[name].tensor.rpartition(".")
        return self.module.get_submodule(owner) if kind == "weight" else None


def load_observed(folder: Path, weight_files: list[Path], precision: Precision, device: str) -> ObservedModel:
    """The model in a folder, for looking at: no dropout, nothing downloaded, nothing in the folder executed."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    module = _load_module(folder, config).to(device=device, dtype=getattr(torch, precision)).eval()
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    shapes: dict[str, tuple[int, ...]] = {}
    for path in weight_files:
        with safe_open(path, framework="pt") as file:
            shapes |= {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    parameters = module.named_parameters(remove_duplicate=False)
    live = layout_of_tensors({name: tuple(parameter.shape) for name, parameter in parameters}, config)
    stored = layout_of_tensors(shapes, config)
    unknown = sorted(stored.tensors.keys() ^ live.tensors.keys(), key=natural_order)
    if unknown:
        raise PicoError(
            f"{folder}: {unknown[0]} is only in the {'file' if unknown[0] in stored.tensors else 'loaded model'}",
            "transformers changes this architecture on loading in a way that is not known here",
        )
    return ObservedModel(module, live, stored, config)


def _load_module(folder: Path, config: dict[str, Any]) -> nn.Module:
    """Through transformers; what only picolm knows (the published pico decoders, say) through picolm."""
    if config.get("model_type") == "pico_decoder" or "picolm_settings" in config:
        return load_model(folder)
    try:
        from transformers import AutoModelForCausalLM
        from transformers.utils import logging
    except ImportError as error:
        raise PicoError("pico capture loads models with transformers, which is missing", "pip install 'picolm[hf]'") from error
    shows_progress = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        loaded = AutoModelForCausalLM.from_pretrained(
            folder, dtype="auto", local_files_only=True, trust_remote_code=False, use_safetensors=True
        )
        return cast(nn.Module, loaded)
    except (ValueError, OSError, KeyError, RuntimeError) as error:
        raise PicoError(f"{folder} cannot be loaded as a causal language model: {' '.join(str(error).split())[:300]}") from error
    finally:
        if shows_progress:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def observe(model: ObservedModel, plan: CapturePlan, rows_BT: Tensor, *, batch_sequences: int) -> Recorder:
    """Activations of the planned modules and the gradient of the mean loss over all rows, (sequences, T + 1)."""
    recorder = Recorder(plan)
    parameters = dict(model.module.named_parameters(remove_duplicate=False))
    watched = {name: parameters[model.live.tensors[name].tensor] for name in plan.tensor_names}
    for parameter in watched.values():
        parameter.requires_grad_(True)
    device = next(iter(parameters.values())).device
    predicted = rows_BT.shape[0] * (rows_BT.shape[1] - 1)
    modules = {circuit.name: _circuit_modules(model, circuit) for circuit in plan.circuits}
    for value, output in modules.values():
        for parameter in (*value.parameters(), *output.parameters()):
            parameter.requires_grad_(True)
    watching = circuit_gradients(modules) if modules else nullcontext(CircuitGradients())
    with _keeping_outputs(model, plan) as outputs, watching as circuits:
        for tokens_BT in torch.split(rows_BT, batch_sequences):
            torch.autograd.backward(loss_sum(model.module, tokens_BT.to(device)) / predicted)
    recorder.activations = {name: torch.cat(chunks) for name, chunks in outputs.items()}
    recorder.gradients = {
        name: _plain(parameter.grad, model.live.tensors[name], model.live)
        for name, parameter in watched.items()
        if parameter.grad is not None
    }
    recorder.ov_gradients = {name: total.cpu() for name, total in circuits.totals.items()}
    for parameter in parameters.values():
        parameter.grad = None
        parameter.requires_grad_(False)
    return recorder


def _circuit_modules(model: ObservedModel, circuit: Circuit) -> tuple[nn.Module, nn.Module]:
    value, output = model.module_of(circuit.value), model.module_of(circuit.output)
    assert value is not None
    assert output is not None
    return value, output


def loss_sum(module: nn.Module, tokens_BT: Tensor) -> Tensor:
    """Cross-entropy of every next token, summed, from logits in at least 32 bits."""
    answer = module(tokens_BT[:, :-1])
    logits_BTV: Tensor = answer if isinstance(answer, Tensor) else answer.logits
    exact_NV = logits_BTV.flatten(0, 1).to(torch.promote_types(logits_BTV.dtype, torch.float32))
    return F.cross_entropy(exact_NV, tokens_BT[:, 1:].flatten(), reduction="sum")


@contextmanager
def _keeping_outputs(model: ObservedModel, plan: CapturePlan) -> Iterator[dict[str, list[Tensor]]]:
    """Keep outputs at the planned positions, (samples, width) per pass; of a fused module the columns of each part."""
    outputs: dict[str, list[Tensor]] = {name: [] for name in plan.module_names}
    positions = torch.tensor(plan.positions)

    def keeper(name: str) -> Any:
        def keep(module: nn.Module, inputs: Any, output_BTX: Tensor) -> None:
            chosen_SX = output_BTX.detach().index_select(1, positions.to(output_BTX.device)).flatten(0, 1)
            outputs[name].append(_plain(chosen_SX.T, model.live.tensors[name], model.live).T)

        return keep

    handles = []
    for name in plan.module_names:
        module = model.module_of(name)
        assert module is not None
        handles.append(module.register_forward_hook(keeper(name)))
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def _plain(tensor: Tensor, place: Placement, layout: Layout) -> Tensor:
    """The part of a live tensor that a plain name stands for, in plain order, copied to the CPU."""
    return plain_tensor(tensor.detach().cpu(), place, layout).contiguous().clone()
