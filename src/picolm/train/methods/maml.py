"""Model-agnostic meta-learning on episodes of masked words, beside language modelling.

Episodes are drawn from the rows of the last steps. Whether an update learns from text or from episodes is decided for the whole
update, by seed and step alone; the loss of the one and the series of the other are never mixed.
"""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from picolm.base.errors import PicoError
from picolm.capture.recorder import LANGUAGE_MODEL
from picolm.model.contract import LanguageModel
from picolm.train.methods import maml_options as options
from picolm.train.methods.contract import (
    METHODS,
    MethodState,
    PlannedStep,
    RunFacts,
    StepBatch,
    StepResult,
    TrainingMethod,
    draws_for,
)
from picolm.train.methods.maml_cost import EpisodeCost, output_head, tokens_of
from picolm.train.methods.maml_episode import SERIES, InnerLoop, run_episode
from picolm.train.methods.maml_head import Head, drawn_layers, with_prototypes, with_zero_output
from picolm.train.methods.maml_passes import FeatureReader, language_model_pass
from picolm.train.methods.smlmt_buffer import RollingBuffer
from picolm.train.methods.smlmt_draws import uniform
from picolm.train.methods.smlmt_episodes import Episode, EpisodeSettings
from picolm.train.methods.smlmt_stream import MASK_TOKEN_HINT, EpisodeStream
from picolm.train.processes import average_gradients, total

if TYPE_CHECKING:
    from lightning_fabric import Fabric

HEAD_NAME = "episode_head"
PUBLISHED_LAYERS = 4


