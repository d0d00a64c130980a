"""A study of a tiny decoder: two variants, a run in well under a second, and a back-end that needs no process."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.train.conftest import tiny_data

from picolm.records.studydir import StudyDirectory, open_study_directory
from picolm.study import worker
from picolm.study.executor import Ended, Job
from picolm.testing.tiny import merged, training_content

__all__ = ["tiny_data"]


class InThisProcess:
    """An executor that carries out a job when it is submitted."""

    def __init__(self, slots: int = 1) -> None:
        self.jobs: list[Job] = []
        self._ended: list[Ended] = []
        self._slots = slots
        self.before: Callable[[Job], None] = lambda _: None
        """Called with each job before it is carried out."""

    def slots(self) -> int:
        return self._slots

    def submit(self, job: Job) -> None:
        self.jobs.append(job)
        self.before(job)
        job.file.parent.mkdir(parents=True, exist_ok=True)
        job.file.write_text(json.dumps(job.payload | {"watch_parent": False}))
        self._ended.append(Ended(job.name, worker.main(job.file)))

    def poll(self) -> list[Ended]:
        ended, self._ended = self._ended, []
        return ended

    def stop(self, seconds: float) -> None:
        """Nothing runs."""

    @property
    def runs(self) -> list[str]:
        """Names of the runs carried out, in order."""
        return [cell["run"] for job in self.jobs for cell in job.payload["cells"]]


class Notes:
    """A `StudyObserver` that remembers."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.ends: list[tuple[str, str]] = []
        self.steps: list[int] = []
        self.totals: list[int] = []

    def begin(self, runs: int, steps: int) -> None:
        self.totals.append(steps)

    def advance(self, steps: int, running: Sequence[str]) -> None:
        self.steps.append(steps)

    def ended(self, run: str, status: str, reason: str, done: int, runs: int) -> None:
        self.ends.append((run, status))

    def say(self, sentence: str) -> None:
        self.said.append(sentence)


def study_content() -> dict[str, Any]:
    """The study file as a mapping; tests change what they are about."""
    return {
        "id": "tiny-study",
        "statement": "A tenth of the learning rate is worse.",
        "base": "tiny.yaml",
        "variants": {
            "usual": {"role": "baseline"},
            "slow": {"role": "treatment", "set": {"training.optimization.lr": "x0.1"}},
        },
        "seeds": {"tuning": [91, 92], "confirm": [1, 2, 3, 4, 5, 6]},
        "measures": {"loss": {"series": "train.loss", "reduce": "mean_last", "k": 3}},
        "checks": [{"kind": "headroom", "measure": "loss", "bound": 0.0, "min_gap": 0.1}],
        "predictions": {
            "worse": {"kind": "difference", "of": "slow", "versus": "usual", "measure": "loss", "direction": "higher"},
        },
    }


StudyMaker = Callable[..., StudyDirectory]


def write_study(folder: Path, **changes: Any) -> StudyDirectory:
    """Change the file of a study."""
    (folder / "study.yaml").write_text(yaml.safe_dump(merged(study_content(), changes), sort_keys=False))
    return open_study_directory(folder)


@pytest.fixture
def make_study(tiny_data: Path, tmp_path: Path) -> StudyMaker:
    """Folders with a study in them: `make_study(seeds={...}, base={...})`."""

    def make(name: str = "study", base: dict[str, Any] | None = None, **changes: Any) -> StudyDirectory:
        folder = tmp_path / name
        folder.mkdir(parents=True, exist_ok=True)
        quick = {
            "training": {"max_steps": 4, "optimization": {"gradient_accumulation_steps": 1}},
            "checkpointing": {"steps": [0], "learning_dynamics": {"enabled": False, "eval_data": None}},
        }
        content = merged(merged(training_content(tiny_data, tmp_path / "unused"), quick), base or {})
        del content["checkpointing"]["runs_dir"], content["checkpointing"]["run_name"]
        (folder / "tiny.yaml").write_text(yaml.safe_dump(content))
        return write_study(folder, **changes)

    return make
