"""Times every step of a short run that seals checkpoints with learning dynamics; `compare.py` calls it."""

from __future__ import annotations

import itertools
import json
import statistics
import sys
import time

import torch
from contenders import holds_a_model
from torch.optim.optimizer import register_optimizer_step_post_hook

from picolm.train.config import parse_config
from picolm.train.run import Silence
from picolm.train.train import run_training

STEPS, SEALED = 24, (8, 16)
"""Steps of the run, and those with a checkpoint that are counted (the first and the last are begun and ended differently)."""


def main(data: str, runs: str, model: str, threads: str) -> None:
    """Print the medians of ordinary steps and of steps with a checkpoint, and what a checkpoint costs in ordinary steps."""
    torch.set_num_threads(int(threads))
    times: list[float] = []
    register_optimizer_step_post_hook(lambda optimizer, *_: holds_a_model(optimizer) and times.append(time.perf_counter()))
    content = {
        "data": {"dataset": {"name": data}, "dataloader": {"batch_size": 4}},
        "model": {**json.loads(model), "max_seq_len": 512},
        "training": {
            "max_steps": STEPS,
            "optimization": {"lr": 3e-4, "gradient_accumulation_steps": 1},
            "fabric": {"precision": "32-true", "accelerator": "cpu"},
        },
        "checkpointing": {
            "runs_dir": runs,
            "run_name": "checkpoint",
            "steps": list(SEALED),
            "learning_dynamics": {"eval_data": data, "eval_sequences": 4},
        },
        "evaluation": {"metrics": None},
    }
    run_training(parse_config(content, "benchmark", default_name="checkpoint"), Silence())
    assert len(times) == STEPS
    # seconds[i]: from update i + 1 to update i + 2
    seconds = [after - before for before, after in itertools.pairwise(times)]
    # step N is copied before update N + 1 and sealed after it, so what it costs falls on both sides of that update
    beyond = [seconds[step - 1] + seconds[step] for step in SEALED]
    ordinary = statistics.median(seconds[step] for step in range(2, len(seconds)) if all(step not in (s - 1, s) for s in SEALED))
    extra = [both - 2 * ordinary for both in beyond]
    print(
        f"checkpoint with learning dynamics (train and val batch of 4 x 512): an ordinary step {ordinary:.2f} s; "
        f"each checkpoint adds {', '.join(f'{one / ordinary:.2f}' for one in extra)} ordinary steps (to reach: at most 2)"
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
