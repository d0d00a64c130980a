"""Is a series what its labels say? Finds the same weights under two steps, and steps that seem to have changed places."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from picolm.records.manifest import sealed_steps
from picolm.records.names import natural_order
from picolm.records.rundir import CheckpointFolder, RunDirectory
from picolm.records.source import read_source

SAMPLED_WEIGHTS = 16384
STRAIGHTER = 0.8
"""A stretch of steps is suspected if the path through the weights is shorter than this share of itself with it reversed. On a
random walk two neighbours that changed places give 0.71, on a straight line 0; in the right order it is above 1.4."""


def write_weight_sample(folder: Path, model: nn.Module) -> None:
    """Keep some weights, the same entries at every step of a series: enough to tell how far two steps are apart to 1 %."""
    named = dict(model.named_parameters())
    matrices = [named[name].detach() for name in sorted(named, key=natural_order) if named[name].ndim > 1]
    ends = torch.tensor([matrix.numel() for matrix in matrices]).cumsum(0)
    drawn_S = torch.randint(int(ends[-1]), (SAMPLED_WEIGHTS,), generator=torch.Generator().manual_seed(0)).sort().values
    pieces, start = [], 0
    for matrix, end in zip(matrices, ends.tolist(), strict=True):
        inside_S = drawn_S[(drawn_S >= start) & (drawn_S < end)] - start
        pieces.append(matrix.flatten()[inside_S.to(matrix.device)].float().cpu())
        start = end
    save_file({"sample": torch.cat(pieces)}, CheckpointFolder(folder).weight_sample)


def find_series_problems(run: RunDirectory) -> list[str]:
    """One sentence for each pair of steps with the same weights, and for each stretch of steps that seems out of order."""
    first_step: dict[tuple[str, ...], int] = {}
    samples: dict[int, Tensor] = {}
    problems = []
    for step in sealed_steps(run.checkpoints):
        folder = run.checkpoint(step)
        source = read_source(folder)
        if source is None:
            continue
        if source.identity in first_step:
            problems.append(f"step {step} has the same weights as step {first_step[source.identity]} (equal SHA-256)")
            continue
        first_step[source.identity] = step
        samples[step] = load_file(CheckpointFolder(folder).weight_sample)["sample"]
    same = {samples_key(sample): step for step, sample in reversed(samples.items())}
    for step, sample in list(samples.items()):
        twin = same[samples_key(sample)]
        if twin != step:
            problems.append(f"step {step} has the same sampled weights as step {twin}, in another file")
            del samples[step]
    return problems + find_disorder(samples)


def samples_key(sample: Tensor) -> bytes:
    """Equal for equal samples."""
    return sample.numpy().tobytes()


def find_disorder(samples: Mapping[int, Tensor]) -> list[str]:
    """Stretches of steps that, reversed, make the path through the weights much shorter: a hint, not a proof.

    Weights move away from where they were, so steps in the right order make a short path: d(i-1, i) + d(j, j+1) is less than
    d(i-1, j) + d(i, j+1) for every stretch i..j. Distances are between the sampled weights.
    """
    steps = sorted(samples)
    if len(steps) < 3:
        return []
    values_NS = torch.stack([samples[step].double() for step in steps])
    distance_NN = torch.cdist(values_NS, values_NS, compute_mode="donot_use_mm_for_euclid_dist")
    order = list(range(len(steps)))
    found: list[str] = []
    while len(found) < len(steps):
        share, start, end = _worst_stretch(distance_NN[order][:, order])
        if share >= STRAIGHTER:
            break
        stretch = [steps[place] for place in order[start : end + 1]]
        found.append(
            f"steps {', '.join(map(str, stretch))} seem out of order: in reverse, the weights take {share:.2f} of the way there"
        )
        order[start : end + 1] = reversed(order[start : end + 1])
    return found


def _worst_stretch(distance_NN: Tensor) -> tuple[float, int, int]:
    """(share of the way left if reversed, first, last) of the stretch whose reversal shortens the path most."""
    count = len(distance_NN)
    best = (1.0, 0, 0)
    for start in range(count - 1):
        for end in range(start + 1, count):
            if start == 0 and end == count - 1:
                continue
            before = start - 1 if start else None
            after = end + 1 if end + 1 < count else None
            as_is = _way(distance_NN, before, start) + _way(distance_NN, end, after)
            reversed_way = _way(distance_NN, before, end) + _way(distance_NN, start, after)
            share = reversed_way / as_is if as_is > 0 else 1.0
            best = min(best, (share, start, end))
    return best


def _way(distance_NN: Tensor, first: int | None, second: int | None) -> float:
    return 0.0 if first is None or second is None else float(distance_NN[first, second])


def labelled_step_problem(folder: Path, step: int) -> str | None:
    """A sentence if the folder's own `trainer_state.json` names another step."""
    path = folder / "trainer_state.json"
    try:
        stated = json.loads(path.read_text(encoding="utf-8")).get("global_step") if path.is_file() else None
    except (ValueError, OSError, AttributeError):
        return f"{path} cannot be read"
    if stated is None or stated == step:
        return None
    return f"step {step}: its trainer_state.json says global_step {stated}"
