"""The `config.json` of other libraries: what every class of theirs has alike, and reading one without believing it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from picolm.base.errors import PicoError

if TYPE_CHECKING:
    from picolm.model.contract import ModelConfig


def common_entries(config: ModelConfig, theta: float, **rotary: float) -> dict[str, Any]:
    """What every `config.json` of a rotary model says alike. `rotary`: further rotary settings under the names of transformers 5.

    `theta` is written twice: transformers 5 reads the nested one, 4 the top-level one, and each silently takes 10000 if it
    finds only the other.
    """
    return {
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.max_seq_len,
        "rope_theta": theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": theta, **rotary},
        "torch_dtype": "float32",
        "bos_token_id": None,
        "eos_token_id": None,
    }


def rope_theta(content: Mapping[str, Any], source: str) -> float:
    """The rotary base of a `config.json`, from wherever it stands; scaled rotary embeddings are refused."""
    nested = content.get("rope_parameters") or content.get("rope_scaling") or {}
    if not isinstance(nested, Mapping):
        raise PicoError(f"{source}: rope_parameters is not an object")
    kind = nested.get("rope_type", nested.get("type", "default"))
    if kind != "default":
        raise PicoError(f"{source}: rope_type {str(kind)[:40]!r} is not supported", "only unscaled rotary embeddings are")
    stated = {value for value in (content.get("rope_theta"), nested.get("rope_theta")) if value is not None}
    if len(stated) > 1:
        raise PicoError(f"{source}: rope_theta stands there twice with different values")
    return float(next(iter(stated), 10000.0))


def required(content: Mapping[str, Any], key: str, source: str) -> Any:
    """The value of a key that a `config.json` must have."""
    if content.get(key) is None:
        raise PicoError(f"{source}: {key} must be given")
    return content[key]


def refuse_unless(content: Mapping[str, Any], key: str, allowed: Any, source: str) -> None:
    """PicoError if a key is there with a value the architecture cannot express."""
    value = content.get(key, allowed)
    if value != allowed:
        raise PicoError(f"{source}: {key} = {str(value)[:40]!r} is not supported", f"only {key} = {allowed!r} is")
