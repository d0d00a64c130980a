"""What an architecture must look like, and the few functions by which every other room reaches one.

A training file names an architecture (`model.model_type`); `build_model` makes it, `save_model` leaves a folder that other
tools open, `load_model` comes back from such a folder. The layout a model describes is the only place where its
tensor names are explained: saving, loading, capture and analysis all go through it.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from picolm.base.config import OPERATIONAL, Settings, parse_settings
from picolm.base.errors import PicoError
from picolm.base.registry import Registry
from picolm.model.folder import (
    check_layer_count,
    copy_into,
    open_tensors,
    read_folder_config,
    stored_shapes,
    stored_state,
    write_folder,
)
from picolm.model.generation import KeyValueCache, Sampling, generate
from picolm.model.original import native_layout
from picolm.model.positions import check_tokens
from picolm.records.snapshot import Layout


class ModelConfig(Settings):
    """What the settings of every architecture share."""

    model_type: str = "pico_decoder"
    """Architecture: a short name, `module:object` or `./file.py:object`."""

    vocab_size: PositiveInt = 50304
    """Rows of the embedding; at least the number of ids the tokenizer can give."""

    max_seq_len: PositiveInt = 2048
    """Longest sequence the model accepts, in tokens."""

    batch_size: Annotated[PositiveInt, OPERATIONAL] = 1024
    """Accepted because files written for the original have it; it has no effect (nothing here is sized by it)."""

    init: str = "torch_default"
    """How parameters start: torch_default (as in the paper), normal, fan_in (each also with _depth_scaled) or small_wang."""

    init_from: str | None = None
    """Folder of a saved model whose weights the run starts from; null starts from `init`."""


class LanguageModel(nn.Module, ABC):
    """A causal language model: token ids in, next-token logits out. Module names are plain names.

    The parameter of plain name `layers.0.attention.v_proj` is `layers.0.attention.v_proj.weight`; a bias is its own plain name.
    """

    config: ModelConfig

    @property
    def vocab_size(self) -> int:
        return self.config.vocab_size

    @property
    def max_seq_len(self) -> int:
        return self.config.max_seq_len

    @abstractmethod
    def forward(
        self,
        tokens_BT: Tensor,
        attention_mask_BT: Tensor | None = None,
        cache: KeyValueCache | None = None,
        labels_BT: Tensor | None = None,
        features: bool = False,
    ) -> Tensor:
        """Logits (B, T, V); with labels, the cross-entropy summed over labels other than -100, in float32.

        With `features`, (B, T, D): what the output head reads, and the head is not computed.

        `attention_mask_BT` has the shape of the tokens; 0 marks left padding, and positions count from the first 1. With a
        cache, the tokens continue what the cache has seen.
        """

    @abstractmethod
    def layout(self) -> Layout:
        """Plain name -> stored tensor, rows and role, for every parameter, with the head counts."""

    @abstractmethod
    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw every parameter anew by `config.init`, from this generator only."""

    def hf_config(self) -> dict[str, Any]:
        """Content of `config.json`; by default for an architecture no other library has, weights under the parameters' names."""
        return native_config(self)

    def hf_state_dict(self) -> dict[str, Tensor]:
        """Tensors of `model.safetensors`: the parameters rearranged as the layout says."""
        return stored_state(dict(self.named_parameters(remove_duplicate=False)), self.layout())

    def loss_sum(self, tokens_BT: Tensor, labels_BT: Tensor) -> Tensor:
        """Cross-entropy summed over labels other than -100, float32."""
        loss: Tensor = self(tokens_BT, labels_BT=labels_BT)
        return loss

    def new_cache(self) -> KeyValueCache:
        """An empty key/value cache for `forward`."""
        return KeyValueCache()

    def generate(
        self,
        tokens_BT: Tensor,
        *,
        max_new_tokens: int,
        sampling: Sampling | None = None,
        stop_token: int | None = None,
        attention_mask_BT: Tensor | None = None,
        generator: torch.Generator | None = None,
        use_cache: bool = True,
    ) -> Tensor:
        """The tokens with up to `max_new_tokens` appended: greedy, or drawn as `sampling` says. See `generation.generate`."""
        check_tokens(self, tokens_BT, further=max_new_tokens)
        return generate(
            self,
            tokens_BT,
            max_new_tokens=max_new_tokens,
            sampling=sampling or Sampling(),
            stop_token=stop_token,
            attention_mask_BT=attention_mask_BT,
            generator=generator,
            use_cache=use_cache,
        )


