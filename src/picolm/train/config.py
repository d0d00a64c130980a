"""The training file: all sections joined, with the names and defaults of the paper's Table 3.

Each section's model lives beside the code it sets; here are those of the loop itself, and how a file becomes a
resolved configuration.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar, cast

import pydantic
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from picolm.base.config import OPERATIONAL, Settings, apply_overrides, parse_settings, read_yaml
from picolm.base.errors import PicoError
from picolm.base.registry import Named
from picolm.capture.plan import LearningDynamicsConfig
from picolm.data.contract import DataConfig
from picolm.evaluate.contract import EvaluationConfig
from picolm.model.contract import ModelConfig, find_architecture
from picolm.optim.contract import optimizer_options
from picolm.records.rundir import check_run_name
from picolm.train.steps import checkpoint_steps

M = TypeVar("M", bound=ModelConfig)


class SeedsConfig(Settings):
    """`training.seeds`: one named stream of random numbers per purpose. A single number sets all of them."""

    short_forms = ({"type": "integer", "minimum": 0},)

    init: NonNegativeInt = 42
    """Seed of the initial weights."""
    data: NonNegativeInt = 42
    """Seed of the data order, where the order is shuffled."""
    dropout: NonNegativeInt = 42
    """Seed of dropout and of everything else drawn inside a forward pass."""
    method: NonNegativeInt = 42
    """Seed of the training method's own choices."""
    capture: NonNegativeInt = 42
    """Seed of the choice of what is captured."""

    @pydantic.model_validator(mode="before")
    @classmethod
    def _one_number_for_all(cls, value: Any) -> Any:
        if isinstance(value, int) and not isinstance(value, bool):
            return dict.fromkeys(cls.model_fields, value)
        return value


class OptimizationConfig(Settings):
    """`training.optimization`: the update."""

    optimizer: Named = Named(name="adamw")
    """Optimiser by name, with its own options if any: `adamw`, or `{name: adamw, fused: false}`."""
    lr: PositiveFloat = 3e-4
    """Peak learning rate."""
    lr_scheduler: Named = Named(name="linear_with_warmup")
    """Schedule by name, with its own options if any: `cosine`, or `{name: wsd, decay_share: 0.1}`."""
    lr_warmup_steps: NonNegativeInt = 2500
    """Updates over which the learning rate rises from 0 to its peak."""
    gradient_accumulation_steps: Annotated[PositiveInt, OPERATIONAL] = 128
    """Micro-batches per update and device. Changes memory and speed, not the result."""
    betas: tuple[float, float] | None = None
    """Decay rates of AdamW's moments. Null: the optimiser's default, 0.9 and 0.999."""
    eps: PositiveFloat | None = None
    """Added to AdamW's denominator. Null: the optimiser's default, 1e-8."""
    weight_decay: NonNegativeFloat | None = None
    """Decoupled weight decay. Null: the optimiser's default, 0.01 for AdamW."""
    clip_norm: PositiveFloat | None = None
    """Largest norm of the gradient over all parameters; larger ones are scaled down. Null: no clipping."""


Precision = Literal["32-true", "bf16-mixed", "16-mixed", "64-true"]


class FabricConfig(Settings):
    """`training.fabric`: devices and precision."""

    num_nodes: Annotated[PositiveInt, OPERATIONAL] = 1
    """Machines the run spreads over."""
    num_devices: Annotated[PositiveInt, OPERATIONAL] = 1
    """Devices per machine."""
    precision: Precision = "bf16-mixed"
    """Arithmetic of the forward and backward pass; the weights stay in 32 bits. `16-mixed` is for GPUs that lack bfloat16."""
    accelerator: Annotated[Literal["auto", "cpu", "cuda", "mps", "gpu"], OPERATIONAL] = "auto"
    """Kind of device; `auto` takes a GPU if there is one."""


class OnlineAnalysisConfig(Settings):
    """`training.online_analysis`: metrics measured inside the loop, without storing tensors."""

    file: Annotated[str | None, OPERATIONAL] = None
    """Analysis file, as for `pico analyze`, or the name of one that comes along. Null: nothing is measured inside the loop."""
    every: Annotated[PositiveInt, OPERATIONAL] = 10
    """Updates between measurements."""


