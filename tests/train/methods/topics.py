"""Rows in which a hidden word can be told from its surroundings, and a method that trains on them without a run around it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from picolm.model.contract import build_model
from picolm.model.decoder import DecoderConfig
from picolm.train.methods.contract import RunFacts, StepBatch, StepResult
from picolm.train.methods.maml import Maml

TOPICS, SURROUNDINGS = 6, 3
"""Word w of topic t is token t; what stands around it are tokens of the topic's own."""
VOCABULARY = TOPICS * (1 + SURROUNDINGS) + 1
BATCH, LENGTH = 16, 12
EPISODES = {"ways": 4, "support": 3, "query": 2, "episodes": 3, "frequency_band": (0.0, 1.0), "buffer_sequences": 60}


def rows_of_step(step: int) -> Tensor:
    """(B, T + 1): every row has one topic, and its word in two places."""
    draw = numpy.random.default_rng(step)
    topic_B1 = draw.integers(0, TOPICS, (BATCH, 1))
    rows_BT = TOPICS + topic_B1 * SURROUNDINGS + draw.integers(0, SURROUNDINGS, (BATCH, LENGTH + 1))
    for row, places in enumerate([draw.choice(LENGTH - 1, 2, replace=False) for _ in range(BATCH)]):
        rows_BT[row, places] = topic_B1[row]
    return torch.from_numpy(rows_BT)


class Bench:
    """A method, a model and a device, ready for single steps."""

    def __init__(self, *, precision: Any = "64-true", read: Callable[[int], Tensor] = rows_of_step, **options: Any) -> None:
        self.fabric = Fabric(accelerator="cpu", devices=1, precision=precision)
        facts = RunFacts(seed=3, max_steps=100, warmup_steps=0, batch_sequences=BATCH, row_tokens=LENGTH, rows_of_step=read)
        self.method = Maml(**{**EPISODES, **options})
        self.method.begin_run(facts)
        shape = {"d_model": 16, "n_layers": 2, "attention_n_heads": 2, "attention_n_kv_heads": 1, "activation_hidden_dim": 24}
        config = DecoderConfig(vocab_size=VOCABULARY, max_seq_len=LENGTH, init="normal", **shape)
        with torch.random.fork_rng():
            built = build_model(config, torch.Generator().manual_seed(5))
        self.model = self.method.wrap_model(built.double() if precision == "64-true" else built)
        self.fabric_model: nn.Module = self.fabric.setup_module(self.model)

    def step(self, number: int, micro_batches: int = 1) -> StepResult:
        """Gradients of one step, as the optimiser would get them."""
        self.model.zero_grad(set_to_none=True)
        batch = StepBatch(number, rows_of_step(number).chunk(micro_batches), BATCH * LENGTH)
        return self.method.forward_backward(self.fabric_model, batch, self.fabric)

    def gradients(self) -> dict[str, Tensor]:
        """Name -> gradient, of every parameter that has one."""
        return {name: tensor.grad.clone() for name, tensor in self.model.named_parameters() if tensor.grad is not None}

    def step_on(self, *, text: bool) -> int:
        """The first step that is the language model's, or that is not, late enough for a full buffer."""
        return next(step for step in range(5, 50) if self.method.learns_from_text(step) is text)
