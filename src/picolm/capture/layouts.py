"""The layout of any Hugging Face causal language model, read off the names of its tensors.

Stored tensors and parameters of the loaded module go by different names in places (transformers renames some on loading), so
both are brought to plain names by the same rules, and meet there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from picolm.base.errors import PicoError
from picolm.records.names import join_name
from picolm.records.snapshot import Layout, Placement

Shape = tuple[int, ...]

BLOCK = re.compile(r"^(?:.*\.)?(?:layers|h|blocks)\.(\d+)\.(.+)$")

PARTS = {
    "self_attn.q_proj": ("attention.q_proj", "query"),
    "self_attn.k_proj": ("attention.k_proj", "key"),
    "self_attn.v_proj": ("attention.v_proj", "value"),
    "self_attn.o_proj": ("attention.o_proj", "output"),
    "self_attn.dense": ("attention.o_proj", "output"),
    "self_attn.out_proj": ("attention.o_proj", "output"),
    "self_attn.q_norm": ("attention.q_norm", "norm"),
    "self_attn.k_norm": ("attention.k_norm", "norm"),
    "attention.dense": ("attention.o_proj", "output"),
    "attention.q_proj": ("attention.q_proj", "query"),
    "attention.k_proj": ("attention.k_proj", "key"),
    "attention.v_proj": ("attention.v_proj", "value"),
    "attention.o_proj": ("attention.o_proj", "output"),
    "mlp.gate_proj": ("swiglu.w_0", "gate"),
    "mlp.up_proj": ("swiglu.w_1", "up"),
    "mlp.down_proj": ("swiglu.w_2", "down"),
    "swiglu.w_0": ("swiglu.w_0", "gate"),
    "swiglu.w_1": ("swiglu.w_1", "up"),
    "swiglu.w_2": ("swiglu.w_2", "down"),
    "mlp.dense_h_to_4h": ("mlp.w_up", "up"),
    "mlp.dense_4h_to_h": ("mlp.w_down", "down"),
    "mlp.w_up": ("mlp.w_up", "up"),
    "mlp.w_down": ("mlp.w_down", "down"),
    "input_layernorm": ("attention_norm", "norm"),
    "attention_norm": ("attention_norm", "norm"),
    "swiglu_norm": ("swiglu_norm", "norm"),
    "mlp_norm": ("mlp_norm", "norm"),
}
"""Part of a block as stored -> (plain part, role)."""

OUTSIDE = {
    "embed_tokens": ("embedding_proj", "embedding"),
    "embed_in": ("embedding_proj", "embedding"),
    "embedding_proj": ("embedding_proj", "embedding"),
    "norm": ("output_norm", "norm"),
    "final_layer_norm": ("output_norm", "norm"),
    "final_layernorm": ("output_norm", "norm"),
    "output_norm": ("output_norm", "norm"),
    "lm_head": ("de_embedding_proj", "unembedding"),
    "embed_out": ("de_embedding_proj", "unembedding"),
    "de_embedding_proj": ("de_embedding_proj", "unembedding"),
}
"""Last piece of a tensor outside the blocks -> (plain name, role)."""

INTERLEAVED = ("cohere", "cohere2", "glm", "glm4", "llama4_text", "pico_decoder")
"""Model types whose rotary pairs stand side by side already."""

BUFFERS = re.compile(r"\.(?:rotary_emb\.inv_freq|attention\.bias|attention\.masked_bias)$")
"""What older libraries saved along with the weights."""


class Heads(NamedTuple):
    """How attention is split."""

    query: int
    key_value: int
    width: int


def layout_of_tensors(shapes: Mapping[str, Shape], config: Mapping[str, Any]) -> Layout:
    """Plain name -> place, for the tensors (or parameters) called so; `config` is the content of `config.json`.

    Tensors that no rule knows keep their own names, with `layers.<i>.` in front inside the blocks, and have the role `other`.
    """
    heads = heads_of(config)
    after_feed_forward = any("post_feedforward_layernorm" in name for name in shapes)
    tensors: dict[str, Placement] = {}
    for name, shape in shapes.items():
        if BUFFERS.search(name):
            continue
        for plain, place in _places(name, shape, config, heads, after_feed_forward):
            if plain in tensors:
                raise PicoError(f"{name} and {tensors[plain].tensor} are both `{plain}`", "this architecture is not known here")
            tensors[plain] = place
    if "de_embedding_proj" not in tensors and "embedding_proj" in tensors:
        tensors["de_embedding_proj"] = Placement(tensors["embedding_proj"].tensor, "unembedding")
    return Layout(str(config.get("model_type", "unknown")), heads.query, heads.key_value, heads.width, tensors)


def heads_of(config: Mapping[str, Any]) -> Heads:
    """Head counts and width; PicoError if `config.json` does not tell them."""

    def first(*keys: str) -> int | None:
        return next((int(config[key]) for key in keys if config.get(key)), None)

    query, width = first("num_attention_heads", "n_head", "attention_n_heads"), first("hidden_size", "n_embd", "d_model")
    if query is None or width is None:
        raise PicoError("config.json does not tell the number of attention heads and the width", "it must be a language model's")
    key_value = first("num_key_value_heads", "attention_n_kv_heads") or query
    return Heads(query, key_value, first("head_dim") or width // query)


def _places(
    name: str, shape: Shape, config: Mapping[str, Any], heads: Heads, after_feed_forward: bool
) -> list[tuple[str, Placement]]:
    bare, _, kind = name.rpartition(".")
    match = BLOCK.match(bare)
    if match is None:
        plain, role = OUTSIDE.get(bare.rpartition(".")[2], (bare, "other"))
        return [_labelled(plain, name, role, kind)]
    layer, part = int(match[1]), match[2]
    fused = _fused(part, shape, config, heads)
    if fused:
        return [_labelled(join_name(layer, plain), name, role, kind, rows) for plain, role, rows in fused]
    plain, role = _part(part, shape, config, after_feed_forward)
    rotary = "halves" if _in_halves(part, config) else None
    return [_labelled(join_name(layer, plain), name, role, kind, rotary=rotary)]


def _labelled(
    plain: str, tensor: str, role: str, kind: str, rows: tuple[tuple[int, int], ...] | None = None, rotary: str | None = None
) -> tuple[str, Placement]:
    if kind == "weight":
        return plain, Placement(tensor, role, rows, rotary)
    return f"{plain}.{kind}", Placement(tensor, "bias" if kind == "bias" else "other", rows, rotary)


def _part(part: str, shape: Shape, config: Mapping[str, Any], after_feed_forward: bool) -> tuple[str, str]:
    """Plain part and role. What stands after attention is a norm of its output where another follows the feed-forward layer."""
    if part == "post_attention_layernorm":
        if after_feed_forward:
            return "attention_post_norm", "norm"
        return ("mlp_norm" if config.get("model_type") == "gpt_neox" else "swiglu_norm"), "norm"
    if part == "pre_feedforward_layernorm":
        return "swiglu_norm", "norm"
    if part == "post_feedforward_layernorm":
        return "swiglu_post_norm", "norm"
    known = PARTS.get(part)
    return known or (part, "norm" if len(shape) == 1 and "norm" in part else "other")


def _fused(
    part: str, shape: Shape, config: Mapping[str, Any], heads: Heads
) -> list[tuple[str, str, tuple[tuple[int, int], ...]]]:
    """(plain part, role, rows) of each part of a tensor that holds several; empty for any other."""
    width = heads.width
    if part == "attention.query_key_value" and config.get("model_type") == "gpt_neox":
        names = (("attention.q_proj", "query"), ("attention.k_proj", "key"), ("attention.v_proj", "value"))
        return [
            (name, role, tuple((start, start + width) for start in range(index * width, shape[0], 3 * width)))
            for index, (name, role) in enumerate(names)
        ]
    if part == "self_attn.qkv_proj":
        query, key_value = heads.query * width, heads.key_value * width
        ends = (query, query + key_value, query + 2 * key_value)
        names = (("attention.q_proj", "query"), ("attention.k_proj", "key"), ("attention.v_proj", "value"))
        return [(name, role, ((start, end),)) for (name, role), start, end in zip(names, (0, *ends), ends, strict=False)]
    if part == "mlp.gate_up_proj":
        half = shape[0] // 2
        return [("swiglu.w_0", "gate", ((0, half),)), ("swiglu.w_1", "up", ((half, shape[0]),))]
    return []


def _in_halves(part: str, config: Mapping[str, Any]) -> bool:
    """Whether rows of queries and keys are stored with the first coordinate of every rotary pair before the second ones."""
    if part not in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.q_norm", "self_attn.k_norm"):
        return False
    nested = config.get("rope_parameters") or config.get("rope_scaling") or {}
    share = nested.get("partial_rotary_factor", config.get("partial_rotary_factor", 1.0))
    rotary = bool(nested) or config.get("rope_theta") is not None or config.get("model_type") == "llama"
    return rotary and share == 1.0 and config.get("model_type") not in INTERLEAVED
