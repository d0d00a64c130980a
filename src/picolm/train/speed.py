"""How fast a device trains a configuration: measured on random tokens for `pico plan`, and as MFU where its peak is known."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from picolm.model.contract import build_model
from picolm.optim.contract import OPTIMIZERS, optimizer_options
from picolm.train.config import RunConfig
from picolm.train.methods.contract import StepBatch
from picolm.train.methods.plain import Plain

if TYPE_CHECKING:
    from lightning_fabric import Fabric

DENSE_PEAK_BF16_TFLOPS = {
    "H200": 989.0,
    "H100": 989.0,
    "GH200": 989.0,
    "B200": 2250.0,
    "A100": 312.0,
    "A800": 312.0,
    "L40S": 362.0,
    "L4": 121.0,
    "A10G": 70.0,
    "A10": 125.0,
    "RTX 4090": 165.0,
    "RTX 3090": 71.0,
    "V100": 125.0,
    "Tesla T4": 65.0,
}
"""Device name contains -> dense peak of bf16 (V100, T4: fp16) matrix products in TFLOP/s, from the makers' data sheets."""


def peak_flops(device_name: str) -> float | None:
    """Dense 16-bit peak of a device in FLOP/s, or None where the name is not known."""
    matches = [name for name in DENSE_PEAK_BF16_TFLOPS if name in device_name]
    return DENSE_PEAK_BF16_TFLOPS[max(matches, key=len)] * 1e12 if matches else None


def peak_flops_of(fabric: Fabric) -> float | None:
    """Dense 16-bit peak of all devices of a run together, or None where it is not known, as on every CPU."""
    if fabric.device.type != "cuda":
        return None
    peak = peak_flops(torch.cuda.get_device_name(fabric.device))
    return None if peak is None else peak * fabric.world_size


def measure_tokens_per_second(config: RunConfig[Any], fabric: Fabric, *, row_tokens: int, micro_batches: int = 4) -> float:
    """Tokens per second of one device on random rows: forward, backward and the update spread over a whole step.

    One micro-batch runs before the clock starts.
    """
    optimization = config.training.optimization
    sequences = config.data.dataloader.batch_size // (
        config.training.fabric.num_devices * config.training.fabric.num_nodes * optimization.gradient_accumulation_steps
    )
    model = build_model(config.model, torch.Generator().manual_seed(config.training.seeds.init))
    asked = config.training.compile
    compiled = fabric.device.type == "cuda" if asked == "auto" else asked
    fabric_model = fabric.setup_module(cast(nn.Module, torch.compile(model, dynamic=False)) if compiled else model)
    shared = {key: getattr(optimization, key) for key in ("betas", "eps", "weight_decay")}
    options = optimizer_options(optimization.optimizer, shared, lr=optimization.lr)
    optimizer = OPTIMIZERS.find(optimization.optimizer.name)(model.named_parameters(), **options)
    tokens_BT = torch.randint(0, model.vocab_size, (sequences, row_tokens + 1), generator=torch.Generator().manual_seed(0))
    batch = StepBatch(0, [tokens_BT.to(fabric.device)], sequences * row_tokens)

    Plain().forward_backward(fabric_model, batch, fabric)
    optimizer.step()
    begun = _now(fabric)
    for _ in range(micro_batches):
        Plain().forward_backward(fabric_model, batch, fabric)
    micro_seconds = (_now(fabric) - begun) / micro_batches
    begun = _now(fabric)
    optimizer.step()
    update_seconds = _now(fabric) - begun
    step_seconds = optimization.gradient_accumulation_steps * micro_seconds + update_seconds
    return optimization.gradient_accumulation_steps * sequences * row_tokens / step_seconds


def _now(fabric: Fabric) -> float:
    if fabric.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()