def native_config(model: LanguageModel) -> dict[str, Any]:
    """A `config.json` that holds picolm's own settings, for weights stored under the parameters' own names."""
    return {
        "architectures": [type(model).__name__],
        "model_type": model.config.model_type,
        "picolm_settings": model.config.model_dump(mode="json"),
    }


@dataclass(frozen=True)
class Architecture:
    """One sort of model: its settings, its module, and how to read the `config.json` of a folder that holds one."""

    config_class: type[ModelConfig]
    model_class: Callable[[Any], LanguageModel]
    hf_model_types: tuple[str, ...] = ()
    """Values of `model_type` in a `config.json` that this architecture opens."""
    config_from_hf: Callable[[Mapping[str, Any], str], ModelConfig] | None = None
    """Settings from the content of a `config.json` (and its path, for errors) that has no `picolm_settings`."""
    layout_of_folder: Callable[[LanguageModel, Mapping[str, Any]], Layout] | None = None
    """Where the tensors of such a folder stand; None: as the model's own layout says."""
    ignored_tensors: str | None = None
    """Regular expression of tensor names that may be there and are not needed, such as buffers older libraries saved."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "__doc__", self.model_class.__doc__)

    def config_of(self, content: Mapping[str, Any], source: str) -> ModelConfig:
        """The settings that a `config.json` stands for."""
        if "picolm_settings" in content:
            return parse_settings(self.config_class, content["picolm_settings"], source)
        if self.config_from_hf is None:
            raise PicoError(f"{source} has no picolm_settings", "the folder was not written by picolm for this architecture")
        return self.config_from_hf(content, source)

    def layout_of(self, model: LanguageModel, content: Mapping[str, Any]) -> Layout:
        """Where the tensors of a folder with this `config.json` stand."""
        if "picolm_settings" in content:
            return native_layout(model.layout())
        return model.layout() if self.layout_of_folder is None else self.layout_of_folder(model, content)

    def from_folder(self, folder: Path) -> LanguageModel:
        """The model saved in a folder, in float32 on the CPU."""
        content = read_folder_config(folder)
        tensors = open_tensors(folder)
        check_layer_count(content, tensors, folder)
        config = self.config_of(content, str(folder / "config.json"))
        try:
            without_storage = _shape_only(self, config)
        except (RuntimeError, OverflowError, TypeError) as error:
            raise PicoError(f"{folder}: config.json describes an impossible shape: {str(error)[:100]}") from error
        layout = self.layout_of(without_storage, content)
        tensors.check_against(stored_shapes(without_storage, layout), ignored=self.ignored_tensors)
        model = _construct(self, config)
        copy_into(model, tensors, layout)
        return model.eval()

    def fill(self, model: LanguageModel, folder: Path) -> None:
        """Copy the weights of a folder into a model of the same shape."""
        tensors, layout = open_tensors(folder), self.layout_of(model, read_folder_config(folder))
        tensors.check_against(stored_shapes(model, layout), ignored=self.ignored_tensors)
        copy_into(model, tensors, layout)


ARCHITECTURES = Registry("architecture", builtin_modules=("picolm.model.decoder", "picolm.model.neox"))
"""Short name -> `Architecture`."""


def find_architecture(model_type: str) -> Architecture:
    """The architecture a training file names."""
    found = ARCHITECTURES.find(model_type)
    if not isinstance(found, Architecture):
        raise PicoError(
            f"model.model_type: `{model_type}` is a {type(found).__name__}, not an architecture",
            "name an object made with picolm.model.contract.Architecture(config_class=..., model_class=...)",
        )
    return found


def parse_model_config(data: Mapping[str, Any], source: str) -> ModelConfig:
    """The section `model` of a training file, as the settings of the architecture it names."""
    model_type = data.get("model_type", ModelConfig.model_fields["model_type"].default)
    return parse_settings(find_architecture(str(model_type)).config_class, dict(data), source)


def build_model(config: ModelConfig, generator: torch.Generator) -> LanguageModel:
    """A new model, drawn from `generator`, or with the weights of `config.init_from`. The global random state is left alone."""
    model = _construct(find_architecture(config.model_type), config)
    model.reset_parameters(generator)
    if config.init_from is not None:
        load_weights(model, Path(config.init_from))
    return model


def _construct(architecture: Architecture, config: ModelConfig) -> LanguageModel:
    with torch.random.fork_rng(devices=[]):
        return architecture.model_class(config)


def _shape_only(architecture: Architecture, config: ModelConfig) -> LanguageModel:
    with torch.device("meta"):
        return architecture.model_class(config)


def save_model(model: LanguageModel, folder: Path, tokenizer_file: Path | None = None) -> None:
    """Write `config.json`, `model.safetensors` and `layout.json`, and the tokenizer's files if one is given."""
    write_folder(folder, model.hf_config(), model.hf_state_dict(), model.layout(), tokenizer_file, model.max_seq_len)


