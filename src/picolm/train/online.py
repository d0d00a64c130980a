"""Analysis inside the loop: the same metrics on the same components, every n steps, without storing a tensor.

What `observation` saw of a step becomes a snapshot in memory; the analysis room measures it; rows land in the same table as those
of `pico analyze`, and agree with them.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import astuple, dataclass, fields, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from picolm.analyze.config import AnalysisConfig, load_analysis
from picolm.analyze.measure import measure_tasks, tasks_of_step
from picolm.analyze.partners import Partners
from picolm.analyze.plan import Plan, plan_analysis, without_moving_partners
from picolm.analyze.source import FolderSource, Step, open_source
from picolm.base.config import identity_hash
from picolm.base.errors import PicoError
from picolm.capture.plan import CapturePlan, plan_capture
from picolm.capture.recorder import Recorder
from picolm.capture.writer import snapshot_info
from picolm.records import durable, table
from picolm.records.rundir import CheckpointFolder
from picolm.records.snapshot import OPTIONAL, Snapshot, TensorFile, missing_reason
from picolm.train.observation import Observed, ValBatch

if TYPE_CHECKING:
    from picolm.train.run import Parts

FLUSH_SECONDS = 30.0
FLUSH_ROWS = 20_000


@dataclass(frozen=True)
class MemorySource:
    """The run as far as it is in memory, and behind that as far as it is sealed."""

    sealed: FolderSource
    kept: dict[int, Step]

    @property
    def name(self) -> str:
        return self.sealed.name

    @property
    def last_step(self) -> int | None:
        return None

    def steps(self) -> list[int]:
        return sorted({*self.kept, *self.sealed.steps()})

    def open_step(self, number: int) -> Step:
        return self.kept[number] if number in self.kept else self.sealed.open_step(number)

    def analysis(self, name: str) -> Path:
        return self.sealed.analysis(name)


class OnlineAnalysis:
    """Measures the steps that are due. Only the first process measures; the others hand over what they saw."""

    def __init__(self, parts: Parts, config: AnalysisConfig, plan: Plan, capture_plan: CapturePlan, val: ValBatch | None) -> None:
        self._parts = parts
        self._plan = plan
        self._val = val
        self._every = parts.config.training.online_analysis.every
        self._config = config
        self._steps = online_steps(config, self._every, parts.config.training.max_steps)
        self._folder = parts.directory.analysis(config.analysis_name)
        self._source = MemorySource(FolderSource(parts.directory), {})
        self._open_run = cache(lambda path: open_source(Path(path)))
        self._rows: list[table.Row] = []
        self._known: dict[str, set[Any]] | None = None
        self._flushed = time.monotonic()
        self._weights: dict[str, Tensor] = {}
        self._position = (0, 0)
        self._described = tempfile.TemporaryDirectory(prefix="pico-online-")
        durable.write_json(CheckpointFolder(Path(self._described.name)).model_config, parts.model.hf_config())
        self.capture_plan = capture_plan
        """What has to be seen of a step."""
        self.reads_val = any(
            view.split == "val" and set(view.component.reads) != {"weights"}
            for view in (group[0].view for group in plan.by_view.values())
        )

    def is_due(self, step: int) -> bool:
        """Whether this step is measured."""
        return step % self._every == 0 and self._config.chooses(step)

    def begin(self, step: int, tokens: int) -> None:
        """Before the update: keep a copy of the weights."""
        self._position = (step, tokens)
        if self._parts.fabric.is_global_zero:
            self._weights = {name: tensor.detach().to("cpu", copy=True) for name, tensor in self._plain_weights().items()}

    def measure(self, seen: Observed, applied: bool) -> None:
        """After the update: compute the rows of the step that are not there yet."""
        if not self._parts.fabric.is_global_zero:
            return
        step = self._step(seen, applied)
        partners = Partners(self._source, self._steps, self._open_run)
        with _as_if_offline():
            tasks = tasks_of_step(self._plan, step, partners)
            known = self._known_rows()["fingerprints"]
            missing = [task._replace(wanted=[pair for pair in task.wanted if pair[1] not in known]) for task in tasks]
            for rows in measure_tasks([task for task in missing if task.wanted], step, partners):
                self._rows += [row for row in rows if self._is_news(row)]
        self._keep(step)
        if len(self._rows) > FLUSH_ROWS or time.monotonic() - self._flushed > FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Put what was measured on disk: before a checkpoint is sealed, because a resumed run measures only what comes after."""
        rows, self._rows = self._rows, []
        self._flushed = time.monotonic()
        table.append_rows(self._folder, rows)

    def close(self) -> None:
        """Put what is left on disk."""
        self.flush()
        self._described.cleanup()

    def _plain_weights(self) -> dict[str, Tensor]:
        """Plain name -> tensor; a tied head goes by its own name, too."""
        named = dict(self._parts.model.named_parameters(remove_duplicate=False))
        plain = self._parts.plain_tensors
        weights = {name: tensor.to(plain[name].dtype) for name, tensor in self._parts.effective_tensors.items()}
        for name in self._parts.model.layout().tensors.keys() - weights.keys():
            parameter = named.get(f"{name}.weight", named.get(name))
            if parameter is not None:
                weights[name] = parameter
        return weights

    def _step(self, seen: Observed, applied: bool) -> Step:
        """What was seen, as the analysis sees a step of a run folder."""
        number, tokens = self._position
        identity = self._parts.directory.identity()
        stamp = ["online", identity_hash(self._parts.config), str(number)]
        snapshots = {
            "train": self._snapshot("train", seen.train, applied),
            "val": self._snapshot("val", seen.val, False),
        }
        return Step(
            run=self._source.name,
            step=number,
            snapshot=lambda split: snapshots[split or "val"],
            hashes=lambda split, data_types: [*stamp, split, *data_types],
            verify=lambda data_types: None,
            variant=str(identity.get("variant") or ""),
            seed=identity.get("seed"),
            tokens=tokens,
        )

    def _snapshot(self, split: str, recorder: Recorder | None, applied: bool) -> Snapshot:
        seen = {} if recorder is None else recorder.tensors()
        info = {} if recorder is None else self._info(split, recorder, applied)

        def captured(data_type: str) -> TensorFile:
            return _in_memory(seen.get(data_type, {}), missing_reason(data_type, split, info))

        return Snapshot(
            step=self._position[0],
            split=split,
            layout=self._parts.model.layout(),
            weights=_in_memory(self._weights, "there are no weights"),
            activations=captured("activations"),
            gradients=captured("gradients"),
            updates=captured("updates"),
            info=info,
            folder=CheckpointFolder(Path(self._described.name)),
            optional={data_type: captured(data_type) for data_type in OPTIONAL},
        )

    def _info(self, split: str, recorder: Recorder, applied: bool) -> dict[str, Any]:
        step, tokens = self._position
        loader = self._parts.whole_loader
        shape = (loader.batch_sequences, loader.row_length)
        if split == "val" and self._val is not None:
            shape = (self._val.batch.tokens.shape[0], self._val.batch.tokens.shape[1])
        return snapshot_info(recorder, split=split, step=step, training_tokens=tokens, batch_shape=shape, applied=applied)

    def _keep(self, step: Step) -> None:
        """Keep a step as long as later ones are compared with it."""
        partners = [each.partner for each in self._plan.measurements if each.partner is not None]
        fixed = {partner.step for partner in partners if partner.kind == "fixed" and partner.run is None}
        follows = any(partner.kind == "previous" for partner in partners)
        for number in [number for number in self._source.kept if number not in fixed]:
            del self._source.kept[number]
        if follows or step.step in fixed:
            self._source.kept[step.step] = step
        self._weights = {}

    def _known_rows(self) -> dict[str, set[Any]]:
        """Fingerprints of the rows that exist, and the keys of those that have a value; read once."""
        if self._known is None:
            rows = table.read_rows(self._folder)
            defined = rows[rows["value"].notna()]
            keys = defined[list(table.KEY)].astype(str).itertuples(index=False, name=None)
            self._known = {"fingerprints": set(rows["fingerprint"]), "keys": set(keys)}
        return self._known

    def _is_news(self, row: table.Row) -> bool:
        """Whether the row says more than is known: what was compared with may be gone since the run was interrupted."""
        if row.value is not None:
            return True
        values = dict(zip((column.name for column in fields(row)), astuple(row), strict=True))
        key = tuple("<NA>" if values[name] is None else str(values[name]) for name in table.KEY)
        return key not in self._known_rows()["keys"]


