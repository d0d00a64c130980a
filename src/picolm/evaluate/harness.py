"""Any task of lm-eval (extra `eval`) on the live model. lm-eval makes the prompts and the scores; the scorer does the work."""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import NonNegativeInt, PositiveInt

from picolm.base.errors import PicoError, suggestion
from picolm.evaluate.contract import EVALUATIONS, Evaluation, Given
from picolm.evaluate.scorer import Scorer
from picolm.records.evaluation import Score


@EVALUATIONS.register("lm_eval")
class LmEval(Evaluation):
    """Tasks of lm-eval by name, or from YAML files of one's own, with lm-eval's own measures."""

    def __init__(
        self,
        *,
        tasks: tuple[str, ...],
        num_fewshot: NonNegativeInt | None = None,
        limit: PositiveInt | None = None,
        include_path: str | None = None,
    ) -> None:
        """`tasks`: names of lm-eval's tasks, groups or tags, or paths of YAML files that define one; with paths only, its index
        of some 14,000 tasks is not read and nothing touches the network. `include_path`: folder with further definitions.

        `num_fewshot`: examples before each question; null: as the task says. `limit`: documents per task.
        """
        self._tasks = tuple(tasks)
        self._num_fewshot = num_fewshot
        self._limit = limit
        self._include_path = include_path
        self._manager: Any = None
        self._loaded: list[Any] = []
        self._provenance: dict[str, Any] = {}

    def check(self, given: Given) -> None:
        if given.tokenizer is None:
            raise PicoError(
                "lm-eval scores texts, for which the model's tokenizer is needed", "keep its tokenizer.json beside the model"
            )
        try:
            from lm_eval.tasks import TaskManager
        except ImportError as error:
            raise PicoError("lm-eval is not installed", "pip install 'picolm[eval]'") from error
        named = [task for task in self._tasks if not Path(task).is_file()]
        with _quiet():
            self._manager = TaskManager(include_path=self._include_path, include_defaults=bool(named) and not self._include_path)
            if unknown := [task for task in named if task not in self._manager.task_index]:
                hint = suggestion(unknown[0], self._manager.all_tasks)
                raise PicoError(f"tasks: lm-eval has no task `{unknown[0]}`", f"{hint} (or name a YAML file)")
            self._loaded = [item for task in self._tasks for item in self._load(task)]

    def run(self, scorer: Scorer) -> list[Score]:
        import lm_eval

        from picolm.evaluate.harness_model import ScorerModel

        with _quiet():
            results = lm_eval.simple_evaluate(
                ScorerModel(scorer),
                tasks=self._loaded,
                task_manager=self._manager,
                num_fewshot=self._num_fewshot,
                limit=self._limit,
                bootstrap_iters=100,
                random_seed=None,
                numpy_random_seed=None,
                torch_random_seed=None,
            )
        self._provenance = _provenance(results)
        return [score for task, values in results["results"].items() for score in _scores(task, values, results)]

    def settings(self, scorer: Scorer) -> dict[str, Any]:
        import importlib.metadata

        asked = {"tasks": list(self._tasks), "num_fewshot": self._num_fewshot, "limit": self._limit}
        return {**asked, "lm_eval": importlib.metadata.version("lm_eval"), **self._provenance}

    def _load(self, task: str) -> Sequence[Any]:
        try:
            loaded = self._manager.load([task])
        except Exception as error:  # whatever a task's own code and data raise: all of it means that it cannot run
            first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise PicoError(
                f"tasks: `{task}` cannot be loaded: {first_line}", "its data may need the network or a local path"
            ) from error
        return list(loaded["groups"].values()) or list(loaded["tasks"].values())


def _scores(task: str, values: dict[str, Any], results: dict[str, Any]) -> Iterator[Score]:
    counts = results.get("n-samples", {}).get(task, {})
    for key, value in values.items():
        measure, comma, _ = key.partition(",")
        if not comma or measure.endswith("_stderr") or not isinstance(value, int | float):
            continue
        error = values.get(key.replace(measure, f"{measure}_stderr", 1))
        known = float(error) if isinstance(error, int | float) else None
        yield Score("lm_eval", measure, float(value), f"task/{task}", known, counts.get("effective"))


_KEPT = ("doc_to_text", "doc_to_choice", "target_delimiter", "fewshot_delimiter", "num_fewshot", "output_type")


def _provenance(results: dict[str, Any]) -> dict[str, Any]:
    """By task: prompt format and delimiters, version, and a hash over the documents and prompts."""
    configs = {
        task: {key: value for key, value in config.items() if key in _KEPT and isinstance(value, str | int)}
        for task, config in results.get("configs", {}).items()
    }
    hashes = {task: _hash_of(samples) for task, samples in results.get("samples", {}).items()}
    return {"formats": configs, "versions": dict(results.get("versions", {})), "data_hash": hashes}


def _hash_of(samples: Sequence[dict[str, Any]]) -> str:
    in_order = sorted(samples, key=lambda sample: sample["doc_id"])
    text = "\n".join(f"{sample['doc_hash']} {sample['prompt_hash']}" for sample in in_order)
    return hashlib.sha256(text.encode()).hexdigest()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without lm-eval's log lines and progress bars."""
    logger = logging.getLogger("lm_eval")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.setLevel(before)
