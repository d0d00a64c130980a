"""The output head, run only at the positions that are read: for small models it is most of the work.

Works without knowing the model's forward: a hook before the head takes the hidden states away and lets one row pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from picolm.base.errors import PicoError
from picolm.evaluate.sharing import Reading
from picolm.model.contract import LanguageModel

CPU_CHUNK_ROWS = 64
"""Rows of logits made at once on a CPU: few enough to stay in its cache while they are normalised."""

GPU_CHUNK_BYTES = 2**30


class TokenScores(NamedTuple):
    """What the logits say about each of N tokens."""

    log_probs: NDArray[np.float64]
    is_likeliest: NDArray[np.bool_]
    """Whether no other token had a higher probability at its place."""


class LogitReader:
    """Log-probabilities of chosen tokens at chosen positions of a batch."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._head = output_head(model)

    @property
    def makes_all_logits(self) -> bool:
        """Whether a forward pass holds the logits of every position at once, so that batches must be small."""
        return self._head is None

    def scores(self, forward: Callable[[], Any], reading: Reading, device: torch.device) -> TokenScores:
        """Of each token of `reading`, where `forward` runs the model over the batch."""
        positions = torch.from_numpy(reading.flat_positions).to(device)
        if self._head is None:
            return _picked(logits_of(forward()).flatten(0, 1)[positions], reading, device)
        with _taken_before(self._head) as taken:
            logits = logits_of(forward())
        if not taken:
            return _picked(logits.flatten(0, 1)[positions], reading, device)
        hidden_ND = taken[-1]
        if not torch.equal(logits.flatten(0, -2), self._head(hidden_ND[:1])):
            self._head = None  # the model changes its logits after the head, so only its own forward can make them
            return self.scores(forward, reading, device)
        return self._scores_in_chunks(hidden_ND[positions], reading, device)

    def _scores_in_chunks(self, hidden_RD: Tensor, reading: Reading, device: torch.device) -> TokenScores:
        assert self._head is not None
        size = CPU_CHUNK_ROWS if device.type == "cpu" else max(1, GPU_CHUNK_BYTES // (4 * self._head.out_features))
        order = np.argsort(reading.row_of, kind="stable")
        rows_in_order = reading.row_of[order]
        scores = TokenScores(np.empty(len(order)), np.empty(len(order), dtype=np.bool_))
        for first in range(0, len(hidden_RD), size):
            low, high = np.searchsorted(rows_in_order, (first, first + size))
            chosen = order[low:high]
            part = Reading(reading.flat_positions, reading.row_of[chosen] - first, reading.targets[chosen], reading.sequence_of)
            found = _picked(self._head(hidden_RD[first : first + size]), part, device)
            scores.log_probs[chosen], scores.is_likeliest[chosen] = found
        return scores


def _picked(logits_RV: Tensor, reading: Reading, device: torch.device) -> TokenScores:
    """Log-softmax at the targets; overwrites the logits, which saves half of the time spent on them."""
    logits_RV = logits_RV.float()
    row_of, target = (torch.from_numpy(each).to(device) for each in (reading.row_of, reading.targets))
    highest_R = logits_RV.amax(dim=-1)
    below_highest_N = logits_RV[row_of, target] - highest_R[row_of]
    normalizer_R = logits_RV.sub_(highest_R[:, None]).exp_().sum(dim=-1).log()
    log_prob_N = (below_highest_N - normalizer_R[row_of]).double()
    return TokenScores(log_prob_N.cpu().numpy(), (below_highest_N == 0).cpu().numpy())


@contextmanager
def _taken_before(head: nn.Module) -> Iterator[list[Tensor]]:
    """Collects the inputs of the head as (N, D), one per forward pass; the head itself sees the first row only."""
    taken: list[Tensor] = []

    def take(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        hidden, *others = inputs
        taken.append(hidden.flatten(0, -2))
        return taken[-1][:1], *others

    handle = head.register_forward_pre_hook(take)
    try:
        yield taken
    finally:
        handle.remove()


def logits_of(output: Any) -> Tensor:
    """What a model returned, or its `.logits`; PicoError if that is no tensor."""
    logits = getattr(output, "logits", output)
    if not isinstance(logits, Tensor):
        raise PicoError(f"the model returned a {type(output).__name__} without logits", "it must return logits or `.logits`")
    return logits


def output_head(model: nn.Module) -> nn.Linear | None:
    """The linear layer that turns hidden states into logits, if the model says which it is."""
    if isinstance(model, LanguageModel):
        names = model.layout().names_with_role("unembedding")
        modules = dict(model.named_modules())
        head = modules.get(names[0]) if names else None
    else:
        ask = getattr(model, "get_output_embeddings", None)
        head = ask() if callable(ask) else None
    return head if type(head) is nn.Linear else None


def vocabulary_of(model: nn.Module) -> int:
    """Number of token ids the model knows: rows of its embedding."""
    for owner in (model, getattr(model, "config", None)):
        size = getattr(owner, "vocab_size", None)
        if isinstance(size, int):
            return size
    embedding = next((module for module in model.modules() if isinstance(module, nn.Embedding)), None)
    if embedding is None:
        raise PicoError("the model does not say how many token ids it knows", "give it an attribute `vocab_size`")
    return embedding.num_embeddings
