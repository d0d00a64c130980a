"""The usual way: each metric alone, circuits multiplied out, full decompositions in float32, torch as it comes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from picolm.records.rundir import RunDirectory
from picolm.records.snapshot import Snapshot, open_snapshot

Key = tuple[object, ...]
"""(component, name or head, data type, metric)."""


def gini(matrix: Tensor) -> float:
    ascending = torch.sort(matrix.abs().flatten()).values
    count = ascending.numel()
    rank = torch.arange(1, count + 1, dtype=torch.float32)
    return float(((2 * rank - count - 1) * ascending).sum() / (count * ascending.sum()))


def hoyer(matrix: Tensor) -> float:
    root = matrix.numel() ** 0.5
    return float((root - matrix.abs().sum() / matrix.norm()) / (root - 1))


def per(matrix: Tensor) -> float:
    sigma = torch.linalg.svdvals(matrix)
    share = sigma / sigma.sum()
    return float(torch.special.entr(share).sum().exp() / sigma.numel())


def condition_number(matrix: Tensor) -> float:
    sigma = torch.linalg.svdvals(matrix)
    return float(sigma[0] / sigma[-1])


def cka(x: Tensor, y: Tensor) -> float:
    x, y = x - x.mean(0), y - y.mean(0)
    return float((x.T @ y).norm() ** 2 / ((x.T @ x).norm() * (y.T @ y).norm()))


def pwcca(x: Tensor, y: Tensor) -> float:
    x, y = x - x.mean(0), y - y.mean(0)
    bases = []
    for side in (x, y):
        left, sigma, _ = torch.linalg.svd(side, full_matrices=False)
        bases.append(left[:, sigma > max(side.shape) * 2.0**-23 * sigma[0]])
    overlap = bases[0].T @ bases[1]
    try:
        left, correlations, right = torch.linalg.svd(overlap, full_matrices=False)
    except torch.linalg.LinAlgError:  # in float32 it does not always converge: scripts then take float64
        left, correlations, right = (each.float() for each in torch.linalg.svd(overlap.double(), full_matrices=False))
    from_x = bases[0].shape[1] <= bases[1].shape[1]
    directions = bases[0] @ left if from_x else bases[1] @ right.T
    weights = (directions.T @ (x if from_x else y)).abs().sum(1)
    return float((weights * correlations).sum() / weights.sum())


SPARSITY: dict[str, Callable[[Tensor], float]] = {"gini": gini, "hoyer": hoyer}
NORMS: dict[str, Callable[[Tensor], float]] = {
    "norm frobenius": lambda matrix: float(torch.linalg.matrix_norm(matrix, "fro")),
    "norm nuclear": lambda matrix: float(torch.linalg.matrix_norm(matrix, "nuc")),
    "norm inf": lambda matrix: float(torch.linalg.matrix_norm(matrix, float("inf"))),
}
OF_ONE = {**SPARSITY, **NORMS, "per": per, "condition_number": condition_number}
OF_TWO = {"cka": cka, "pwcca": pwcca}


def measure_all(run: RunDirectory) -> dict[tuple[int, Key], float]:
    """Every value of Table 5 on simple and OV components, of every step."""
    steps = run.steps()
    snapshots = {step: {split: open_snapshot(run.checkpoint(step), step, split) for split in ("train", "val")} for step in steps}
    values: dict[tuple[int, Key], float] = {}
    for step in steps:
        for data_type, split in (("weights", "val"), ("gradients", "train"), ("activations", "val")):
            for names in (simple_names(snapshots[step][split]), circuit_names(snapshots[step][split])):
                for key, compose in names:
                    for metric, function in OF_ONE.items():
                        if metric == "per" and data_type == "activations":
                            continue
                        matrix = compose(snapshots[step][split], data_type)
                        values[step, (*key, data_type, metric)] = function(matrix)
                    if data_type != "activations":
                        continue
                    for metric, compare in OF_TWO.items():
                        pair = [compose(snapshots[each][split], data_type) for each in (step, steps[-1])]
                        values[step, (*key, data_type, metric)] = compare(*pair)
    return values


def simple_names(snapshot: Snapshot) -> list[tuple[tuple, Callable[[Snapshot, str], Tensor]]]:
    return [(("simple", name), lambda snapshot, kind, name=name: snapshot.tensors(kind)[name]) for name in snapshot.weights]


def circuit_names(snapshot: Snapshot) -> list[tuple[tuple, Callable[[Snapshot, str], Tensor]]]:
    layers = sorted({int(name.split(".")[1]) for name in snapshot.weights})
    places = [(layer, head) for layer in layers for head in range(snapshot.layout.query_heads)]
    return [
        (
            (f"ov_circuit layers.{layer}", head),
            lambda snapshot, kind, layer=layer, head=head: circuit(snapshot, kind, layer, head),
        )
        for layer, head in places
    ]


def circuit(snapshot: Snapshot, kind: str, layer: int, head: int) -> Tensor:
    """W_O W_V of a head, what it writes, or its first-order motion, multiplied out."""
    value_name, output_name = f"layers.{layer}.attention.v_proj", f"layers.{layer}.attention.o_proj"
    width = snapshot.layout.head_width
    group = head * snapshot.layout.key_value_heads // snapshot.layout.query_heads
    rows, columns = slice(group * width, (group + 1) * width), slice(head * width, (head + 1) * width)
    output = snapshot.weights[output_name][:, columns]
    if kind == "activations":
        return snapshot.activations[value_name][:, rows] @ output.T
    value = snapshot.weights[value_name][rows]
    if kind == "weights":
        return output @ value
    return output @ snapshot.gradients[value_name][rows] + snapshot.gradients[output_name][:, columns] @ value


def singular_values_of_circuits(run: RunDirectory) -> list[Tensor]:
    """Singular values of the OV circuits of every step."""
    found = []
    for step in run.steps():
        snapshot = open_snapshot(run.checkpoint(step), step, "val")
        found += [torch.linalg.svdvals(compose(snapshot, "weights")) for _, compose in circuit_names(snapshot)]
    return found