def build_online(parts: Parts, val: ValBatch | None) -> OnlineAnalysis | None:
    """The analysis that `training.online_analysis` names; None if it names none. PicoError for one that cannot be done online."""
    asked = parts.config.training.online_analysis
    if asked.file is None:
        return None
    setting = f"training.online_analysis.file = {asked.file!r}"
    config = load_analysis(asked.file)
    steps = online_steps(config, asked.every, parts.config.training.max_steps)
    if not steps:
        raise PicoError(f"{setting}: none of its steps is a multiple of {asked.every}", "change `every`, or `steps` in the file")
    plan = without_moving_partners(plan_analysis(config, steps))
    if not plan.by_view:
        raise PicoError(
            f"{setting}: all its metrics compare with the last step, which is only known at the end",
            "give them `compare_with: first` or `previous`, or run `pico analyze` afterwards",
        )
    for measurement in plan.measurements:
        wanted = None if measurement.partner is None or measurement.partner.run is not None else measurement.partner.step
        if wanted is not None and wanted not in steps and wanted not in parts.config.checkpoint_steps:
            raise PicoError(
                f"{setting}: step {wanted} is compared with, but neither measured nor kept", "add it to the checkpoints"
            )
    online = OnlineAnalysis(parts, config, plan, _capture_plan(parts, plan), val)
    if online.reads_val and val is None:
        raise PicoError(
            f"{setting} measures split val, and there is no val batch",
            "set checkpointing.learning_dynamics.eval_data, or `data_split: train` in the file",
        )
    return online


