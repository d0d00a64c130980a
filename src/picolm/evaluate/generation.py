"""Tokens appended to a prompt by any model that can be scored."""

from __future__ import annotations

import torch
from torch import Tensor

from picolm.evaluate.head import logits_of
from picolm.evaluate.scorer import Scorer
from picolm.model.contract import LanguageModel
from picolm.model.generation import Sampling


def continued(scorer: Scorer, prompt: list[int], *, max_new_tokens: int, temperature: float = 0.0, seed: int = 0) -> list[int]:
    """The new tokens after a prompt, up to the end of the text; greedy at temperature 0, else drawn with `seed`."""
    tokens_1T = torch.tensor([prompt], device=scorer.device)
    with torch.no_grad(), scorer.autocast():
        made: list[int] = _generated(scorer, tokens_1T, max_new_tokens, temperature, seed)[0, len(prompt) :].tolist()
    end = scorer.tokenizer.end_of_text_id
    return made[: made.index(end)] if end in made else made


def _generated(scorer: Scorer, tokens_1T: Tensor, max_new_tokens: int, temperature: float, seed: int) -> Tensor:
    generator = torch.Generator(scorer.device).manual_seed(seed)
    end = scorer.tokenizer.end_of_text_id
    if isinstance(scorer.model, LanguageModel):
        sampling = Sampling(temperature=temperature)
        return scorer.model.generate(
            tokens_1T, max_new_tokens=max_new_tokens, sampling=sampling, stop_token=end, generator=generator
        )
    for _ in range(max_new_tokens):
        logits_V = logits_of(scorer.model(tokens_1T))[0, -1].float()
        next_1 = logits_V.argmax().view(1) if temperature == 0 else _drawn(logits_V / temperature, generator)
        tokens_1T = torch.cat([tokens_1T, next_1[None]], dim=1)
        if next_1.item() == end:
            break
    return tokens_1T


def _drawn(logits_V: Tensor, generator: torch.Generator) -> Tensor:
    return torch.multinomial(logits_V.softmax(-1), 1, generator=generator)
