"""Runs lm-eval itself on a model in memory: its built-in task definitions, data from local files."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any


def built_in_task(yaml_file: str, data: Path, **changes: Any) -> Any:
    """A built-in task, defined by its own YAML file, reading a local JSONL file instead of the Hub."""
    import lm_eval
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.tasks import _yaml_loader

    path = Path(lm_eval.__file__).parent / "tasks" / yaml_file
    config = _yaml_loader.load_yaml(path, resolve_func=True)
    local = {"dataset_path": "json", "dataset_name": None, "dataset_kwargs": {"data_files": {"test": str(data)}}}
    splits = {"training_split": None, "validation_split": None, "test_split": "test"}
    return ConfigurableTask(config={**config, **local, **splits, **changes})


def wrapped(model: Any, tokenizer_file: Path, **settings: Any) -> Any:
    """lm-eval's own Hugging Face model around a module in memory."""
    from lm_eval.models.huggingface import HFLM
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(tokenizer_file), eos_token="<|endoftext|>")
    return HFLM(pretrained=model, tokenizer=tokenizer, batch_size=32, **settings)


def lm_eval_samples(model: Any, task: Any, limit: int | None = None) -> list[dict[str, Any]]:
    """What lm-eval found for each document, in order."""
    import lm_eval
    from lm_eval.tasks import TaskManager

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    with contextlib.redirect_stderr(io.StringIO()):
        results = lm_eval.simple_evaluate(
            model,
            tasks=[task],
            task_manager=TaskManager(include_defaults=False),  # reading its index of all tasks takes 12 s
            limit=limit,
            bootstrap_iters=0,
            log_samples=True,
        )
    (samples,) = results["samples"].values()
    return sorted(samples, key=lambda sample: sample["doc_id"])


def log_likelihoods(sample: dict[str, Any]) -> list[float]:
    """The summed log-probability of each request of a document."""
    first: Callable[[Any], float] = lambda response: float(response[0] if isinstance(response, list | tuple) else response)  # noqa: E731
    return [first(response[0]) for response in sample["resps"]]