@METHODS.register("maml")
class Maml(TrainingMethod):
    """Episodes in which a small classifier learns, from a few examples, which of N words is masked; the model learns to help it.

    Source: Finn et al. (2017), arXiv 1703.03400; episodes of masked words: Bansal et al. (2020), arXiv 2009.08445. What the
    published code did otherwise is `variant: published`, or one by one in `departures`; see `maml_options.Departure`.
    """

    brief_options = MappingProxyType(
        {"ways": 4, "support": 2, "query": 2, "episodes": 2, "frequency_band": (0.0, 0.2), "buffer_sequences": 40}
    )

    is_language_model_pass = False
    trains_all_parameters = False

    def __init__(
        self,
        *,
        variant: options.Variant = "specified",
        departures: options.Departures = (),
        ways: options.Ways = 32,
        support: options.Support = 4,
        query: options.Query = None,
        episodes: options.Episodes = 4,
        mixing: options.Mixing = "alternate",
        episode_share: options.EpisodeShare = 0.5,
        episode_weight: options.EpisodeWeight = 1.0,
        mask_token: options.MaskToken = -1,
        frequency_band: options.FrequencyBand = (0.0, 0.02),
        frequency_exponent: options.FrequencyExponent = 0.3,
        buffer_sequences: options.BufferSequences = 4096,
        sequence_tokens: options.SequenceTokens = None,
        readout: options.Readout = None,
        head: options.Head = "linear",
        head_width: options.HeadWidth = 128,
        start: options.Start = "zero",
        inner_steps: options.InnerSteps = 10,
        inner_learning_rate: options.InnerLearningRate = None,
        order: options.Order = "first",
    ) -> None:
        chosen = options.resolve_choices(variant, departures, readout, query, inner_learning_rate)
        self._departures = chosen.departures
        self._at_mask = chosen.readout == "mask"
        self._shots = (support, chosen.query)
        self._ways, self._episodes = ways, episodes
        self._mixing, self._share, self._weight = mixing, episode_share, episode_weight
        self._mask_token = mask_token
        self._band, self._exponent = frequency_band, frequency_exponent
        self._buffer_sequences, self._sequence_tokens = buffer_sequences, sequence_tokens
        self._deep, self._head_width, self._start = head == "mlp", head_width, start
        self._inner = InnerLoop(
            inner_steps,
            chosen.inner_learning_rate,
            exact=order == "exact",
            repeated_forwards="repeated_forwards" in chosen.departures,
            unseen_gradients="unseen_gradients" in chosen.departures,
            stale_gradients="stale_gradients" in chosen.departures,
        )
        self._shared: nn.ParameterList | None = None

    # -- once

    def begin_run(self, facts: RunFacts) -> None:
        """Keep what episodes are drawn from."""
        self._facts = facts

    def wrap_model(self, model: LanguageModel) -> LanguageModel:
        """Check that the model can give features; a shared head becomes a part of it."""
        if "features" not in inspect.signature(type(model).forward).parameters:
            raise PicoError(
                f"training.method: maml needs features, and `forward` of {type(model).__name__} has no parameter `features`",
                "return what the output head reads if `features` is true; see LanguageModel.forward",
            )
        self._model = model
        self._stream = self._open_stream(model.vocab_size)
        self._vocab_size, self._width = model.vocab_size, int(output_head(model)[0].shape[1])
        if self._start == "shared" or "vocabulary_head" in self._departures:
            like = next(model.parameters())
            layers = drawn_layers(self._shared_widths(), draws_for(self._facts.seed, "maml.head"), like)
            self._shared = nn.ParameterList([nn.Parameter(tensor) for tensor in layers])
            model.add_module(HEAD_NAME, self._shared)
        return model

    def _open_stream(self, vocab_size: int) -> EpisodeStream:
        if not -vocab_size <= self._mask_token < vocab_size:
            raise PicoError(
                f"training.method.mask_token = {self._mask_token} is outside the vocabulary of {vocab_size} tokens",
                MASK_TOKEN_HINT,
            )
        settings = EpisodeSettings(
            ways=self._ways,
            support=self._shots[0],
            query=self._shots[1],
            mask_token=self._mask_token % vocab_size,
            frequency_band=self._band,
            frequency_exponent=self._exponent,
            mask_one_occurrence="mask_one_occurrence" in self._departures,
            sorted_labels="sorted_labels" in self._departures,
            shared_positions="shared_positions" in self._departures,
            collapsed_labels="collapsed_labels" in self._departures,
        )
        buffer = RollingBuffer(
            sequences=self._buffer_sequences,
            sequence_tokens=self._sequence_tokens,
            vocab_size=vocab_size,
            mask_token=settings.mask_token,
        )
        return EpisodeStream(settings, buffer, self._facts)

    def _shared_widths(self) -> list[int]:
        if "vocabulary_head" in self._departures:
            return [self._width, *[self._head_width] * (PUBLISHED_LAYERS - 1), self._vocab_size]
        return [self._width, *[self._head_width] * self._deep, self._ways]

    # -- every step

    def forward_backward(self, model: nn.Module, batch: StepBatch, fabric: Fabric) -> StepResult:
        """Train on text, on episodes, or on both."""
        trained_on_text, wanted = self._plan_step(batch.step, len(batch.micro_batches))
        episodes = self._stream.episodes(batch.step, wanted * fabric.world_size if self._mixes_micro_batches else wanted)
        if not episodes:
            trained_on_text = [True] * len(batch.micro_batches)
        loss_sum = None
        if any(trained_on_text):
            scale = fabric.world_size / batch.global_tokens  # the gradients of the processes are averaged
            loss_sum = language_model_pass(model, fabric, batch.micro_batches, trained_on_text, scale)
        series, flops = self._train_on_episodes(model, batch, fabric, episodes)
        average_gradients(self._model.parameters(), fabric)
        objectives = [LANGUAGE_MODEL] * any(trained_on_text) + ["episodes"] * bool(episodes)
        return StepResult(loss_sum, series, sum(map(tokens_of, episodes)), flops, " and ".join(objectives))

    @property
    def _mixes_micro_batches(self) -> bool:
        return "micro_batch_mixing" in self._departures

    def _plan_step(self, step: int, micro_batches: int) -> tuple[list[bool], int]:
        """Which micro-batches are trained on as text, and how many episodes are wanted."""
        if self._mixes_micro_batches:
            coins = uniform(draws_for(self._facts.seed, "maml.mixing", step), micro_batches) >= self._share
            return coins.tolist(), int((~coins).sum())
        if self._mixing == "add":
            return [True] * micro_batches, self._episodes
        is_text = self.learns_from_text(step)
        return [is_text] * micro_batches, 0 if is_text else self._episodes

    def learns_from_text(self, step: int) -> bool:
        """Whether this update is the language model's, if updates alternate: the same in every process and after a restart."""
        return float(uniform(draws_for(self._facts.seed, "maml.mixing", step), 1)[0]) >= self._share

    def _train_on_episodes(
        self, model: nn.Module, batch: StepBatch, fabric: Fabric, episodes: list[Episode]
    ) -> tuple[dict[str, Tensor | float], float]:
        """Leave the gradient of the mean query loss, each process for its share of the episodes; what they report, and FLOPs."""
        reader = FeatureReader(
            model,
            fabric,
            at_mask=self._at_mask,
            scaled="unscaled_features" not in self._departures,
            tokens_per_pass=batch.micro_batches[0][:, 1:].numel(),
        )
        parts = len(batch.micro_batches) if self._mixes_micro_batches else len(episodes) / fabric.world_size
        sums = torch.zeros(len(SERIES), device=fabric.device)
        for number in range(fabric.global_rank, len(episodes), fabric.world_size):
            episode = episodes[number]
            reported = run_episode(
                episode,
                reader,
                partial(self._start_head, draws_for(self._facts.seed, "maml.start", batch.step, number)),
                self._inner,
                sizes=(self._ways * self._shots[0], self._ways * self._shots[1]),
                weight=self._weight / parts,
                shared_head=self._shared_parameters(),
                columns_N=self._columns(episode, fabric.device),
            )
            sums += torch.stack([reported[name].float() for name in SERIES])
        if not episodes:
            return dict.fromkeys([*SERIES, "unusable_sequences"], math.nan), 0.0
        means = total(fabric, sums) / len(episodes)
        series: dict[str, Tensor | float] = {name: means[place] for place, name in enumerate(SERIES)}
        length = episodes[0].support.tokens_SL.shape[1]
        cost = self._cost(self._model, length)
        flops = sum(cost.flops(len(episode.support), len(episode.query), length) for episode in episodes)
        return series | {"unusable_sequences": float(self._stream.unusable)}, flops

    def _start_head(self, draws: torch.Generator, features_SD: Tensor, labels_S: Tensor, ways: int) -> Head:
        """The classifier before the inner loop."""
        if self._shared is not None:
            shared = self._shared_parameters()
            whole = "vocabulary_head" in self._departures
            return tuple(shared) if whole else (*shared[:-2], shared[-2][:ways], shared[-1][:ways])
        body = drawn_layers([self._width, self._head_width], draws, features_SD) if self._deep else ()
        if self._start == "prototypes":
            return with_prototypes(body, ways, features_SD, labels_S)
        return with_zero_output(body, ways, features_SD)

    def _shared_parameters(self) -> list[nn.Parameter]:
        return [] if self._shared is None else list(self._shared)

    def _columns(self, episode: Episode, device: torch.device) -> Tensor | None:
        return torch.from_numpy(episode.words_N).to(device) if "vocabulary_head" in self._departures else None

    # -- what it costs

    def _cost(self, model: LanguageModel, length: int) -> EpisodeCost:
        deep_values = self._head_width * (self._width + self._ways)
        return EpisodeCost.of(
            model,
            length,
            inner_steps=self._inner.steps,
            head_values=deep_values if self._deep else self._width * self._ways,
            repeated=self._inner.repeated_forwards,
            passed_back=self._inner.exact or (self._shared is None and self._start == "prototypes"),
        )

    def planned_step(self, step: int, model: LanguageModel, tokens: int, plain_flops: float) -> PlannedStep:
        """Full episodes where the step has episodes."""
        length = min(self._sequence_tokens or self._facts.row_tokens, self._facts.row_tokens)
        support, query = (self._ways * shots for shots in self._shots)
        if self._mixes_micro_batches:
            text, episodes = 1.0, self._share * self._episodes
        else:
            planned, count = self._plan_step(step, 1)
            text, episodes = float(planned[0]), float(count)
        flops = self._cost(model, length).flops(support, query, length)
        return PlannedStep(tokens * text, episodes * (support + query) * length, episodes * flops)

    # -- what it leaves

    def plain_tensors(self, model: LanguageModel) -> dict[str, Tensor]:
        """The model's own parameters."""
        named = model.named_parameters()
        return {name.removesuffix(".weight"): tensor for name, tensor in named if not name.startswith(f"{HEAD_NAME}.")}

    def plain_model(self, model: LanguageModel) -> LanguageModel:
        """The model without the shared head."""
        copied = copy.deepcopy(model).to("cpu")
        if self._shared is not None:
            delattr(copied, HEAD_NAME)
        return copied

    def state(self, model: LanguageModel) -> MethodState:
        """The shared head. The buffer and every choice follow from the step."""
        return MethodState(tensors={f"{HEAD_NAME}.{place}": tensor for place, tensor in enumerate(self._shared_parameters())})

    def restore(self, state: MethodState, model: LanguageModel) -> None:
        """Take the shared head back, if both runs have one of the same shape."""
        own: Mapping[str, Tensor] = self.state(model).tensors
        if {name: tensor.shape for name, tensor in own.items()} != {name: t.shape for name, t in state.tensors.items()}:
            raise PicoError(
                "training.method: the shared head of the saved run has another shape than this one's",
                "keep start, head, head_width, ways and departures as they were",
            )
        with torch.no_grad():
            for name, tensor in own.items():
                tensor.copy_(state.tensors[name])
