"""The feed-forward path of each layer: hidden units, what each reads, what each writes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from picolm.analyze.components.contract import Piece, component, read
from picolm.analyze.components.heads import by_layer
from picolm.records.snapshot import Snapshot


@component("swiglu", data_types=("weights", "activations"))
def swiglu(snapshot: Snapshot, data_type: str) -> Iterator[Piece]:
    """Hidden units and neuron paths, for every layer.

    activations: part `hidden`, silu(gate) x up, (samples, hidden units), where the outputs of both were captured.
    weights: part `linear_path`, W_down W_up, (model width, model width), what the layer does while every gate is open
    equally; part `neuron_gains`, one row, for each unit |gate row| |up row| |down column|: its sparsity says whether few
    units carry the layer. The gains do not change when scale is moved between up and down. Source: Shazeer (2020).
    """
    rows = {role: by_layer(snapshot.layout, "*", role, "swiglu") for role in ("gate", "up", "down")}
    for layer in sorted(rows["gate"].keys() & rows["up"].keys() & rows["down"].keys()):
        names = {role: found[layer] for role, found in rows.items()}
        if data_type == "activations":
            yield Piece("hidden", partial(_hidden, snapshot, names["gate"], names["up"]), layer)
            continue
        yield Piece("linear_path", partial(_linear_path, snapshot, names["up"], names["down"]), layer)
        yield Piece("neuron_gains", partial(_neuron_gains, snapshot, names), layer)


def _hidden(snapshot: Snapshot, gate_name: str, up_name: str) -> Tensor:
    gate_SF = read(snapshot, "activations", gate_name).double()
    return torch.nn.functional.silu(gate_SF) * read(snapshot, "activations", up_name).double()


def _linear_path(snapshot: Snapshot, up_name: str, down_name: str) -> Tensor:
    down_DF, up_FD = (read(snapshot, "weights", name).double() for name in (down_name, up_name))
    return down_DF @ up_FD


def _neuron_gains(snapshot: Snapshot, names: dict[str, str]) -> Tensor:
    gate_FD, up_FD, down_DF = (read(snapshot, "weights", names[role]).double() for role in ("gate", "up", "down"))
    gains: Tensor = gate_FD.norm(dim=1) * up_FD.norm(dim=1) * down_DF.norm(dim=0)
    return gains
