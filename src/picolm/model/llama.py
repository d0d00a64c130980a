"""The decoder as a Hugging Face Llama: the names, the settings, the order of rows. Both ways.

With normalised queries and keys it is a Qwen3 instead, which is Llama with just that.

The decoder rotates adjacent pairs of coordinates, Llama rotates halves, so within each head the rows of q and k are stored
even ones first, then odd ones. `rope_theta` is written twice: transformers 5 reads the nested one, 4 the top-level one,
and each silently takes 10000 if it finds only the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from picolm.model.foreign import common_entries, refuse_unless, required, rope_theta
from picolm.records.snapshot import Layout, Placement

if TYPE_CHECKING:
    from picolm.model.decoder import DecoderConfig

PARTS = {
    "attention_norm": ("input_layernorm", "norm"),
    "attention.q_proj": ("self_attn.q_proj", "query"),
    "attention.k_proj": ("self_attn.k_proj", "key"),
    "attention.v_proj": ("self_attn.v_proj", "value"),
    "attention.o_proj": ("self_attn.o_proj", "output"),
    "swiglu_norm": ("post_attention_layernorm", "norm"),
    "swiglu.w_0": ("mlp.gate_proj", "gate"),
    "swiglu.w_1": ("mlp.up_proj", "up"),
    "swiglu.w_2": ("mlp.down_proj", "down"),
}
"""Part of a block -> (Llama's name for it, role)."""

QK_NORMS = {"attention.q_norm": ("self_attn.q_norm", "norm"), "attention.k_norm": ("self_attn.k_norm", "norm")}
"""What Qwen3 has beside: one weight per coordinate of a head, in the order of the rows it scales."""


def llama_layout(config: DecoderConfig) -> Layout:
    """Where each plain tensor of a decoder is stored in a Llama file."""
    tensors = {"embedding_proj": Placement("model.embed_tokens.weight", "embedding")}
    parts = {**PARTS, **QK_NORMS} if config.qk_norm else PARTS
    for layer in range(config.n_layers):
        for part, (stored, role) in parts.items():
            rotary = "halves" if role in ("query", "key") or part in QK_NORMS else None
            tensors[f"layers.{layer}.{part}"] = Placement(f"model.layers.{layer}.{stored}.weight", role, rotary=rotary)
    tensors["output_norm"] = Placement("model.norm.weight", "norm")
    head = "model.embed_tokens.weight" if config.tied_embeddings else "lm_head.weight"
    tensors["de_embedding_proj"] = Placement(head, "unembedding")
    return Layout("pico_decoder", config.attention_n_heads, config.key_value_heads, config.width_of_head, tensors)


def llama_config(config: DecoderConfig) -> dict[str, Any]:
    """The decoder's settings as the `config.json` of a `LlamaForCausalLM` or, with normalised queries, a `Qwen3ForCausalLM`."""
    kind = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "mlp_bias": False}
    if config.qk_norm:
        kind = {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "use_sliding_window": False, "sliding_window": None}
    return {
        **kind,
        **common_entries(config, config.position_emb_theta),
        "hidden_size": config.d_model,
        "intermediate_size": config.activation_hidden_dim,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.attention_n_heads,
        "num_key_value_heads": config.key_value_heads,
        "head_dim": config.width_of_head,
        "hidden_act": "silu",
        "rms_norm_eps": config.norm_eps,
        "tie_word_embeddings": config.tied_embeddings,
        "attention_bias": False,
        "attention_dropout": 0.0,
    }


def settings_from_llama(content: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The decoder settings that a Llama `config.json` stands for; PicoError names what the decoder cannot express."""
    refuse_unless(content, "hidden_act", "silu", source)
    refuse_unless(content, "attention_bias", False, source)
    refuse_unless(content, "mlp_bias", False, source)
    refuse_unless(content, "use_sliding_window", False, source)
    heads = required(content, "num_attention_heads", source)
    width = required(content, "hidden_size", source)
    head_width = content.get("head_dim")
    return {
        "d_model": width,
        "n_layers": required(content, "num_hidden_layers", source),
        "vocab_size": required(content, "vocab_size", source),
        "max_seq_len": content.get("max_position_embeddings", 2048),
        "attention_n_heads": heads,
        "attention_n_kv_heads": content.get("num_key_value_heads") or heads,
        "head_width": None if head_width == width / heads else head_width,
        "activation_hidden_dim": required(content, "intermediate_size", source),
        "norm_eps": content.get("rms_norm_eps", 1e-6),
        "position_emb_theta": rope_theta(content, source),
        "tied_embeddings": content.get("tie_word_embeddings", False),
        "qk_norm": content["model_type"] == "qwen3",
    }
