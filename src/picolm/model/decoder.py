"""pico-decoder, top to bottom: the model of the suite, in plain PyTorch.

Token ids arrive from the loader; logits, or the summed loss, leave for `train`. Each block adds attention and then a gated
feed-forward layer to the residual stream, both after a root-mean-square norm. Positions enter by rotating adjacent pairs of
query and key coordinates. Nothing here is kept between calls.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import ConfigDict, PositiveFloat, PositiveInt, ValidationInfo, field_validator
from torch import Tensor, nn

from picolm.base.config import parse_settings
from picolm.model.contract import ARCHITECTURES, Architecture, LanguageModel, ModelConfig
from picolm.model.generation import KeyValueCache
from picolm.model.initialize import initialize, known_scheme
from picolm.model.llama import llama_config, llama_layout, settings_from_llama
from picolm.model.loss import read_out
from picolm.model.original import original_layout, settings_from_original
from picolm.model.positions import place_tokens
from picolm.model.precision import not_emulated
from picolm.records.snapshot import Layout


class DecoderConfig(ModelConfig):
    """The shape of a pico-decoder."""

    model_config = ConfigDict(validate_default=True)

    d_model: PositiveInt = 768
    """Width of the residual stream."""

    n_layers: PositiveInt = 12
    """Number of blocks."""

    head_width: PositiveInt | None = None
    """Coordinates per attention head; null for d_model / attention_n_heads. Must be even: rotary positions turn pairs."""

    attention_n_heads: PositiveInt = 12
    """Query heads."""

    attention_n_kv_heads: PositiveInt | None = 4
    """Key and value heads, each shared by an equal number of query heads; null for as many as query heads."""

    activation_hidden_dim: PositiveInt = 3072
    """Width of the feed-forward layer."""

    norm_eps: PositiveFloat = 1e-6
    """Added to the mean square before its root is taken."""

    position_emb_theta: PositiveFloat = 10000.0
    """Base of the rotary frequencies."""

    tied_embeddings: bool = False
    """Whether the output head is the embedding table itself. With `init: torch_default` that head starts with unit variance."""

    qk_norm: bool = False
    """Whether queries and keys are normalised within each head before they are rotated. Saved as a Qwen3 folder."""

    @field_validator("attention_n_heads")
    @classmethod
    def _heads_divide_the_width(cls, heads: int, info: ValidationInfo) -> int:
        d_model, head_width = info.data.get("d_model"), info.data.get("head_width")
        if d_model is None:
            return heads
        if head_width is None and d_model % heads:
            raise ValueError(f"does not divide d_model = {d_model}; choose a divisor, or set head_width")
        width = head_width or d_model // heads
        if width % 2:
            raise ValueError(f"gives heads of odd width {width}; rotary positions turn pairs of coordinates")
        return heads

    @field_validator("attention_n_kv_heads")
    @classmethod
    def _key_value_heads_divide_the_heads(cls, kv_heads: int | None, info: ValidationInfo) -> int | None:
        heads = info.data.get("attention_n_heads")
        if kv_heads is not None and heads is not None and heads % kv_heads:
            raise ValueError(f"does not divide attention_n_heads = {heads}; each must serve as many query heads")
        return kv_heads

    _scheme = field_validator("init")(known_scheme)

    @property
    def width_of_head(self) -> int:
        return self.head_width or self.d_model // self.attention_n_heads

    @property
    def key_value_heads(self) -> int:
        return self.attention_n_kv_heads or self.attention_n_heads


class RMSNorm(nn.Module):
    """x / sqrt(mean(x²) + eps) * weight, over the last dimension. Source: Zhang and Sennrich (2019)."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x_BTD: Tensor) -> Tensor:
        return F.rms_norm(x_BTD, self.weight.shape, self.weight, self.eps)


def rotation_of(position_BT: Tensor, head_width: int, theta: float) -> tuple[Tensor, Tensor]:
    """Cosine and sine of the angle by which each pair is turned: position * theta^(-2 pair / K).

    (1 or B, T, 1, K/2) each, which broadcasts over heads; float32 whatever the model's dtype.
    """
    pair = torch.arange(0, head_width, 2, device=position_BT.device, dtype=torch.float32)
    frequency = 1.0 / (theta ** (pair / head_width))
    angle = position_BT[:, :, None, None].float() * frequency
    return angle.cos(), angle.sin()


