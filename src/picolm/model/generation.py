"""Text out of a model: the key/value cache that forward fills, and the loop that picks one token after another."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from picolm.base.config import Settings

if TYPE_CHECKING:
    from picolm.model.contract import LanguageModel


@dataclass
class KeyValueCache:
    """Keys and values of the tokens seen so far, one pair a layer, and which of those tokens are padding."""

    keys: list[Tensor] = field(default_factory=list)
    """Per layer (B, G, T, K), positions already applied."""
    values: list[Tensor] = field(default_factory=list)
    mask_BT: Tensor | None = None
    """1 for a real token; None while nothing seen was padding."""

    @property
    def length(self) -> int:
        """Tokens seen, padding included."""
        return self.keys[0].shape[2] if self.keys else 0

    def extend(self, layer: int, key_BGTK: Tensor, value_BGTK: Tensor) -> tuple[Tensor, Tensor]:
        """All keys and values of a layer, the new ones appended."""
        if layer == len(self.keys):
            self.keys.append(key_BGTK)
            self.values.append(value_BGTK)
        else:
            self.keys[layer] = torch.cat((self.keys[layer], key_BGTK), dim=2)
            self.values[layer] = torch.cat((self.values[layer], value_BGTK), dim=2)
        return self.keys[layer], self.values[layer]


class Sampling(Settings):
    """How the next token is drawn. The default is greedy: always the most probable one."""

    temperature: float = Field(default=0.0, ge=0.0)
    """Logits are divided by this; 0 takes the most probable token."""

    top_k: PositiveInt | None = None
    """Draw among this many most probable tokens; null for all."""

    top_p: float | None = Field(default=None, gt=0.0, le=1.0)
    """Draw among the fewest most probable tokens whose probabilities reach this sum; null for all."""


def pick_token(logits_BV: Tensor, sampling: Sampling, generator: torch.Generator | None) -> Tensor:
    """One token id per row, greedy or drawn."""
    if sampling.temperature == 0.0:
        return logits_BV.argmax(dim=-1)
    logits_BV = logits_BV.float() / sampling.temperature
    sorted_BV, order_BV = logits_BV.sort(dim=-1, descending=True, stable=True)
    if sampling.top_k is not None:
        sorted_BV[:, sampling.top_k :] = -torch.inf
    probability_BV = sorted_BV.softmax(dim=-1)
    if sampling.top_p is not None:
        reached_before_BV = probability_BV.cumsum(dim=-1) - probability_BV
        probability_BV[reached_before_BV >= sampling.top_p] = 0.0
    drawn_B1 = torch.multinomial(probability_BV, 1, generator=generator)
    return order_BV.gather(-1, drawn_B1).squeeze(-1)


@torch.no_grad()
def generate(
    model: LanguageModel,
    tokens_BT: Tensor,
    *,
    max_new_tokens: int,
    sampling: Sampling,
    stop_token: int | None,
    attention_mask_BT: Tensor | None,
    generator: torch.Generator | None,
    use_cache: bool,
) -> Tensor:
    """The tokens with what the model adds. A row that has drawn `stop_token` is filled up with it; all done ends early."""
    sequence_BT, mask_BT = tokens_BT, attention_mask_BT
    cache = model.new_cache() if use_cache else None
    done_B = torch.zeros(tokens_BT.shape[0], dtype=torch.bool, device=tokens_BT.device)
    fed = 0
    for _ in range(max_new_tokens):
        new_mask_BT = None if mask_BT is None else mask_BT[:, fed:]
        logits_BTV = model(sequence_BT[:, fed:], new_mask_BT, cache)
        fed = sequence_BT.shape[1] if use_cache else 0
        next_B = pick_token(logits_BTV[:, -1], sampling, generator)
        if stop_token is not None:
            next_B = torch.where(done_B, stop_token, next_B)
            done_B |= next_B == stop_token
        sequence_BT = torch.cat((sequence_BT, next_B[:, None]), dim=1)
        if mask_BT is not None:
            mask_BT = torch.cat((mask_BT, torch.ones_like(mask_BT[:, :1])), dim=1)
        if stop_token is not None and bool(done_B.all()):
            break
    return sequence_BT
