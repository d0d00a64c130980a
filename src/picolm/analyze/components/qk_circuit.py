"""The query-key circuit of each query head: for what in the residual stream the head looks, at which distance."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import cache, partial

import torch
from torch import Tensor

from picolm.analyze.components.contract import Piece, component, read
from picolm.analyze.components.heads import by_layer, gain_before_attention, key_value_head
from picolm.analyze.matrix import Product
from picolm.base.errors import PicoError, Undefined
from picolm.records.names import join_name
from picolm.records.snapshot import Snapshot


@component(
    "qk_circuit",
    data_types=("weights", "updates", "first_order"),
    reads={"updates": ("weights", "updates"), "first_order": ("weights", "gradients")},
)
def qk_circuit(
    snapshot: Snapshot, data_type: str, *, offset: int = 0, bands: bool = False, fold_norm: bool = False
) -> Iterator[Piece]:
    """One matrix per query head: W_Qᵀ R(offset) W_K, (model width, model width), rank ≤ head width.

    x_tᵀ of it x_s / √(head width) is the attention score before softmax of a token t for a token s = t + `offset` (so
    look back with negative offsets); R rotates pair j of the head's coordinates by offset x base^(-2j / head width).
    `bands` splits it by pair: score = Σ_j cos(angle_j) C_j + sin(angle_j) S_j, parts `band_<j>.cos` and `band_<j>.sin`, of
    rank 2 each: fast bands (low j) see position, slow ones content. updates: how the step that was taken moved it;
    first_order: how a small gradient step would. Source: Elhage et al. (2021), Su et al. (2021).
    """
    if bands and offset:
        raise PicoError("qk_circuit: bands hold for every offset", "leave out offset")
    if fold_norm and data_type != "weights":
        raise PicoError("qk_circuit: fold_norm is defined for weights only", "remove fold_norm or take data_type: weights")
    layout = snapshot.layout
    queries = by_layer(layout, "*", "query", "qk_circuit")
    keys = by_layer(layout, "*", "key", "qk_circuit")
    for layer in sorted(queries.keys() & keys.keys()):
        stored = cache(lambda data_type, name: read(snapshot, data_type, name))
        gain = partial(gain_before_attention, snapshot, layer) if fold_norm else None
        note = NORMALISED if join_name(layer, "attention.q_norm") in layout.tensors else ""
        sides = partial(_sides, snapshot, stored, queries[layer], keys[layer], data_type, gain)
        for head in range(layout.query_heads):
            if not bands:
                yield Piece("qk_circuit", partial(_at_offset, snapshot, sides, head, offset), layer, head, note=note)
                continue
            for band in range(layout.head_width // 2):
                for wave in ("cos", "sin"):
                    yield Piece(f"band_{band}.{wave}", partial(_band, snapshot, sides, head, band, wave), layer, head, note=note)


NORMALISED = "queries and keys are normalised before their product, so scores are not this bilinear form"


def _sides(
    snapshot: Snapshot,
    stored: Callable[[str, str], Tensor],
    query_name: str,
    key_name: str,
    data_type: str,
    gain: Callable[[], Tensor] | None,
    head: int,
) -> tuple[Tensor, Tensor]:
    """(R, D) query rows and (R, D) key rows whose products, summed over R, make the circuit.

    For a change they are two blocks below each other: queries with changed keys, changed queries with keys.
    """
    width = snapshot.layout.head_width
    query_start, key_start = head * width, key_value_head(snapshot.layout, head) * width
    query_KD = stored("weights", query_name).narrow(0, query_start, width).double()
    key_KD = stored("weights", key_name).narrow(0, key_start, width).double()
    if data_type == "weights":
        return (query_KD, key_KD) if gain is None else (query_KD * gain(), key_KD * gain())
    source = "updates" if data_type == "updates" else "gradients"
    query_change_KD = stored(source, query_name).narrow(0, query_start, width).double()
    key_change_KD = stored(source, key_name).narrow(0, key_start, width).double()
    if data_type == "updates":
        key_KD = key_KD + key_change_KD
    return torch.cat([query_KD, query_change_KD]), torch.cat([key_change_KD, key_KD])


def _at_offset(snapshot: Snapshot, sides: Callable[[int], tuple[Tensor, Tensor]], head: int, offset: int) -> Product:
    query_RD, key_RD = sides(head)
    if offset:
        key_RD = rotated(key_RD, snapshot.layout.head_width, offset, rotary_base(snapshot))
    return Product(query_RD.T, key_RD)


def _band(snapshot: Snapshot, sides: Callable[[int], tuple[Tensor, Tensor]], head: int, band: int, wave: str) -> Product:
    """C_j = q_j k_jᵀ + q_j' k_j'ᵀ, S_j = q_j' k_jᵀ - q_j k_j'ᵀ, with q_j and q_j' the rows of pair j."""
    rotary_base(snapshot)  # undefined unless the pairs span the head
    width = snapshot.layout.head_width
    query_B2D, key_B2D = (side.reshape(-1, width, side.shape[1])[:, 2 * band : 2 * band + 2] for side in sides(head))
    if wave == "sin":
        query_B2D = torch.stack([query_B2D[:, 1], -query_B2D[:, 0]], dim=1)
    return Product(query_B2D.flatten(0, 1).T, key_B2D.flatten(0, 1))


def rotated(rows_RD: Tensor, head_width: int, offset: int, base: float) -> Tensor:
    """Rows of one or more heads, in adjacent pairs, each pair turned by its angle for this offset."""
    angle_P = offset * base ** (-torch.arange(0, head_width, 2, dtype=torch.float64) / head_width)
    cos_P1, sin_P1 = torch.cos(angle_P)[:, None], torch.sin(angle_P)[:, None]
    pairs = rows_RD.reshape(-1, head_width // 2, 2, rows_RD.shape[1])
    first, second = pairs[:, :, 0], pairs[:, :, 1]
    turned = torch.stack([first * cos_P1 - second * sin_P1, first * sin_P1 + second * cos_P1], dim=2)
    return turned.reshape(rows_RD.shape)


def rotary_base(snapshot: Snapshot) -> float:
    """Base of the rotary angles, from the checkpoint's configuration; Undefined where positions are not fully rotary."""
    path = snapshot.folder.model_config
    config = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    nested = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if (
        nested.get("rope_type", "default") != "default"
        or config.get("partial_rotary_factor", config.get("rotary_pct", 1.0)) != 1.0
    ):
        raise Undefined("only rotary positions over the whole head and without scaling are known here: take offset 0")
    for value in (config.get("rope_theta"), nested.get("rope_theta"), config.get("position_emb_theta")):
        if value is not None:
            return float(value)
    raise Undefined(f"{path.name} does not say the base of the rotary angles: take offset 0")