class TrainingConfig(Settings):
    """`training`: how long, with which method, on what."""

    max_steps: PositiveInt = 200_000
    """Updates in the whole run. Belongs to the identity: it sets the schedule's end."""
    method: Named = Named(name="plain")
    """Training method by name, with its options."""
    optimization: OptimizationConfig = OptimizationConfig()
    fabric: FabricConfig = FabricConfig()
    seeds: SeedsConfig = SeedsConfig()
    compile: Annotated[Literal["auto"] | pydantic.StrictBool, OPERATIONAL] = "auto"
    """Compile model and loss together for speed. `auto`: on CUDA. Evaluation and capture use the uncompiled module."""
    max_skipped_updates: Annotated[NonNegativeInt, OPERATIONAL] = 10
    """Updates that may be skipped because loss or gradient is not finite, before the run ends with an error."""
    deterministic: Annotated[bool, OPERATIONAL] = False
    """Use only deterministic kernels, which are slower. Bit-identical repeats need it on CUDA, and on a CPU if compiled."""
    online_analysis: OnlineAnalysisConfig = OnlineAnalysisConfig()


class HubCheckpointConfig(Settings):
    """`checkpointing.hf_checkpoint`: where checkpoints are published."""

    repo_id: Annotated[str, OPERATIONAL] = ""
    """Hub repository, `owner/name`."""
    collection_slug: Annotated[str | None, OPERATIONAL] = None
    """Hub collection that the repository is added to."""


class ResumeConfig(Settings):
    """`checkpointing.training`: what happens when the run exists already."""

    auto_resume: Annotated[bool, OPERATIONAL] = True
    """Continue an existing run from its newest checkpoint. False: an existing run is an error."""

    accept_data: Annotated[str | None, OPERATIONAL] = None
    """Fingerprint (its first 12 digits or more) of data that an existing run may continue with although it began with others: it
    then sees other tokens than a run that was not interrupted, which is recorded. Null: other data are an error."""


class EvaluationResultsConfig(Settings):
    """`checkpointing.evaluation`: accepted from files of the original."""

    eval_results_dir: Annotated[str, OPERATIONAL] = "eval_results"
    """Accepted, without effect: scores are in `evaluation/` of the run."""


class CheckpointingConfig(Settings):
    """`checkpointing`: what is kept of the run, and where."""

    run_name: Annotated[str | None, OPERATIONAL] = None
    """Name of the run and of its folder. Null: the file name of the configuration without its ending."""
    runs_dir: Annotated[str, OPERATIONAL] = "runs"
    """Folder that holds the runs."""
    save_every_n_steps: Annotated[PositiveInt, OPERATIONAL] = 1000
    """Updates between scheduled checkpoints, unless `steps` says which. Step 0 and the last are always kept."""
    steps: Annotated[tuple[NonNegativeInt, ...] | str | None, OPERATIONAL] = None
    """Which steps get a checkpoint: a list, or text such as `0,1,2,4..512,1000,2000..`. Null: `save_every_n_steps` decides."""
    formats: Annotated[tuple[Literal["huggingface", "pytorch"], ...], OPERATIONAL] = ("huggingface",)
    """`huggingface`: a folder that other tools open, always written. `pytorch`: also the decoder's own tensor names."""
    keep_training_states: Annotated[PositiveInt | None, OPERATIONAL] = None
    """Newest checkpoints that keep what a run continues from. Null: all. Weights and learning dynamics always stay."""
    save_to_hf: Annotated[bool, OPERATIONAL] = False
    """Whether checkpoints are queued for publication on the Hugging Face Hub."""
    hf_checkpoint: HubCheckpointConfig = HubCheckpointConfig()
    training: ResumeConfig = ResumeConfig()
    evaluation: EvaluationResultsConfig = EvaluationResultsConfig()
    learning_dynamics: LearningDynamicsConfig = LearningDynamicsConfig()
    checkpoints_dir: Annotated[str, OPERATIONAL] = "checkpoints"
    """Accepted, without effect: the run folder has one layout."""
    logs_dir: Annotated[str, OPERATIONAL] = "logs"
    """Accepted, without effect: the run folder has one layout."""
    fabric_checkpoint_dir: Annotated[str, OPERATIONAL] = "fabric_state"
    """Accepted, without effect: the training state is in `training_state/`."""
    fabric_checkpoint_filename: Annotated[str, OPERATIONAL] = "checkpoint.pt"
    """Accepted, without effect: nothing is pickled."""
    learning_dynamics_dir: Annotated[str, OPERATIONAL] = "learning_dynamics"
    """Accepted, without effect: the run folder has one layout."""


class LoggingConfig(Settings):
    """`monitoring.logging`."""

    log_level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], OPERATIONAL] = "INFO"
    """Least important message that is shown."""
    log_every_n_steps: Annotated[PositiveInt, OPERATIONAL] = 100
    """Updates between rows of `logs/train.jsonl`."""