def load_model(folder: Path | str, architecture: str | None = None) -> LanguageModel:
    """The model in a folder: ours, or any plain Hugging Face folder of a known `model_type`. Nothing in it is executed.

    `architecture` names one of your own, as in a training file, for a folder whose `model_type` is not a short name.
    """
    folder = Path(folder)
    content = read_folder_config(folder)
    model_type = str(content.get("model_type", ""))
    if architecture is not None:
        return find_architecture(architecture).from_folder(folder)
    for entry in ARCHITECTURES.entries():
        if model_type == entry.name or model_type in entry.object.hf_model_types:
            found: LanguageModel = entry.object.from_folder(folder)
            return found
    known = sorted({name for entry in ARCHITECTURES.entries() for name in (entry.name, *entry.object.hf_model_types)})
    raise PicoError(
        f"{folder}: config.json has model_type {model_type[:60]!r}, which no architecture here opens",
        "known: " + ", ".join(known) + "; for your own give `architecture`, code named in a folder is never imported",
    )


def load_weights(model: LanguageModel, folder: Path) -> None:
    """Copy the weights of a saved folder into an existing model of the same shape."""
    find_architecture(model.config.model_type).fill(model, folder)


@functools.cache
def _shapes_of(config: ModelConfig) -> LanguageModel:
    return _shape_only(find_architecture(config.model_type), config)


def parameter_count(config: ModelConfig) -> int:
    """Number of trainable values; tied ones count once."""
    return sum(parameter.numel() for parameter in _shapes_of(config).parameters())


def flops_per_token(config: ModelConfig, sequence_length: int) -> float:
    """Floating-point operations to train on one token: 6 N + 12 L d T.

    N counts the parameters that multiply: all but an embedding table that is only looked up. L d is the summed width of
    all query heads; attention is counted in full, not halved for causality. Source: Chowdhery et al. (2022), appendix B.
    """
    model = _shapes_of(config)
    layout = model.layout()
    looked_up = {f"{name}.weight" for name in layout.names_with_role("embedding")}
    multiplied = {
        parameter: parameter.numel()
        for name, parameter in model.named_parameters(remove_duplicate=False)
        if name not in looked_up
    }
    attention_width = len(layout.names_with_role("query")) * layout.query_heads * layout.head_width
    return 6.0 * sum(multiplied.values()) + 12.0 * attention_width * sequence_length
