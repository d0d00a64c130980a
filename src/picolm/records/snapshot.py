"""Tensors of a checkpoint under their plain names, read on demand: weights through the layout, the rest as captured."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from picolm.base.errors import PicoError, suggestion
from picolm.records import durable
from picolm.records.names import natural_order
from picolm.records.rundir import CheckpointFolder
from picolm.records.source import WeightSource, read_source

if TYPE_CHECKING:
    import pandas
    from torch import Tensor

LAYOUT_FORMAT = "picolm.layout/1"

OPTIONAL = ("ov_gradients", "momentum", "second_moment")
"""Captured only if asked for: exact gradients of output-value circuits, `layers.<i>.ov_gradient` of shape (query heads, model
width, model width); the optimiser's two moments under the names and in the shapes of the gradients."""


@dataclass(frozen=True)
class Placement:
    """Where a plain tensor is stored and what it does."""

    tensor: str
    """Name in the safetensors file."""
    role: str
    """query, key, value, output, gate, up, down, embedding, unembedding, norm, bias, or other."""
    rows: tuple[tuple[int, int], ...] | None = None
    """Row ranges of the stored tensor that make the plain one, in order; None: all rows."""
    rotary: str | None = None
    """`halves`: within each head the stored rows are in rotate-halves order, the plain ones in adjacent pairs."""


@dataclass(frozen=True)
class Layout:
    """Plain name -> placement, with the head counts that split query, key, value and output into heads."""

    architecture: str
    query_heads: int
    key_value_heads: int
    head_width: int
    tensors: dict[str, Placement] = field(default_factory=dict)

    def names_with_role(self, role: str) -> list[str]:
        """Plain names of all tensors with a role, in natural order."""
        return sorted((name for name, place in self.tensors.items() if place.role == role), key=natural_order)


def write_layout(folder: Path, layout: Layout) -> None:
    """Write `layout.json` into a checkpoint folder."""
    durable.write_json(CheckpointFolder(folder).layout, {"format": LAYOUT_FORMAT, **asdict(layout)})


def read_layout(folder: Path) -> Layout:
    """The layout of a checkpoint folder; PicoError if it is missing or damaged."""
    path = CheckpointFolder(folder).layout
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.pop("format") != LAYOUT_FORMAT:
            raise PicoError(f"{path} has another format than {LAYOUT_FORMAT}", "it was written by another version of picolm")
        tensors = {name: _placement(**place) for name, place in content.pop("tensors").items()}
        return Layout(**content, tensors=tensors)
    except FileNotFoundError as error:
        raise PicoError(f"{folder} has no layout.json", "it says which stored tensor is which part of the model") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise PicoError(f"{path} is damaged: {error}") from error


def _placement(tensor: str, role: str, rows: list[list[int]] | None = None, rotary: str | None = None) -> Placement:
    ranges = None if rows is None else tuple((int(start), int(stop)) for start, stop in rows)
    return Placement(tensor, role, ranges, rotary)


