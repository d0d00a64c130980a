"""Batches by arithmetic: a step number comes in, the tokens of that step leave. Resuming is one integer.

`train/loop` iterates `prefetched`; `pico data show --step N` and snapshots ask for single steps.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy

from picolm.base.errors import PicoError
from picolm.data.contract import AnnouncedRows, DataConfig, Rows, TokenRows, TokenSource
from picolm.data.order import IdentityOrder, PermutedOrder, RowOrder

if TYPE_CHECKING:
    import torch

LOOK_AHEAD_STEPS = 32
"""How many steps ahead the rows' shards are asked for."""


class StepBatch(NamedTuple):
    """The tokens of one step."""

    step: int
    tokens_BT: torch.Tensor


class BatchLoader:
    """Rows of any step, in the declared order: step `s` takes global rows `[s*B, (s+1)*B)`.

    `batch_sequences` is B, over all devices. Device `rank` of `world` gets the `rank`-th equal part of each step.
    """

    def __init__(
        self,
        rows: TokenRows,
        *,
        batch_sequences: int,
        seed: int,
        shuffle: bool = False,
        order: RowOrder | None = None,
        rank: int = 0,
        world: int = 1,
        prefetch_batches: int = 4,
        pin_memory: bool = False,
    ) -> None:
        if not rows.rows:
            raise PicoError("the training split has no rows", "prepare more text, or use shorter rows: --max-seq-len")
        if batch_sequences % world:
            raise PicoError(f"data.dataloader.batch_size = {batch_sequences} does not divide over {world} devices")
        self._rows = rows
        self._order = order or (PermutedOrder(rows.rows, seed) if shuffle else IdentityOrder(rows.rows))
        self._part = batch_sequences // world
        self._rank = rank
        self._prefetch_batches = prefetch_batches
        self._pin_memory = pin_memory
        self.batch_sequences = batch_sequences

    @property
    def row_length(self) -> int:
        """Tokens per row: one more than a row predicts."""
        return self._rows.row_length

    @property
    def fingerprint(self) -> str:
        """Stands for the rows, not for their order, which is settings."""
        return self._rows.fingerprint

    def rows_of_step(self, step: int) -> Rows:
        """Row numbers of a step, for this device, in batch order."""
        first = step * self.batch_sequences + self._rank * self._part
        return self._order.rows_at(numpy.arange(first, first + self._part, dtype=numpy.int64))

    def rows_of_micro_batch(self, step: int, number: int, micro_batches: int) -> Rows:
        """Row numbers of micro-batch `number` of a step: the step's rows, cut in equal parts."""
        if self._part % micro_batches:
            raise PicoError(f"{self._part} rows per device do not divide into {micro_batches} micro-batches")
        size = self._part // micro_batches
        return self.rows_of_step(step)[number * size : (number + 1) * size]

    def batch_of_step(self, step: int) -> torch.Tensor:
        """Tokens of a step, int64 (rows, row_length)."""
        import torch

        tokens_BT = torch.from_numpy(self._rows.read(self.rows_of_step(step)))
        return tokens_BT.pin_memory() if self._pin_memory else tokens_BT

    def prefetched(self, start: int, stop: int) -> Iterator[StepBatch]:
        """Batches of steps `start` to `stop - 1`; a background thread reads ahead. Errors of the thread are raised here."""
        ready: queue.Queue[StepBatch | BaseException] = queue.Queue(self._prefetch_batches)
        stopped = threading.Event()
        reader = threading.Thread(target=self._read_ahead, args=(start, stop, ready, stopped), name="picolm-data", daemon=True)
        reader.start()
        try:
            for _ in range(start, stop):
                item = ready.get()
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            stopped.set()
            reader.join()

    def _read_ahead(self, start: int, stop: int, ready: queue.Queue[StepBatch | BaseException], stopped: threading.Event) -> None:
        for step in range(start, stop):
            try:
                self._announce(step, start, stop)
                item: StepBatch | BaseException = StepBatch(step, self.batch_of_step(step))
            except BaseException as error:  # handed to the loop, which raises it
                item = error
            while not stopped.is_set():
                try:
                    ready.put(item, timeout=0.1)
                    break
                except queue.Full:
                    continue
            if stopped.is_set() or isinstance(item, BaseException):
                return

    def _announce(self, step: int, start: int, stop: int) -> None:
        if not isinstance(self._rows, AnnouncedRows) or (step - start) % LOOK_AHEAD_STEPS:
            return
        ahead = range(step, min(step + 2 * LOOK_AHEAD_STEPS, stop))
        self._rows.will_need(numpy.concatenate([self.rows_of_step(later) for later in ahead]))


def build_loader(
    config: DataConfig, source: TokenSource, *, seed: int, rank: int = 0, world: int = 1, pin_memory: bool = False
) -> BatchLoader:
    """The loader of the training split that the settings describe: order, mixture, part of this device."""
    from picolm.data.sources import order_of

    return BatchLoader(
        source.split("train"),
        batch_sequences=config.dataloader.batch_size,
        seed=seed,
        order=order_of(source, shuffle=config.dataloader.shuffle, seed=seed),
        rank=rank,
        world=world,
        prefetch_batches=config.dataloader.prefetch_batches,
        pin_memory=pin_memory,
    )
