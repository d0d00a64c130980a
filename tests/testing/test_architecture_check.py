"""The conformance check of architectures: everything registered passes, and each promise has one that breaks it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from picolm.model.contract import ARCHITECTURES, Architecture, LanguageModel, ModelConfig
from picolm.model.decoder import DecoderConfig, PicoDecoder
from picolm.records.snapshot import Layout, Placement
from picolm.testing.checks import check_architecture, complaints
from picolm.testing.checks.architecture import ARCHITECTURE_PROMISES

from .broken import broken_promises, without_a_culprit


@pytest.mark.parametrize("name", [entry.name for entry in ARCHITECTURES.entries()])
def test_every_registered_architecture_keeps_its_promises(name: str):
    assert complaints(check_architecture(ARCHITECTURES.find(name))) == []


class Silent(PicoDecoder):
    __doc__ = None


class UndocumentedConfig(DecoderConfig):
    """Settings."""

    colour: str = "blue"


class NoLastToken(PicoDecoder):
    """Drops a position."""

    def forward(self, tokens_BT: Tensor, *rest: Any, **more: Any) -> Tensor:
        result = super().forward(tokens_BT, *rest, **more)
        return result[:, :-1] if result.dim() == 3 else result


class SeesTheFuture(PicoDecoder):
    """Adds the mean over all positions."""

    def forward(self, tokens_BT: Tensor, *rest: Any, **more: Any) -> Tensor:
        result = super().forward(tokens_BT, *rest, **more)
        return result + result.mean(dim=1, keepdim=True) if result.dim() == 3 else result


class BagOfWords(LanguageModel):
    """Predicts from the last token alone."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding_proj = nn.Embedding(config.vocab_size, 8)
        self.de_embedding_proj = nn.Linear(8, config.vocab_size, bias=False)

    def forward(self, tokens_BT: Tensor, attention_mask_BT: Any = None, cache: Any = None, labels_BT: Any = None) -> Tensor:
        logits_BTV: Tensor = self.de_embedding_proj(self.embedding_proj(tokens_BT))
        if labels_BT is None:
            return logits_BTV
        return nn.functional.cross_entropy(logits_BTV.flatten(0, 1), labels_BT.flatten(), reduction="sum")

    def reset_parameters(self, generator: torch.Generator) -> None:
        for parameter in self.parameters():
            nn.init.normal_(parameter, generator=generator)

    def layout(self) -> Layout:
        places = {"embedding_proj": "embedding", "de_embedding_proj": "unembedding"}
        return Layout("bag", 1, 1, 8, {name: Placement(f"{name}.weight", role) for name, role in places.items()})


class MixesRows(PicoDecoder):
    """Adds the mean over the batch."""

    def forward(self, tokens_BT: Tensor, *rest: Any, **more: Any) -> Tensor:
        result = super().forward(tokens_BT, *rest, **more)
        return result + result.mean(dim=0, keepdim=True) if result.dim() == 3 else result


class MeanLoss(PicoDecoder):
    """Averages its loss."""

    def forward(self, tokens_BT: Tensor, *rest: Any, **more: Any) -> Tensor:
        result = super().forward(tokens_BT, *rest, **more)
        return result if result.dim() == 3 else result / tokens_BT.numel()


class IdlePart(PicoDecoder):
    """Carries a parameter that nothing uses."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.idle = nn.Linear(2, 2, bias=False)

    def layout(self) -> Layout:
        layout = super().layout()
        return replace(layout, tensors={**layout.tensors, "idle": Placement("idle.weight", "other")})


class DrawsGlobally(PicoDecoder):
    """Ignores the generator for its head."""

    def reset_parameters(self, generator: torch.Generator) -> None:
        super().reset_parameters(generator)
        nn.init.normal_(self.de_embedding_proj.weight)


class DrawsNeedlessly(PicoDecoder):
    """Draws and throws it away."""

    def reset_parameters(self, generator: torch.Generator) -> None:
        torch.rand(1)
        super().reset_parameters(generator)


class ForgetsItsHead(PicoDecoder):
    """A layout without the output head."""

    def layout(self) -> Layout:
        layout = super().layout()
        return replace(layout, tensors={n: place for n, place in layout.tensors.items() if n != "de_embedding_proj"})


class SwapsOnSaving(PicoDecoder):
    """Writes the gate where the layout says the up projection is."""

    def hf_state_dict(self) -> dict[str, Tensor]:
        stored = super().hf_state_dict()
        gate, up = "model.layers.0.mlp.gate_proj.weight", "model.layers.0.mlp.up_proj.weight"
        return {**stored, gate: stored[up], up: stored[gate]}


class IgnoresPadding(PicoDecoder):
    """Does not look at the mask."""

    def forward(self, tokens_BT: Tensor, attention_mask_BT: Any = None, *rest: Any, **more: Any) -> Tensor:
        return super().forward(tokens_BT, None, *rest, **more)


class IgnoresItsCache(PicoDecoder):
    """Begins anew with every piece."""

    def forward(self, tokens_BT: Tensor, attention_mask_BT: Any = None, cache: Any = None, labels_BT: Any = None) -> Tensor:
        return super().forward(tokens_BT, attention_mask_BT, None, labels_BT)


class NamesADevice(PicoDecoder):
    """Makes its head on the CPU whatever is asked for."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.de_embedding_proj = nn.Linear(config.d_model, config.vocab_size, bias=False, device="cpu")


class TakesAnyLength(PicoDecoder):
    """Cuts what is too long without a word."""

    def forward(self, tokens_BT: Tensor, *rest: Any, **more: Any) -> Tensor:
        return super().forward(tokens_BT[:, -self.config.max_seq_len :], *rest, **more)


def made(model_class: Callable[[Any], LanguageModel], config_class: type[ModelConfig] = DecoderConfig) -> Architecture:
    decoder: Architecture = ARCHITECTURES.find("pico_decoder")
    return replace(decoder, model_class=model_class, config_class=config_class)


CULPRITS = [
    (made(Silent), "it says in one sentence what it is"),
    (made(PicoDecoder, UndocumentedConfig), "each of its settings has a sentence"),
    (made(NoLastToken), "it returns finite logits of shape (rows, tokens, vocabulary)"),
    (made(SeesTheFuture), "no logit depends on a later token"),
    (made(BagOfWords, ModelConfig), "every logit depends on the tokens before it"),
    (made(MixesRows), "a row is the same alone as in a batch"),
    (made(MeanLoss), "with labels it returns their cross-entropy, summed"),
    (made(IdlePart), "every parameter gets a finite gradient"),
    (made(DrawsGlobally), "it begins from the generator it is given, and from nothing else"),
    (made(DrawsNeedlessly), "drawing the weights leaves the random streams alone"),
    (made(ForgetsItsHead), "its layout names every parameter and what it does"),
    (made(SwapsOnSaving), "a saved folder comes back as the same model"),
    (made(IgnoresPadding), "left padding changes nothing"),
    (made(IgnoresItsCache), "with a cache it continues as without"),
    (made(NamesADevice), "its size is known without making it"),
    (made(TakesAnyLength), "a text longer than max_seq_len is refused"),
]


@pytest.mark.parametrize(("architecture", "promise"), CULPRITS, ids=lambda each: getattr(each, "model_class", type).__name__)
def test_a_broken_architecture_is_found_out(architecture: Architecture, promise: str):
    assert promise in broken_promises(check_architecture(architecture))


def test_every_promise_has_an_architecture_that_breaks_it():
    assert without_a_culprit(ARCHITECTURE_PROMISES, [promise for _, promise in CULPRITS]) == set()
