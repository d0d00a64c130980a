"""Prompts continued by the model at each checkpoint and kept as text: nothing shows a person faster how a model learns."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt

from picolm.base.errors import PicoError
from picolm.evaluate.contract import EVALUATIONS, Evaluation, Given
from picolm.evaluate.head import logits_of
from picolm.evaluate.scorer import Scorer
from picolm.model.contract import LanguageModel
from picolm.model.generation import Sampling
from picolm.records.evaluation import Score

PROMPTS = ("The", "Once upon a time", "The most important thing about", "In the morning, she")


@EVALUATIONS.register("samples")
class Samples(Evaluation):
    """Continuations of fixed prompts, kept as text beside the scores; there is no number."""

    def __init__(
        self,
        *,
        prompts: tuple[str, ...] = PROMPTS,
        max_new_tokens: PositiveInt = 48,
        temperature: NonNegativeFloat = 0.0,
        seed: NonNegativeInt = 0,
    ) -> None:
        """`temperature`: 0 takes the most probable token each time; more draws them, with `seed`, the same at each checkpoint."""
        self._prompts = tuple(prompts)
        self._max_new_tokens = max_new_tokens
        self._temperature = temperature
        self._seed = seed
        self._texts: list[dict[str, str]] = []

    def check(self, given: Given) -> None:
        if not self._prompts:
            raise PicoError("`prompts` is empty", "give at least one text")
        if given.tokenizer is None:
            raise PicoError("text can only be generated with the model's tokenizer", "keep its tokenizer.json beside the model")
        for prompt, tokens in zip(self._prompts, given.tokenizer.encode_batch(self._prompts), strict=True):
            longest = len(tokens) + 1 + self._max_new_tokens
            if given.max_seq_len is not None and longest > given.max_seq_len:
                raise PicoError(
                    f"the prompt {prompt[:40]!r} with max_new_tokens = {self._max_new_tokens} makes {longest} tokens; "
                    f"the model accepts {given.max_seq_len}",
                    "shorten the prompt or lower max_new_tokens",
                )

    def run(self, scorer: Scorer) -> list[Score]:
        self._texts = [{"prompt": prompt, "continuation": self._continuation(scorer, prompt)} for prompt in self._prompts]
        return []

    def samples(self) -> list[dict[str, str]]:
        return list(self._texts)

    def settings(self, scorer: Scorer) -> dict[str, Any]:
        return {"max_new_tokens": self._max_new_tokens, "temperature": self._temperature, "seed": self._seed}

    def _continuation(self, scorer: Scorer, prompt: str) -> str:
        (ids,) = scorer.tokenizer.encode_batch([prompt])
        start = [scorer.prefix_token_id, *(int(token) for token in ids)]
        tokens_1T = torch.tensor([start], device=scorer.device)
        with torch.no_grad(), scorer.autocast():
            made = self._generate(scorer, tokens_1T)[0, len(start) :].tolist()
        end = scorer.tokenizer.end_of_text_id
        return scorer.tokenizer.decode(made[: made.index(end)] if end in made else made)

    def _generate(self, scorer: Scorer, tokens_1T: torch.Tensor) -> torch.Tensor:
        generator = torch.Generator(scorer.device).manual_seed(self._seed)
        if isinstance(scorer.model, LanguageModel):
            return scorer.model.generate(
                tokens_1T,
                max_new_tokens=self._max_new_tokens,
                sampling=Sampling(temperature=self._temperature),
                stop_token=scorer.tokenizer.end_of_text_id,
                generator=generator,
            )
        for _ in range(self._max_new_tokens):
            logits_V = logits_of(scorer.model(tokens_1T))[0, -1].float()
            next_1 = logits_V.argmax().view(1) if self._temperature == 0 else self._drawn(logits_V, generator)
            tokens_1T = torch.cat([tokens_1T, next_1[None]], dim=1)
        return tokens_1T

    def _drawn(self, logits_V: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return torch.multinomial((logits_V / self._temperature).softmax(-1), 1, generator=generator)
