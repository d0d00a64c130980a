"""An architecture under examination: small models of it, and token ids for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from picolm.model.contract import Architecture, LanguageModel, ModelConfig
from picolm.testing.streams import seeded

ROWS, TOKENS = 3, 12


@dataclass(frozen=True)
class ArchitectureSubject:
    """An architecture with the settings it is examined with."""

    thing: Architecture
    options: Mapping[str, Any]
    config: ModelConfig

    def model(self, seed: int = 0) -> LanguageModel:
        """A model drawn from `seed`."""
        with seeded(99):
            model = self.thing.model_class(self.config)
        model.reset_parameters(torch.Generator().manual_seed(seed))
        return model.eval()

    def tokens(self, seed: int = 1) -> Tensor:
        """(ROWS, TOKENS) token ids."""
        draw = torch.Generator().manual_seed(seed)
        return torch.randint(1, self.config.vocab_size, (ROWS, TOKENS), generator=draw)