def rotate_pairs(x_BTHK: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Turn each adjacent pair of coordinates by its angle. Source: Su et al. (2021). Real arithmetic: complex breaks kernels."""
    pair = x_BTHK.to(torch.promote_types(x_BTHK.dtype, torch.float32)).view(*x_BTHK.shape[:-1], -1, 2)
    even, odd = pair[..., 0], pair[..., 1]
    turned = torch.stack((even * cosine - odd * sine, even * sine + odd * cosine), dim=-1)
    return turned.flatten(-2).to(x_BTHK.dtype)


def attend(
    query_BTHK: Tensor,
    key_BTGK: Tensor,
    value_BTGK: Tensor,
    mask_B1TS: Tensor | None,
    cache: KeyValueCache | None,
    layer: int,
) -> Tensor:
    """What each query takes of the values before it, heads side by side, (B, T, H K). H is a multiple of G."""
    query_BHTK, key_BGSK, value_BGSK = (x.transpose(1, 2) for x in (query_BTHK, key_BTGK, value_BTGK))
    if cache is not None:
        key_BGSK, value_BGSK = cache.extend(layer, key_BGSK, value_BGSK)
    # One query may see every key, so only several of them need the causal order.
    is_causal = mask_B1TS is None and query_BHTK.shape[2] > 1
    grouped = query_BHTK.shape[1] != key_BGSK.shape[1]
    mixed_BHTK = F.scaled_dot_product_attention(
        query_BHTK, key_BGSK, value_BGSK, attn_mask=mask_B1TS, is_causal=is_causal, enable_gqa=grouped
    )
    return mixed_BHTK.transpose(1, 2).flatten(-2)


class Attention(nn.Module):
    """Causal self-attention in which groups of query heads share a key/value head. Source: Ainslie et al. (2023)."""

    def __init__(self, config: DecoderConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.head_width = config.width_of_head
        query_width = config.attention_n_heads * self.head_width
        key_value_width = config.key_value_heads * self.head_width
        self.q_proj = nn.Linear(config.d_model, query_width, bias=False)
        self.k_proj = nn.Linear(config.d_model, key_value_width, bias=False)
        self.v_proj = nn.Linear(config.d_model, key_value_width, bias=False)
        self.o_proj = nn.Linear(query_width, config.d_model, bias=False)
        self.q_norm = RMSNorm(self.head_width, config.norm_eps) if config.qk_norm else nn.Identity()
        self.k_norm = RMSNorm(self.head_width, config.norm_eps) if config.qk_norm else nn.Identity()

    def forward(
        self, x_BTD: Tensor, rotation: tuple[Tensor, Tensor], mask_B1TS: Tensor | None, cache: KeyValueCache | None
    ) -> Tensor:
        query_BTHK = self.q_norm(self.q_proj(x_BTD).unflatten(-1, (-1, self.head_width)))
        key_BTGK = self.k_norm(self.k_proj(x_BTD).unflatten(-1, (-1, self.head_width)))
        query_BTHK, key_BTGK = rotate_pairs(query_BTHK, *rotation), rotate_pairs(key_BTGK, *rotation)
        value_BTGK = self.v_proj(x_BTD).unflatten(-1, (-1, self.head_width))
        out_BTD: Tensor = self.o_proj(attend(query_BTHK, key_BTGK, value_BTGK, mask_B1TS, cache, self.layer))
        return out_BTD


class SwiGLU(nn.Module):
    """w_2(silu(w_0 x) * w_1 x). Source: Shazeer (2020)."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.w_0 = nn.Linear(config.d_model, config.activation_hidden_dim, bias=False)
        self.w_1 = nn.Linear(config.d_model, config.activation_hidden_dim, bias=False)
        self.w_2 = nn.Linear(config.activation_hidden_dim, config.d_model, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        out_BTD: Tensor = self.w_2(F.silu(self.w_0(x_BTD)) * self.w_1(x_BTD))
        return out_BTD


class Block(nn.Module):
    """x + attention(norm(x)), then x + swiglu(norm(x))."""

    def __init__(self, config: DecoderConfig, layer: int) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.d_model, config.norm_eps)
        self.attention = Attention(config, layer)
        self.swiglu_norm = RMSNorm(config.d_model, config.norm_eps)
        self.swiglu = SwiGLU(config)

    def forward(
        self, x_BTD: Tensor, rotation: tuple[Tensor, Tensor], mask_B1TS: Tensor | None, cache: KeyValueCache | None
    ) -> Tensor:
        x_BTD = x_BTD + self.attention(self.attention_norm(x_BTD), rotation, mask_B1TS, cache)
        x_BTD = x_BTD + self.swiglu(self.swiglu_norm(x_BTD))
        return x_BTD


class PicoDecoder(LanguageModel):
    """The suite's decoder: RMSNorm, rotary positions, grouped-query attention, SwiGLU, untied head."""

    config: DecoderConfig

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding_proj = nn.Embedding(config.vocab_size, config.d_model)
        self.layers = nn.ModuleList(Block(config, layer) for layer in range(config.n_layers))
        self.output_norm = RMSNorm(config.d_model, config.norm_eps)
        self.de_embedding_proj = nn.Linear(config.d_model, config.vocab_size, bias=False)
        if config.tied_embeddings:
            self.de_embedding_proj.weight = self.embedding_proj.weight

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
        rotation = rotation_of(placed.position_BT, self.config.width_of_head, self.config.position_emb_theta)
        x_BTD: Tensor = self.embedding_proj(tokens_BT)
        for block in self.layers:
            x_BTD = block(x_BTD, rotation, placed.mask_B1TS, cache)
        return read_out(self.output_norm(x_BTD), self.de_embedding_proj, labels_BT, features=features)

    def reset_parameters(self, generator: torch.Generator) -> None:
        initialize(self, self.config.init, generator)

    def layout(self) -> Layout:
        return llama_layout(self.config)

    def hf_config(self) -> dict[str, Any]:
        return llama_config(self.config)


def decoder_config_from_hf(content: Mapping[str, Any], source: str) -> DecoderConfig:
    """The decoder settings of a Llama, Qwen3 or published pico-decoder folder."""
    read = settings_from_original if content["model_type"] == "pico_decoder" else settings_from_llama
    return parse_settings(DecoderConfig, read(content, source), source)


def decoder_layout_of_folder(model: LanguageModel, content: Mapping[str, Any]) -> Layout:
    """Where the tensors of such a folder stand."""
    return original_layout(model.layout()) if content["model_type"] == "pico_decoder" else model.layout()


ARCHITECTURES.register("pico_decoder")(
    Architecture(
        DecoderConfig,
        PicoDecoder,
        hf_model_types=("llama", "qwen3"),
        config_from_hf=decoder_config_from_hf,
        layout_of_folder=decoder_layout_of_folder,
        ignored_tensors=r"\.self_attn\.rotary_emb\.inv_freq$",
    )
)
