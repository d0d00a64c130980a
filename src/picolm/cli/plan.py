"""`pico plan`: what a run will cost, before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from picolm.train.config import RunConfig
    from picolm.train.plan import RunPlan


def plan(
    config: Annotated[Path, typer.Argument(help="Training file (YAML).")],
    settings: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override any setting.")] = None,
    speed: Annotated[
        float | None, typer.Option(min=1e-9, metavar="TOKENS", help="Tokens per second over all devices, for the time.")
    ] = None,
    measure: Annotated[bool, typer.Option("--measure", help="Measure the speed of one device here, on random tokens.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """Say what a run will cost: parameters, operations, memory, disk and time."""
    import json
    from dataclasses import asdict

    from picolm.cli.console import say, say_next
    from picolm.train.config import load_config
    from picolm.train.plan import plan_run

    loaded = load_config(config, settings or [])
    planned = plan_run(loaded)
    rate = _measured(loaded, planned) if measure else speed
    hours = None if rate is None else planned.hours(rate)
    if as_json:
        facts = {**asdict(planned), "tokens_per_second": rate, "hours": hours}
        typer.echo(json.dumps(facts, indent=1))
        return
    for line in lines(planned, rate, hours):
        typer.echo(line)
    for note in planned.notes:
        say(f"note: {note}")
    if rate is None:
        say("note: for the time give --speed TOKENS_PER_SECOND, or --measure")
    say_next(f"pico train {config}" + "".join(f" --set {setting}" for setting in settings or []))


def _measured(config: RunConfig[Any], planned: RunPlan) -> float:
    """Tokens per second of all devices, if each is as fast as the one here."""
    from picolm.train.methods.plain import Plain
    from picolm.train.setup import build_fabric, loss_scale_of
    from picolm.train.speed import measure_tokens_per_second

    devices = config.training.fabric.num_devices * config.training.fabric.num_nodes
    one = config.training.fabric.model_copy(update={"num_devices": 1, "num_nodes": 1})
    alone = config.model_copy(update={"training": config.training.model_copy(update={"fabric": one})})
    row_tokens = planned.tokens_per_step // config.data.dataloader.batch_size
    return devices * measure_tokens_per_second(config, build_fabric(alone, Plain(), loss_scale_of(config)), row_tokens=row_tokens)


def lines(planned: RunPlan, rate: float | None, hours: float | None) -> list[str]:
    """The plan as text."""
    from picolm.train.plan import in_bytes, shortened

    parameters, flops, memory = planned.parameters, planned.flops_per_token, planned.memory
    checkpoint, steps = planned.checkpoint, planned.checkpoint_steps
    shown = [
        f"parameters          {sum(parameters.values()):>16,}   {_shares(parameters)}",
        f"FLOPs per token     {sum(flops.values()):>16,.0f}   {_shares(flops)}",
        f"tokens              {planned.tokens:>16,}   {planned.tokens_per_step:,} a step",
        f"memory per device   {in_bytes(sum(memory.values())):>16}   "
        + ", ".join(f"{part} {in_bytes(size)}" for part, size in memory.items() if size),
        f"checkpoint          {in_bytes(checkpoint.total):>16}   weights {in_bytes(checkpoint.weights)}, training state "
        f"{in_bytes(checkpoint.training_state)}, learning dynamics {in_bytes(checkpoint.learning_dynamics)}",
        f"all checkpoints     {in_bytes(planned.disk_bytes):>16}   {len(steps)} steps: {shortened(steps)}",
    ]
    if rate is not None and hours is not None:
        shown.append(f"time                {_duration(hours):>16}   at {rate:,.0f} tokens/s, without evaluation")
    return shown


def _shares(parts: dict[str, Any]) -> str:
    whole = sum(parts.values())
    return ", ".join(f"{part} {value / whole:.0%}" for part, value in parts.items() if value)


def _duration(hours: float) -> str:
    if hours < 1:
        return f"{hours * 60:.1f} minutes"
    return f"{hours:,.1f} hours"
