"""The scorer in the form in which lm-eval asks a model."""

from __future__ import annotations

from typing import Any

import numpy as np
from lm_eval.api.model import LM

from picolm.evaluate.generation import continued
from picolm.evaluate.perplexity import losses_of
from picolm.evaluate.scorer import Scorer, encode_continuations


class ScorerModel(LM):  # type: ignore[misc]
    """Answers lm-eval's three sorts of request."""

    def __init__(self, scorer: Scorer) -> None:
        super().__init__()
        self._scorer = scorer

    @property
    def tokenizer_name(self) -> str:
        return "picolm"

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Log-probability of each continuation, and whether greedy decoding would give it."""
        encoded = encode_continuations(self._scorer, [request.args for request in requests])
        scored = self._scorer.score([each.sequence for each in encoded])
        return list(zip(scored.log_probs.tolist(), scored.is_greedy.tolist(), strict=True))

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        """Log-probability of each text in disjoint windows, the prefix token standing before it."""
        prefix = [self._scorer.prefix_token_id]
        texts = [request.args[0] for request in requests]
        documents = [np.concatenate([prefix, tokens]).astype(np.int64) for tokens in self._scorer.tokenizer.encode_batch(texts)]
        longest = self._scorer.max_seq_len
        return [-loss for loss in losses_of(documents, self._scorer, longest, longest)]

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """Greedy continuation of each prompt, cut before the first of its stop texts."""
        return [self._generate(*request.args) for request in requests]

    def _generate(self, prompt: str, options: dict[str, Any]) -> str:
        new = min(int(options.get("max_gen_toks", 256)), self._scorer.max_seq_len - 1)
        (ids,) = self._scorer.tokenizer.encode_batch([prompt])
        kept = [int(token) for token in ids][-(self._scorer.max_seq_len - new) :] or [self._scorer.prefix_token_id]
        text = self._scorer.tokenizer.decode(continued(self._scorer, kept, max_new_tokens=new))
        until = options.get("until") or []
        for stop in [until] if isinstance(until, str) else until:
            text = text.split(stop)[0] if stop else text
        return text
