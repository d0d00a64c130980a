"""Six steps of the original system, step by step: learning rates, losses and the parameters after them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy
import pytest
from safetensors.torch import load_file

from picolm.base.registry import Named
from picolm.model.decoder import DecoderConfig, PicoDecoder
from picolm.optim.contract import OPTIMIZERS, build_schedule, optimizer_options
from picolm.train.methods.contract import StepBatch
from picolm.train.methods.plain import Plain


@pytest.mark.data
def test_six_steps_give_the_losses_and_parameters_of_the_original(test_data: Path):
    from lightning_fabric import Fabric

    folder = test_data / "oracles" / "pico_decoder"
    expected = json.loads((folder / "expected.json").read_text())
    trace, data = expected["training_trace"], load_file(folder / "data.safetensors")
    model = PicoDecoder(DecoderConfig(**expected["config"]))
    model.load_state_dict(load_file(folder / "state_dict.safetensors"))
    fabric = Fabric(accelerator="cpu", devices=1, precision="32-true")
    fabric_model = fabric.setup_module(model)
    optimizer = OPTIMIZERS.find("adamw")(model.named_parameters(), **optimizer_options(Named(name="adamw"), {}, lr=trace["lr"]))
    schedule = build_schedule(
        Named(name="linear_with_warmup"), max_steps=trace["max_steps"], warmup_steps=trace["warmup_steps"], tokens_per_step=1
    )
    rows = trace["rows_per_micro_step"] * trace["gradient_accumulation_steps"]
    for row in trace["steps"]:
        tokens_BT = data["train_tokens"][row["step"] * rows : (row["step"] + 1) * rows].long()
        batch = StepBatch(row["step"], tokens_BT.split(trace["rows_per_micro_step"]), rows * (tokens_BT.shape[1] - 1))
        result = Plain().forward_backward(fabric_model, batch, fabric)
        assert float(result.loss_sum) / batch.global_tokens == pytest.approx(row["loss"], rel=1e-5)
        for group in optimizer.param_groups:
            group["lr"] = trace["lr"] * schedule(row["step"])
        optimizer.step()
        optimizer.zero_grad()
    for name in (name for name in data if name.startswith("after_training.")):
        parameter = model.get_parameter(name.removeprefix("after_training."))
        numpy.testing.assert_allclose(parameter.detach().numpy(), data[name].numpy(), atol=2e-5, rtol=1e-4)
