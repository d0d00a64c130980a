from collections.abc import Iterator
from functools import partial

from torch import Tensor

from picolm.analyze.components.contract import Piece, component, read
from picolm.records.names import split_name
from picolm.records.snapshot import Snapshot


@component("head_outputs", data_types=("weights", "gradients", "updates"))
def head_outputs(snapshot: Snapshot, data_type: str) -> Iterator[Piece]:
    """What each head writes into the residual stream: its columns of the output projection, (model width, head width)."""
    layout = snapshot.layout
    for name in layout.names_with_role("output"):
        for head in range(layout.query_heads):
            layer, part = split_name(name)
            yield Piece(part, partial(_columns, snapshot, data_type, name, head), layer, head)


def _columns(snapshot: Snapshot, data_type: str, name: str, head: int) -> Tensor:
    width = snapshot.layout.head_width
    return read(snapshot, data_type, name)[:, head * width : (head + 1) * width]
