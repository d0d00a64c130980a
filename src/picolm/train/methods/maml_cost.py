"""Floating-point operations of an episode, counted as those of the language model are."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from picolm.model.contract import LanguageModel, flops_per_token
from picolm.train.methods.smlmt_episodes import Episode


@dataclass(frozen=True)
class EpisodeCost:
    """What an episode of sequences of one length costs."""

    forward: float
    """Operations to compute the features of one token."""
    support_passes: int
    """Forward passes over the support set, a backward pass counted as two."""
    inner_steps: int
    head_values: int
    """Values of the classifier that multiply."""

    @staticmethod
    def of(
        model: LanguageModel, length: int, *, inner_steps: int, head_values: int, repeated: bool, passed_back: bool
    ) -> EpisodeCost:
        """`repeated`: the support features are computed in every inner step; `passed_back`: the outer gradient reaches them.

        A forward pass is a third of training on a token, and the output head has no part in it.
        """
        unembedding = sum(weight.numel() for weight in output_head(model))
        forward = flops_per_token(model.config, length) / 3 - 2 * unembedding
        support_passes = 1 + (inner_steps if repeated else 0) + (3 if passed_back else 0)
        return EpisodeCost(forward, support_passes, inner_steps, head_values)

    def flops(self, support: int, query: int, length: int) -> float:
        """Of an episode with so many sequences of this length."""
        model = self.forward * length * (self.support_passes * support + 3 * query)
        return model + 6.0 * self.head_values * (self.inner_steps * support + query)


def tokens_of(episode: Episode) -> int:
    """Tokens of the episode's sequences."""
    return int(episode.support.tokens_SL.size + episode.query.tokens_SL.size)


def output_head(model: LanguageModel) -> list[nn.Parameter]:
    """The weight of the output head; the embedding's, if the two are one."""
    named = dict(model.named_parameters(remove_duplicate=False))
    names = model.layout().names_with_role("unembedding") or model.layout().names_with_role("embedding")
    return [named[f"{name}.weight"] for name in names]