def online_steps(config: AnalysisConfig, every: int, max_steps: int) -> list[int]:
    """The steps that are measured, ascending."""
    return [step for step in range(0, max_steps + 1, every) if config.chooses(step)]


def _capture_plan(parts: Parts, plan: Plan) -> CapturePlan:
    """The layers and positions of the snapshots; what is captured only if asked for, only if it is read."""
    config = parts.config
    whole = plan_capture(
        config.checkpointing.learning_dynamics,
        model=parts.model,
        plain_names=list(parts.plain_tensors),
        tokens_per_sequence=parts.loader.row_length - 1,
        seed=config.training.seeds.capture,
        layout=parts.model.layout(),
    )
    reads = {data_type for group in plan.by_view.values() for data_type in group[0].view.component.reads}
    circuits = whole.circuits if "ov_gradients" in reads else ()
    return replace(whole, circuits=circuits, moments=whole.moments and "momentum" in reads)


def _in_memory(tensors: Mapping[str, Tensor], reason: str) -> TensorFile:
    readers: dict[str, Callable[[], Tensor]] = {name: partial(_same, tensor) for name, tensor in tensors.items()}
    return TensorFile(readers, reason)


def _same(tensor: Tensor) -> Tensor:
    return tensor


@contextmanager
def _as_if_offline() -> Iterator[None]:
    """Measure as in a process of its own: random state put back, no gradients, torch's usual default type."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with torch.random.fork_rng(), torch.no_grad():
            yield
    finally:
        torch.set_default_dtype(before)
