"""Which tokens a model takes, where each stands and what it may see; a mask only where there is padding or a cache."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from picolm.base.errors import PicoError

if TYPE_CHECKING:
    from picolm.model.contract import LanguageModel
    from picolm.model.generation import KeyValueCache


class PlacedTokens(NamedTuple):
    """Positions, counted from the first real token, and what each token may look at (None: all before it, and itself)."""

    position_BT: Tensor
    mask_B1TS: Tensor | None


def place_tokens(
    tokens_BT: Tensor, attention_mask_BT: Tensor | None, cache: KeyValueCache | None, max_seq_len: int
) -> PlacedTokens:
    """Positions and mask of a batch; the usual one, without padding or cache, needs no mask at all."""
    seen = 0 if cache is None else cache.length
    new = tokens_BT.shape[1]
    if seen + new > max_seq_len:
        raise PicoError(
            f"a sequence of {seen + new} tokens is longer than max_seq_len = {max_seq_len}", "cut it, or train longer rows"
        )
    padding_BS = _padding(tokens_BT, attention_mask_BT, cache, seen)
    index_S = torch.arange(seen + new, device=tokens_BT.device)
    if padding_BS is None:
        causal_TS = None if seen == 0 or new == 1 else index_S <= index_S[seen:, None]
        return PlacedTokens(index_S[None, seen:], None if causal_TS is None else causal_TS[None, None])
    # Padding looks at itself alone: a row that may see nothing would be undefined and spoil its gradients.
    itself_TS = index_S == index_S[seen:, None]
    mask_BTS = ((index_S <= index_S[seen:, None]) & padding_BS[:, None, :].bool()) | itself_TS
    position_BS = (padding_BS.long().cumsum(dim=1) - 1).clamp(min=0)
    return PlacedTokens(position_BS[:, seen:], mask_BTS[:, None])


def _padding(tokens_BT: Tensor, attention_mask_BT: Tensor | None, cache: KeyValueCache | None, seen: int) -> Tensor | None:
    """1 for every real token, seen and new, or None if none can be padding; the cache remembers it."""
    past_BS = None if cache is None else cache.mask_BT
    if attention_mask_BT is None and past_BS is None:
        return None
    new_BT = torch.ones_like(tokens_BT) if attention_mask_BT is None else attention_mask_BT
    if past_BS is None:
        past_BS = new_BT.new_ones(tokens_BT.shape[0], seen)
    padding_BS = torch.cat((past_BS, new_BT.to(past_BS.dtype)), dim=1)
    if cache is not None:
        cache.mask_BT = padding_BS
    return padding_BS


def check_tokens(model: LanguageModel, tokens_BT: Tensor, *, further: int = 0) -> None:
    """PicoError if an id is outside the vocabulary or the sequence, with `further` tokens, is longer than the model's."""
    length = tokens_BT.shape[-1] + further
    if length > model.max_seq_len:
        raise PicoError(f"{length} tokens are more than the model's max_seq_len = {model.max_seq_len}", "shorten the text")
    if tokens_BT.numel() == 0:
        raise PicoError("there are no tokens", "give at least one token id")
    smallest, largest = int(tokens_BT.min()), int(tokens_BT.max())
    if smallest < 0 or largest >= model.vocab_size:
        wrong = smallest if smallest < 0 else largest
        raise PicoError(
            f"token id {wrong} is outside the vocabulary of {model.vocab_size}", "use the tokenizer the model was trained with"
        )
