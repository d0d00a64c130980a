"""ReLoRA: training at full rank by a sequence of low-rank changes, each merged into the weights before the next begins.

After a warm start at full rank the weights W of the targets are frozen and A, B are trained, with W + (alpha / rank) B A in
effect. Every period the change is merged, A and B begin anew, most of the optimiser's moments are forgotten, and the learning
rate climbs back from zero. Source: Lialin et al. (2023), arXiv 2307.05695. What must hold at every moment is checked while it
runs (`relora_checks`) and logged, so that a variant which departs from the method can be told from one that does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from picolm.base.errors import PicoError
from picolm.model.contract import LanguageModel
from picolm.optim.contract import Schedule
from picolm.train.methods import relora_checks as checks
from picolm.train.methods import relora_reset as resets
from picolm.train.methods.contract import (
    COMPILED,
    METHODS,
    SCALED_LOSS,
    SEVERAL_PROCESSES,
    MethodState,
    RunFacts,
    Series,
    StepBatch,
    StepResult,
    TrainingMethod,
    draws_for,
)
from picolm.train.methods.language_model import language_model_step
from picolm.train.methods.relora_layers import (
    FACTORS,
    EffectiveWeights,
    LowRankLinear,
    add_low_rank,
    low_rank_layers,
    without_low_rank,
)
from picolm.train.methods.relora_options import Cycles, Departure, resolve_departures

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@METHODS.register("relora")
class ReLoRA(TrainingMethod):
    """Low-rank changes on top of frozen weights, merged and begun anew every so many updates.

    `variant: published` switches on everything the published implementation did otherwise; `departures` single things.
    """

    brief_options = MappingProxyType(
        {"rank": 2, "alpha": 4.0, "dropout": 0.0, "warm_start_share": 0.25, "reset_every_steps": 2, "ramp_steps": 1}
    )

    supports = frozenset({SEVERAL_PROCESSES, COMPILED, SCALED_LOSS})

    def __init__(
        self,
        *,
        rank: Annotated[int, Field(gt=0, description="Rank of the change that is trained: rows of A, columns of B.")] = 128,
        alpha: Annotated[float, Field(gt=0, description="The change is (alpha / rank) B A.")] = 32.0,
        dropout: Annotated[float, Field(ge=0, lt=1, description="Share of a layer's inputs that A does not see.")] = 0.1,
        targets: Annotated[
            tuple[str, ...], Field(description="Linear layers: ends of plain names, or globs. Default: all those of the blocks.")
        ] = ("layers.*",),
        warm_start_share: Annotated[
            float, Field(ge=0, lt=1, description="Share of the run's updates that are made at full rank before.")
        ] = 0.25,
        reset_every_steps: Annotated[int, Field(gt=1, description="Updates between two resets.")] = 2000,
        ramp_steps: Annotated[
            int, Field(ge=0, description="Updates over which the learning rate returns from 0 after a reset; 0 for none.")
        ] = 100,
        learning_rate_multiplier: Annotated[
            float, Field(gt=0, description="Factor on the learning rate of all parameters while the rank is low.")
        ] = 2.0,
        pruning: Annotated[
            resets.Pruning,
            Field(description="Which of the optimiser's moments a reset sets to zero: none, all, the smallest, or random ones."),
        ] = "magnitude",
        pruned_share: Annotated[float, Field(ge=0, le=1, description="Share of them, for magnitude and random.")] = 0.99,
        reset_step_counter: Annotated[
            bool, Field(description="Whether a reset sets the optimiser's step counter of A and B back, too.")
        ] = False,
        variant: Annotated[
            Literal["specified", "published"], Field(description="The method as its paper says, or as the published code did.")
        ] = "specified",
        departures: Annotated[tuple[Departure, ...], Field(description="Single departures of the published code.")] = (),
    ) -> None:
        self._departures = resolve_departures(variant, departures)
        self._rank, self._scale, self._dropout, self._targets = rank, alpha / rank, dropout, targets
        self._warm_start_share = 0.0 if "no_warm_start" in self._departures else warm_start_share
        self._period, self._ramp_steps = reset_every_steps, ramp_steps
        self._multiplier = 1.0 if "same_learning_rate" in self._departures else learning_rate_multiplier
        random_pruning = "random_pruning" in self._departures
        self._pruning: resets.Pruning = "random" if random_pruning else pruning
        self._pruned_share = 0.999 if random_pruning else pruned_share
        self._reset_step_counter = reset_step_counter
        self._layers: dict[str, LowRankLinear] = {}
        self._fingerprints: dict[str, int] = {}
        self._before_reset: dict[str, Tensor] = {}
        """With `undone_reset`, between a reset and the update after it: A and B before it, and as they began anew."""
        self._has_moved = False
        self._resets_next = False
        self._seed = 0

    # ---- Before the run ----

    def begin_run(self, facts: RunFacts) -> None:
        """Seed and steps."""
        self._seed = facts.seed
        steps = round(self._warm_start_share * facts.max_steps)
        self._cycles = Cycles(steps, self._period, self._ramp_steps, self._multiplier)
        self.trains_all_parameters = steps == 0  # else A and B are idle at first, and W afterwards

    def wrap_model(self, model: LanguageModel) -> LanguageModel:
        """Low-rank layers in the place of the targets, idle as long as the warm start lasts."""
        add_low_rank(model, self._targets, rank=self._rank, scale=self._scale, dropout=self._dropout)
        self._layers = low_rank_layers(model)
        if self._cycles.is_low_rank(0):
            self._begin_low_rank()
        return model

    def wrap_schedule(self, schedule: Schedule) -> Schedule:
        """Jagged: zero at every reset, back over `ramp_steps`, times the multiplier."""
        return self._cycles.jagged(schedule)

    def start(self, step: int, model: LanguageModel, optimizer: torch.optim.Optimizer) -> None:
        """The low-rank phase of a run that begins in it without a state of its own, such as one forked from plain training."""
        self._resets_next = self._cycles.reset_number(step + 1) is not None
        if self._cycles.is_low_rank(step) and not self._is_low_rank:
            self._begin_low_rank(optimizer)

    @property
    def _is_low_rank(self) -> bool:
        return any(layer.low_rank for layer in self._layers.values())

    def _begin_low_rank(self, optimizer: torch.optim.Optimizer | None = None) -> None:
        for name, layer in self._layers.items():
            layer.freeze()
            self._begin_factors(name, reset=0)
            if optimizer is not None:
                optimizer.state.pop(layer.weight, None)
        if not any(layer.weight.is_meta for layer in self._layers.values()):
            checks.check_beginning(self._layers, dead="dead_start" in self._departures)
        self._has_moved = "dead_start" in self._departures
        self._fingerprints = checks.fingerprints(self._layers)

    def _begin_factors(self, name: str, reset: int) -> None:
        dead = reset == 0 and "dead_start" in self._departures
        resets.begin_factors(self._layers[name], draws_for(self._seed, f"relora.a/{name}", reset), zero_a=dead)

    # ---- Every step ----

    def forward_backward(self, model: nn.Module, batch: StepBatch, fabric: Fabric) -> StepResult:
        """One pass over the step's micro-batches; says how large the gradient of B is."""
        result = language_model_step(model, batch, fabric)
        gradients = [layer.lora_b.grad for layer in self._layers.values() if layer.low_rank and layer.lora_b.grad is not None]
        if not gradients:
            return result
        return StepResult(result.loss_sum, {"relora_b_gradient_norm": resets.norm_of(gradients)})

    def after_update(self, step: int, model: LanguageModel, optimizer: torch.optim.Optimizer, *, applied: bool) -> Series:
        """The end of the warm start, or a reset, where one is due; how large B is."""
        made = step + 1
        self._resets_next = self._cycles.reset_number(made + 1) is not None
        if made == self._cycles.warm_start_steps:
            self._begin_low_rank(optimizer)
        if not self._is_low_rank:
            return {}
        said: dict[str, Tensor | float] = {}
        if applied:
            self._undo_reset()
            self._has_moved = self._has_moved or checks.check_movement(self._layers)
            said |= self._size_after_reset(made, optimizer)
        number = self._cycles.reset_number(made)
        if number is not None:
            said |= self._reset(number, model, optimizer)
        said["relora_b_norm"] = resets.norm_of([layer.lora_b.detach() for layer in self._layers.values()])
        return said

    def _reset(self, number: int, model: LanguageModel, optimizer: torch.optim.Optimizer) -> Series:
        """Merge, begin anew, forget. What the merge changed about the logits, relative to the largest."""
        checks.check_frozen(self._layers, self._fingerprints)
        before = resets.probe_logits(model, self._seed)
        old = self._factors("old")
        for name, layer in self._layers.items():
            resets.merge(layer, scaled="unscaled_merge" not in self._departures)
            self._begin_factors(name, number)
            self._forget(name, optimizer, number)
        checks.check_beginning(self._layers, dead=False)
        self._fingerprints = checks.fingerprints(self._layers)
        if "undone_reset" in self._departures:
            self._before_reset = {**old, **self._factors("new")}
        change = resets.relative_change(before, resets.probe_logits(model, self._seed))
        if "unscaled_merge" not in self._departures:
            checks.check_merge(change, number)
        return {"relora_resets": float(number), "relora_merge_output_change": change}

    def _forget(self, name: str, optimizer: torch.optim.Optimizer, number: int) -> None:
        apart = "random_pruning" in self._departures
        for factor in FACTORS:
            parameter, key = getattr(self._layers[name], factor), f"relora.prune/{name}/{factor}"
            draws = partial(self._draws_for_moment, key, number)
            resets.prune_moments(optimizer, parameter, self._pruning, self._pruned_share, draws, apart=apart)
            if self._reset_step_counter:
                resets.forget_steps(optimizer, parameter)

    def _draws_for_moment(self, key: str, number: int, moment: str) -> torch.Generator:
        return draws_for(self._seed, f"{key}/{moment}", number)

    def _undo_reset(self) -> None:
        """Published departure: the engine's own copy of A and B never heard of the reset and is written back after an update."""
        with torch.no_grad():
            for key in [key for key in self._before_reset if key.endswith("/old")]:
                parameter = self._named_factors()[key.removesuffix("/old")]
                began = self._before_reset[key.removesuffix("old") + "new"]
                parameter += self._before_reset[key] - began
        self._before_reset = {}

    def _size_after_reset(self, made: int, optimizer: torch.optim.Optimizer) -> Series:
        """Root mean square of B in learning rates, one update after a reset: a few, because B was zero."""
        if self._cycles.reset_number(made - 1) is None:
            return {}
        b = [layer.lora_b for layer in self._layers.values()]
        rate = next(group["lr"] for group in optimizer.param_groups if any(each is b[0] for each in group["params"]))
        root_mean_square = resets.norm_of([each.detach() for each in b]) / sum(each.numel() for each in b) ** 0.5
        return {"relora_b_after_reset": root_mean_square / rate} if rate > 0 else {}

    # ---- What others see ----

    def plain_tensors(self, model: LanguageModel) -> dict[str, Tensor]:
        """All parameters but A and B."""
        return {
            name.removesuffix(".weight"): parameter
            for name, parameter in model.named_parameters()
            if name.rpartition(".")[2] not in FACTORS
        }

    def effective_tensors(self, model: LanguageModel) -> Mapping[str, Tensor]:
        """W + s B A under the name of W."""
        return EffectiveWeights(self.plain_tensors(model), self._layers)

    def plain_model(self, model: LanguageModel) -> LanguageModel:
        """Ordinary linear layers that hold W + s B A."""
        return without_low_rank(model)

    def frozen_modules(self, model: LanguageModel) -> Mapping[str, LowRankLinear]:
        """The targets, once they are frozen."""
        return {name: layer for name, layer in self._layers.items() if layer.low_rank}

    def update_ranks(self, model: LanguageModel) -> Mapping[str, int]:
        """Twice the rank: B' A' - B A = (B' - B) A' + B (A' - A). None where a merge follows, which rounds W."""
        if self._resets_next:
            return {}
        limit = 2 * self._rank
        return {name: limit for name, layer in self.frozen_modules(model).items() if limit < min(layer.weight.shape)}

    def flops_per_token(self, plain: float, model: LanguageModel, step: int) -> float:
        """No weight gradient of frozen weights, 2 each; forward and both gradients of A and B, 6 each."""
        if not self._cycles.is_low_rank(step):
            return plain
        frozen = sum(layer.weight.numel() for layer in self._layers.values())
        return plain - 2.0 * frozen + 6.0 * sum(layer.factor_values for layer in self._layers.values())

    def state(self, model: LanguageModel) -> MethodState:
        """W, A and B exactly as they are: the checkpoint's own weights are merged. Nothing before the low-rank phase."""
        if not self._is_low_rank:
            return MethodState()
        checks.check_frozen(self._layers, self._fingerprints)
        weights = {f"{name}/weight": layer.weight for name, layer in self._layers.items()}
        return MethodState({"has_moved": self._has_moved}, {**weights, **self._named_factors(), **self._before_reset})

    def restore(self, state: MethodState, model: LanguageModel) -> None:
        """W, A and B; PicoError if they belong to other targets or another rank."""
        if not state.tensors:
            return
        expected = {f"{name}/weight": layer.weight for name, layer in self._layers.items()} | self._named_factors()
        pending = {key: tensor for key, tensor in state.tensors.items() if key.endswith(("/old", "/new"))}
        shapes = {key: tuple(tensor.shape) for key, tensor in state.tensors.items() if key not in pending}
        if shapes != {key: tuple(tensor.shape) for key, tensor in expected.items()}:
            raise PicoError(
                "the checkpoint was made with other targets or another rank of training.method relora",
                "use the same, or begin from its merged weights: model.init_from",
            )
        for layer in self._layers.values():
            layer.freeze()
        with torch.no_grad():
            for key, tensor in expected.items():
                tensor.copy_(state.tensors[key])
        self._before_reset = {key: tensor.to(next(iter(expected.values())).device) for key, tensor in pending.items()}
        self._has_moved = bool(state.values.get("has_moved", True))
        self._fingerprints = checks.fingerprints(self._layers)

    def _named_factors(self) -> dict[str, Tensor]:
        return {f"{name}/{factor}": getattr(layer, factor) for name, layer in self._layers.items() for factor in FACTORS}

    def _factors(self, moment: str) -> dict[str, Tensor]:
        """Copies of A and B."""
        return {f"{key}/{moment}": tensor.detach().clone() for key, tensor in self._named_factors().items()}