class WandbConfig(Settings):
    """`monitoring.wandb`."""

    project: Annotated[str, OPERATIONAL] = ""
    """Weights & Biases project."""
    entity: Annotated[str, OPERATIONAL] = ""
    """Weights & Biases entity."""


class MonitoringConfig(Settings):
    """`monitoring`: what is told while the run goes on."""

    logging: LoggingConfig = LoggingConfig()
    tensorboard: Annotated[bool, OPERATIONAL] = False
    """Whether rows also go to TensorBoard (extra `tensorboard`), in the folder `tensorboard` of the run."""
    save_to_wandb: Annotated[bool, OPERATIONAL] = False
    """Whether rows also go to Weights & Biases (extra `wandb`); offline without a login."""
    wandb: WandbConfig = WandbConfig()


class RunConfig(Settings, Generic[M]):
    """A whole training file."""

    data: DataConfig = DataConfig()
    model: M
    training: TrainingConfig = TrainingConfig()
    checkpointing: CheckpointingConfig = CheckpointingConfig()
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig)
    monitoring: MonitoringConfig = MonitoringConfig()

    @property
    def run_name(self) -> str:
        """Name of the run; resolved configurations always have one."""
        assert self.checkpointing.run_name is not None
        return self.checkpointing.run_name

    @property
    def checkpoint_steps(self) -> list[int]:
        """Scheduled checkpoints, ascending, from 0 to `max_steps`."""
        kept = self.checkpointing
        return checkpoint_steps(kept.steps, kept.save_every_n_steps, self.training.max_steps)


def load_config(path: Path, overrides: Sequence[str] = ()) -> RunConfig[Any]:
    """The resolved configuration in a training file, with the overrides of the command line."""
    return parse_config(apply_overrides(read_yaml(path), overrides), str(path), default_name=path.stem)


def parse_config(content: dict[str, Any], source: str, *, default_name: str) -> RunConfig[Any]:
    """The resolved configuration in `content`; PicoError names what is wrong in `source`."""
    file_class = cast(type[RunConfig[Any]], RunConfig.__class_getitem__(_model_config_class(content, source)))
    return resolve(parse_settings(file_class, {"model": {}, **content}, source), source, default_name)


def _model_config_class(content: dict[str, Any], source: str) -> type[ModelConfig]:
    section = content.get("model") or {}
    if not isinstance(section, dict):
        raise PicoError(f"{source}: model = {section!r} is not a section", "write its settings below it, such as `d_model: 96`")
    architecture = str(section.get("model_type", "pico_decoder"))
    return find_architecture(architecture).config_class


def resolve(config: RunConfig[Any], source: str, default_name: str) -> RunConfig[Any]:
    """Write out what was left to be derived: the run's name and the optimiser's defaults; check what depends on two settings."""
    optimization = config.training.optimization
    shared = {key: getattr(optimization, key) for key in ("betas", "eps", "weight_decay")}
    options = optimizer_options(optimization.optimizer, shared, lr=optimization.lr)
    filled = {key: options[key] for key in shared if key in options}
    name = check_run_name(config.checkpointing.run_name or default_name)
    _check_batch(config, source)
    resolved = config.model_copy(
        update={
            "training": config.training.model_copy(update={"optimization": optimization.model_copy(update=filled)}),
            "checkpointing": config.checkpointing.model_copy(update={"run_name": name}),
        }
    )
    resolved.checkpoint_steps  # noqa: B018 - a wrong list of steps is an error now, not at the first checkpoint
    return resolved


def _check_batch(config: RunConfig[Any], source: str) -> None:
    batch = config.data.dataloader.batch_size
    fabric = config.training.fabric
    accumulation = config.training.optimization.gradient_accumulation_steps
    devices = fabric.num_devices * fabric.num_nodes
    if batch % (devices * accumulation):
        fitting = max((n for n in range(1, accumulation + 1) if batch % (devices * n) == 0), default=None)
        key = "training.optimization.gradient_accumulation_steps"
        hint = f"--set {key}={fitting}" if fitting else f"use a batch_size that is a multiple of {devices}"
        raise PicoError(
            f"{source}: data.dataloader.batch_size = {batch} does not divide over {devices} device(s) x {key} = {accumulation}",
            hint,
        )


def notes(config: Settings, prefix: str = "") -> list[str]:
    """One sentence for each setting that was given, is accepted, and has no effect."""
    found: list[str] = []
    for name in sorted(config.model_fields_set & type(config).model_fields.keys()):
        value = getattr(config, name)
        description = type(config).model_fields[name].description or ""
        if isinstance(value, Settings):
            found += notes(value, f"{prefix}{name}.")
        elif description.startswith("Accepted"):
            found.append(f"{prefix}{name}: {description}")
    return found
