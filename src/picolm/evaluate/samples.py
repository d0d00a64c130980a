"""Prompts continued by the model at each checkpoint and kept as text: nothing shows a person faster how a model learns."""

from __future__ import annotations

from typing import Any

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt

from picolm.base.errors import PicoError
from picolm.evaluate.contract import EVALUATIONS, Evaluation, Given
from picolm.evaluate.generation import continued
from picolm.evaluate.scorer import Scorer
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
        new = continued(scorer, start, max_new_tokens=self._max_new_tokens, temperature=self._temperature, seed=self._seed)
        return scorer.tokenizer.decode(new)
