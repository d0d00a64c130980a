"""A linear layer whose weight can be frozen under a low-rank change that is trained in its place.

y = x Wᵀ + s · ((dropout(x) Aᵀ) Bᵀ), with W (O, I), A (R, I), B (O, R). The module and its weight keep the names they had.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from picolm.base.errors import PicoError
from picolm.model.contract import LanguageModel
from picolm.records.names import expand_patterns

FACTORS = ("lora_a", "lora_b")


class LowRankLinear(nn.Module):
    """The layer it was made from, until `low_rank` is set; then W is frozen and A, B are trained."""

    def __init__(self, linear: nn.Linear, *, rank: int, scale: float, dropout: float) -> None:
        super().__init__()
        self.weight = linear.weight
        self.bias = linear.bias
        self.lora_a = nn.Parameter(self.weight.new_zeros(rank, linear.in_features))
        self.lora_b = nn.Parameter(self.weight.new_zeros(linear.out_features, rank))
        self.scale = scale
        self.dropout = dropout
        self.low_rank = False

    def forward(self, x_XI: Tensor) -> Tensor:
        frozen_XO = F.linear(x_XI, self.weight, self.bias)
        if not self.low_rank:
            return frozen_XO
        reduced_XR = F.linear(F.dropout(x_XI, self.dropout, self.training), self.lora_a)
        return frozen_XO + self.scale * F.linear(reduced_XR, self.lora_b)

    def freeze(self) -> None:
        """From now on W is frozen and the low-rank change acts."""
        self.low_rank = True
        self.weight.requires_grad_(False)

    def change(self) -> Tensor:
        """(O, I): s B A, in 64 bits where the device has them."""
        wide = torch.float32 if self.weight.device.type == "mps" else torch.float64
        with torch.no_grad(), torch.autocast(self.weight.device.type, enabled=False):
            return self.scale * (self.lora_b.to(wide) @ self.lora_a.to(wide))

    def effective_weight(self) -> Tensor:
        """(O, I): the weight that acts, W + s B A, as wide as `change`; without a low-rank change the parameter itself."""
        return self.weight.detach() + self.change() if self.low_rank else self.weight

    @property
    def frozen_values(self) -> int:
        """Values of W, if it is frozen."""
        return self.weight.numel() if self.low_rank else 0

    @property
    def factor_values(self) -> int:
        """Values of A and B."""
        return self.lora_a.numel() + self.lora_b.numel()


class EffectiveWeights(Mapping[str, Tensor]):
    """Plain name -> weight that acts, computed when it is looked up: unrounded, so that differences are of low rank, too."""

    def __init__(self, plain_tensors: Mapping[str, Tensor], layers: Mapping[str, LowRankLinear]) -> None:
        self._plain = plain_tensors
        self._layers = layers

    def __getitem__(self, name: str) -> Tensor:
        return self._layers[name].effective_weight() if name in self._layers else self._plain[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._plain)

    def __len__(self) -> int:
        return len(self._plain)


def low_rank_layers(model: nn.Module) -> dict[str, LowRankLinear]:
    """Plain name -> layer, of every layer that can have a low-rank change."""
    return {name: module for name, module in model.named_modules() if isinstance(module, LowRankLinear)}


def add_low_rank(model: LanguageModel, targets: tuple[str, ...], *, rank: int, scale: float, dropout: float) -> None:
    """Put a `LowRankLinear` in the place of every linear layer that fits one of the patterns."""
    linear = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    shared = _shared_weights(model)
    for name in expand_patterns(targets, linear, "training.method.targets"):
        layer = linear[name]
        if id(layer.weight) in shared:
            raise PicoError(f"training.method.targets: {name} shares its weight with another layer", "leave it out")
        if rank > min(layer.in_features, layer.out_features):
            raise PicoError(
                f"training.method.rank = {rank}: {name} has {layer.out_features} x {layer.in_features} values",
                f"choose a rank up to {min(layer.in_features, layer.out_features)}, or leave the layer out of `targets`",
            )
        _replace(model, name, LowRankLinear(layer, rank=rank, scale=scale, dropout=dropout))


def without_low_rank(model: LanguageModel) -> LanguageModel:
    """A copy on the CPU with ordinary linear layers that hold the weights that act."""
    plain = copy.deepcopy(model).to("cpu")
    for name, layer in low_rank_layers(plain).items():
        linear = nn.Linear(layer.weight.shape[1], layer.weight.shape[0], bias=layer.bias is not None, device="meta")
        linear.weight = nn.Parameter(layer.effective_weight().detach().to(layer.weight.dtype))
        if layer.bias is not None:
            linear.bias = layer.bias
        _replace(plain, name, linear)
    return plain


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(parent), attribute, module)


def _shared_weights(model: nn.Module) -> set[int]:
    """ids of the parameters that go by more than one name."""
    seen = [id(parameter) for _, parameter in model.named_parameters(remove_duplicate=False)]
    return {each for each in seen if seen.count(each) > 1}
