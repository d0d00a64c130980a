"""A GPT-NeoX style decoder, the shape of Pythia: parallel residual, LayerNorm, partly rotary attention, GELU.

It lives by the same contract as pico-decoder. Saved as `GPTNeoXForCausalLM`, where query, key and value share one
tensor, head by head; the layout says which rows are whose.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import ConfigDict, Field, PositiveFloat, PositiveInt, ValidationInfo, field_validator
from torch import Tensor, nn

from picolm.base.config import parse_settings
from picolm.model.contract import ARCHITECTURES, Architecture, LanguageModel, ModelConfig
from picolm.model.decoder import attend, rotation_of
from picolm.model.foreign import common_entries, refuse_unless, required, rope_theta
from picolm.model.generation import KeyValueCache
from picolm.model.initialize import initialize, known_scheme
from picolm.model.loss import read_out
from picolm.model.positions import place_tokens
from picolm.model.precision import not_emulated
from picolm.records.snapshot import Layout, Placement


class NeoXConfig(ModelConfig):
    """The shape of a GPT-NeoX; the defaults are Pythia-14M's."""

    model_config = ConfigDict(validate_default=True)

    model_type: str = "gpt_neox"
    """Architecture: a short name, `module:object` or `./file.py:object`."""

    d_model: PositiveInt = 128
    """Width of the residual stream."""

    n_layers: PositiveInt = 6
    """Number of blocks."""

    attention_n_heads: PositiveInt = 4
    """Attention heads, each of width d_model / attention_n_heads."""

    rotary_share: float = Field(default=0.25, gt=0.0, le=1.0)
    """Share of each head's coordinates that carry the position; their number, rounded down, must be even."""

    activation_hidden_dim: PositiveInt = 512
    """Width of the feed-forward layer."""

    norm_eps: PositiveFloat = 1e-5
    """Added to the variance before its root is taken."""

    position_emb_theta: PositiveFloat = 10000.0
    """Base of the rotary frequencies."""

    parallel_residual: bool = True
    """Whether attention and feed-forward layer both read the block's input; false: the second reads what the first wrote."""

    @field_validator("attention_n_heads")
    @classmethod
    def _heads_divide_the_width(cls, heads: int, info: ValidationInfo) -> int:
        d_model = info.data.get("d_model")
        if d_model is not None and d_model % heads:
            raise ValueError(f"does not divide d_model = {d_model}; choose a divisor")
        return heads

    @field_validator("rotary_share")
    @classmethod
    def _pairs_are_whole(cls, share: float, info: ValidationInfo) -> float:
        d_model, heads = info.data.get("d_model"), info.data.get("attention_n_heads")
        if d_model is not None and heads is not None and (width := int(d_model // heads * share)) % 2 | (width == 0):
            raise ValueError(
                f"rotates {width} coordinates of a head of width {d_model // heads}; it must be an even number, not 0"
            )
        return share

    _scheme = field_validator("init")(known_scheme)

    @property
    def width_of_head(self) -> int:
        return self.d_model // self.attention_n_heads

    @property
    def rotary_width(self) -> int:
        return int(self.width_of_head * self.rotary_share)


def rotate_halves(x_BTHK: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Turn coordinate i of the first rotary half with coordinate i of the second; what lies beyond is left as it is."""
    half = cosine.shape[-1]
    first, second, rest = torch.split(x_BTHK, [half, half, x_BTHK.shape[-1] - 2 * half], dim=-1)
    turned = torch.cat((first * cosine - second * sine, second * cosine + first * sine), dim=-1)
    return torch.cat((turned.to(x_BTHK.dtype), rest), dim=-1)


class NeoXAttention(nn.Module):
    """Causal self-attention whose heads carry positions in a part of their coordinates only."""

    def __init__(self, config: NeoXConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.head_width = config.width_of_head
        self.q_proj = nn.Linear(config.d_model, config.d_model)
        self.k_proj = nn.Linear(config.d_model, config.d_model)
        self.v_proj = nn.Linear(config.d_model, config.d_model)
        self.o_proj = nn.Linear(config.d_model, config.d_model)

    def forward(
        self, x_BTD: Tensor, rotation: tuple[Tensor, Tensor], mask_B1TS: Tensor | None, cache: KeyValueCache | None
    ) -> Tensor:
        query_BTHK = rotate_halves(self.q_proj(x_BTD).unflatten(-1, (-1, self.head_width)), *rotation)
        key_BTHK = rotate_halves(self.k_proj(x_BTD).unflatten(-1, (-1, self.head_width)), *rotation)
        value_BTHK = self.v_proj(x_BTD).unflatten(-1, (-1, self.head_width))
        out_BTD: Tensor = self.o_proj(attend(query_BTHK, key_BTHK, value_BTHK, mask_B1TS, cache, self.layer))
        return out_BTD


class FeedForward(nn.Module):
    """w_down gelu(w_up x)."""

    def __init__(self, config: NeoXConfig) -> None:
        super().__init__()
        self.w_up = nn.Linear(config.d_model, config.activation_hidden_dim)
        self.w_down = nn.Linear(config.activation_hidden_dim, config.d_model)

    def forward(self, x_BTD: Tensor) -> Tensor:
        out_BTD: Tensor = self.w_down(F.gelu(self.w_up(x_BTD)))
        return out_BTD


class NeoXBlock(nn.Module):
    """x + attention(norm x) + mlp(norm' x); not parallel: the mlp reads x + attention(norm x)."""

    def __init__(self, config: NeoXConfig, layer: int) -> None:
        super().__init__()
        self.parallel = config.parallel_residual
        self.attention_norm = nn.LayerNorm(config.d_model, eps=config.norm_eps)
        self.attention = NeoXAttention(config, layer)
        self.mlp_norm = nn.LayerNorm(config.d_model, eps=config.norm_eps)
        self.mlp = FeedForward(config)

    def forward(
        self, x_BTD: Tensor, rotation: tuple[Tensor, Tensor], mask_B1TS: Tensor | None, cache: KeyValueCache | None
    ) -> Tensor:
        attended_BTD = x_BTD + self.attention(self.attention_norm(x_BTD), rotation, mask_B1TS, cache)
        read_BTD = x_BTD if self.parallel else attended_BTD
        out_BTD: Tensor = attended_BTD + self.mlp(self.mlp_norm(read_BTD))
        return out_BTD


class NeoX(LanguageModel):
    """The shape of Pythia: parallel residual, LayerNorm, partly rotary attention, GELU, untied head."""

    config: NeoXConfig

    def __init__(self, config: NeoXConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding_proj = nn.Embedding(config.vocab_size, config.d_model)
        self.layers = nn.ModuleList(NeoXBlock(config, layer) for layer in range(config.n_layers))
        self.output_norm = nn.LayerNorm(config.d_model, eps=config.norm_eps)
        self.de_embedding_proj = nn.Linear(config.d_model, config.vocab_size, bias=False)

    @not_emulated
    def forward(
        self,
        tokens_BT: Tensor,
        attention_mask_BT: Tensor | None = None,
        cache: KeyValueCache | None = None,
        labels_BT: Tensor | None = None,
        features: bool = False,
    ) -> Tensor:
        placed = place_tokens(tokens_BT, attention_mask_BT, cache, self.config.max_seq_len)
        rotation = rotation_of(placed.position_BT, self.config.rotary_width, self.config.position_emb_theta)
        x_BTD: Tensor = self.embedding_proj(tokens_BT)
        for block in self.layers:
            x_BTD = block(x_BTD, rotation, placed.mask_B1TS, cache)
        return read_out(self.output_norm(x_BTD), self.de_embedding_proj, labels_BT, features=features)

    def reset_parameters(self, generator: torch.Generator) -> None:
        initialize(self, self.config.init, generator)

    def layout(self) -> Layout:
        return neox_layout(self.config)

    def hf_config(self) -> dict[str, Any]:
        return neox_config(self.config)


PARTS = {
    "attention_norm": ("input_layernorm", "norm"),
    "attention.o_proj": ("attention.dense", "output"),
    "mlp_norm": ("post_attention_layernorm", "norm"),
    "mlp.w_up": ("mlp.dense_h_to_4h", "up"),
    "mlp.w_down": ("mlp.dense_4h_to_h", "down"),
}
"""Part of a block -> (GPT-NeoX's name for it, role)."""
FUSED_PARTS = {"attention.q_proj": "query", "attention.k_proj": "key", "attention.v_proj": "value"}
"""Parts that share `attention.query_key_value`: for each head its query rows, then its key rows, then its value rows."""


def neox_layout(config: NeoXConfig) -> Layout:
    """Where each plain tensor is stored in a GPT-NeoX file."""
    width = config.width_of_head
    tensors = {"embedding_proj": Placement("gpt_neox.embed_in.weight", "embedding")}
    for layer in range(config.n_layers):
        plain, stored = f"layers.{layer}", f"gpt_neox.layers.{layer}"
        for index, (part, role) in enumerate(FUSED_PARTS.items()):
            starts = range(index * width, 3 * config.d_model, 3 * width)
            rows = tuple((start, start + width) for start in starts)
            tensors[f"{plain}.{part}"] = Placement(f"{stored}.attention.query_key_value.weight", role, rows)
            tensors[f"{plain}.{part}.bias"] = Placement(f"{stored}.attention.query_key_value.bias", "bias", rows)
        for part, (name, role) in PARTS.items():
            tensors[f"{plain}.{part}"] = Placement(f"{stored}.{name}.weight", role)
            tensors[f"{plain}.{part}.bias"] = Placement(f"{stored}.{name}.bias", "bias")
    tensors["output_norm"] = Placement("gpt_neox.final_layer_norm.weight", "norm")
    tensors["output_norm.bias"] = Placement("gpt_neox.final_layer_norm.bias", "bias")
    tensors["de_embedding_proj"] = Placement("embed_out.weight", "unembedding")
    return Layout("gpt_neox", config.attention_n_heads, config.attention_n_heads, width, tensors)


def neox_config(config: NeoXConfig) -> dict[str, Any]:
    """The settings as the `config.json` of a `GPTNeoXForCausalLM`: rotary settings as transformers 4 and as 5 wants them."""
    theta, share = config.position_emb_theta, config.rotary_share
    return {
        "architectures": ["GPTNeoXForCausalLM"],
        "model_type": "gpt_neox",
        **common_entries(config, theta, partial_rotary_factor=share),
        "hidden_size": config.d_model,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.attention_n_heads,
        "intermediate_size": config.activation_hidden_dim,
        "hidden_act": "gelu",
        "rotary_pct": share,
        "rotary_emb_base": theta,
        "layer_norm_eps": config.norm_eps,
        "use_parallel_residual": config.parallel_residual,
        "attention_bias": True,
        "tie_word_embeddings": False,
    }


def neox_config_from_hf(content: Mapping[str, Any], source: str) -> NeoXConfig:
    """The settings of a GPT-NeoX folder, Pythia's included; PicoError names what is not supported."""
    refuse_unless(content, "hidden_act", "gelu", source)
    refuse_unless(content, "attention_bias", True, source)
    refuse_unless(content, "tie_word_embeddings", False, source)
    nested = content.get("rope_parameters") or {}
    top_level = {**content, "rope_theta": content.get("rope_theta", content.get("rotary_emb_base"))}
    theta = rope_theta(top_level, source)
    settings = {
        "d_model": required(content, "hidden_size", source),
        "n_layers": required(content, "num_hidden_layers", source),
        "vocab_size": required(content, "vocab_size", source),
        "max_seq_len": content.get("max_position_embeddings", 2048),
        "attention_n_heads": required(content, "num_attention_heads", source),
        "rotary_share": nested.get("partial_rotary_factor", content.get("rotary_pct", 0.25)),
        "activation_hidden_dim": required(content, "intermediate_size", source),
        "norm_eps": content.get("layer_norm_eps", 1e-5),
        "position_emb_theta": theta,
        "parallel_residual": content.get("use_parallel_residual", True),
    }
    return parse_settings(NeoXConfig, settings, source)


ARCHITECTURES.register("gpt_neox")(
    Architecture(
        NeoXConfig,
        NeoX,
        hf_model_types=("gpt_neox",),
        config_from_hf=neox_config_from_hf,
        ignored_tensors=r"\.attention\.(bias|masked_bias|rotary_emb\.inv_freq)$",
    )
)