def halves_to_adjacent(stored_OI: Tensor, head_width: int) -> Tensor:
    """Rows of every head from rotate-halves order (evens, then odds) to adjacent pairs. Works on (O, I) and (O,)."""
    heads = stored_OI.shape[0] // head_width
    by_half = stored_OI.reshape(heads, 2, head_width // 2, *stored_OI.shape[1:])
    return by_half.transpose(1, 2).reshape(stored_OI.shape)


def adjacent_to_halves(plain_OI: Tensor, head_width: int) -> Tensor:
    """Rows of every head from adjacent pairs to rotate-halves order: inverse of `halves_to_adjacent`."""
    heads = plain_OI.shape[0] // head_width
    by_pair = plain_OI.reshape(heads, head_width // 2, 2, *plain_OI.shape[1:])
    return by_pair.transpose(1, 2).reshape(plain_OI.shape)


class TensorFile(Mapping[str, "Tensor"]):
    """Plain name -> tensor, each read from disk when asked for; an empty one has a reason."""

    def __init__(self, names: Mapping[str, Callable[[], Tensor]], reason: str) -> None:
        self._names = dict(sorted(names.items(), key=lambda item: natural_order(item[0])))
        self._reason = reason

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._names:
            if not self._names:
                raise PicoError(f"there is no tensor `{name}`: {self._reason}")
            raise PicoError(f"there is no tensor `{name}` here", suggestion(name, self._names))
        return self._names[name]()

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    @property
    def reason(self) -> str:
        """Why there are no tensors, if there are none."""
        return "" if self._names else self._reason


@dataclass(frozen=True)
class Snapshot:
    """One split of one checkpoint: weights after N updates, and what was captured with them."""

    step: int
    split: str
    layout: Layout
    weights: TensorFile
    activations: TensorFile
    """(samples, width), output of the module with that name; which sample is which: `positions`."""
    gradients: TensorFile
    updates: TensorFile
    info: dict[str, Any]
    """Content of `<split>.json`: positions, token counts, whether the update was applied, dtypes."""
    folder: CheckpointFolder
    optional: Mapping[str, TensorFile] = field(default_factory=dict)
    """What is captured only if asked for: see `OPTIONAL`."""

    def tensors(self, data_type: str) -> TensorFile:
        """The tensors of a data type by its name."""
        always = {"weights": self.weights, "activations": self.activations, "gradients": self.gradients, "updates": self.updates}
        by_name = {**always, **self.optional}
        if data_type not in by_name:
            raise PicoError(f"data_type `{data_type}` is not stored in a snapshot", suggestion(data_type, by_name))
        return by_name[data_type]

    def batch(self) -> pandas.DataFrame:
        """The rows of the batch: `input_ids` and `text`."""
        import pandas

        return pandas.read_parquet(self.folder.dynamics_batch(self.split))


def open_snapshot(folder: Path, step: int, split: str) -> Snapshot:
    """The snapshot of one split in a checkpoint folder. Tensors are read when asked for."""
    checkpoint = CheckpointFolder(folder)
    info_file = checkpoint.dynamics_info(split)
    info = json.loads(info_file.read_text(encoding="utf-8")) if info_file.is_file() else {}
    layout = read_layout(folder)
    source = read_source(folder)
    return Snapshot(
        step=step,
        split=split,
        layout=layout,
        weights=open_weights(checkpoint.weights, layout) if source is None else open_source_weights(source, layout),
        activations=_captured(checkpoint, split, "activations", info),
        gradients=_captured(checkpoint, split, "gradients", info),
        updates=_captured(checkpoint, split, "updates", info),
        info=info,
        folder=checkpoint,
        optional={name: _captured(checkpoint, split, name, info) for name in OPTIONAL},
    )


def open_weights(path: Path, layout: Layout) -> TensorFile:
    """The weights in a safetensors file under their plain names."""
    stored = _open_safetensors(path)

    def reader(place: Placement) -> Callable[[], Tensor]:
        return lambda: plain_tensor(stored[place.tensor](), place, layout)

    names = {name: reader(place) for name, place in layout.tensors.items() if place.tensor in stored}
    return TensorFile(names, f"{path} does not exist")


def open_source_weights(source: WeightSource, layout: Layout) -> TensorFile:
    """The weights that a captured checkpoint points to, under their plain names; found when the first one is asked for."""

    @functools.cache
    def stored() -> dict[str, Callable[[], Tensor]]:
        return {name: reader for path in source.local_files() for name, reader in _open_safetensors(path).items()}

    def reader(place: Placement) -> Callable[[], Tensor]:
        return lambda: plain_tensor(stored()[place.tensor](), place, layout)

    return TensorFile({name: reader(place) for name, place in layout.tensors.items()}, f"{source.name} holds no weights")


def plain_tensor(stored: Tensor, place: Placement, layout: Layout) -> Tensor:
    """The plain tensor out of a stored one: row ranges joined, rotary order undone."""
    import torch

    if place.rows is not None:
        stored = torch.cat([stored[start:stop] for start, stop in place.rows])
    return halves_to_adjacent(stored, layout.head_width) if place.rotary == "halves" else stored


def _captured(checkpoint: CheckpointFolder, split: str, data_type: str, info: dict[str, Any]) -> TensorFile:
    path = checkpoint.dynamics_tensors(split, data_type)
    return TensorFile(_open_safetensors(path), missing_reason(data_type, split, info))


def missing_reason(data_type: str, split: str, info: dict[str, Any]) -> str:
    """Why there are no tensors of this type; `info`: what is known of the snapshot, empty if there is none."""
    if not info:
        return f"no learning dynamics of split {split} were captured at this step"
    if data_type == "updates" and info.get("applied") is False:
        return "no update was applied after this step: it is the last of the run"
    if data_type == "updates" and split == "val":
        return "the val batch is only observed: its gradients never update the weights"
    return f"{data_type} of split {split} were not captured at this step"


def _open_safetensors(path: Path) -> dict[str, Callable[[], Tensor]]:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        return {}
    try:
        file = safe_open(path, framework="pt")
        names = list(file.keys())  # type: ignore[no-untyped-call]
    except (SafetensorError, OSError) as error:
        raise PicoError(f"{path} is not a readable safetensors file: {error}") from error

    def reader(name: str) -> Callable[[], Tensor]:
        return lambda: file.get_tensor(name).clone()  # type: ignore[no-untyped-call]

    return {name: reader(name) for name in names}
