"""The output head, run only at the positions that are read: for small models it is most of the work."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from torch import Tensor, nn

from picolm.base.errors import PicoError
from picolm.model.contract import LanguageModel


class HeadOnlyWhereRead:
    """For one forward pass, hands the output head the chosen positions only. Works without knowing the model's forward.

    A hook before the head replaces its (B, T, D) input by the (R, D) rows at `flat_positions`; what comes after the head
    works element by element. Where a model's head cannot be found, all logits are computed and the rows picked afterwards.
    """

    def __init__(self, model: nn.Module, flat_positions: Tensor) -> None:
        self._model = model
        self._flat_positions = flat_positions
        self._narrowed = False
        head = output_head(model)
        self._handle = None if head is None else head.register_forward_pre_hook(self._narrow)

    def __enter__(self) -> HeadOnlyWhereRead:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._handle is not None:
            self._handle.remove()

    def read(self, tokens_BT: Tensor) -> Tensor:
        """Logits (R, V) at the chosen positions."""
        logits = logits_of(self._model, tokens_BT)
        return logits if self._narrowed else logits.flatten(0, 1)[self._flat_positions]

    def _narrow(self, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        hidden_BTD, *others = inputs
        if hidden_BTD.dim() != 3:
            return inputs
        self._narrowed = True
        return hidden_BTD.flatten(0, 1)[self._flat_positions], *others


def logits_of(model: nn.Module, tokens_BT: Tensor) -> Tensor:
    """What the model returns for tokens, or its `.logits`; PicoError if that is no tensor."""
    output = model(tokens_BT)
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
