"""Everything that can happen to one save: a script, so that torch is imported once and nothing else runs in the process.

A run is trained up to the checkpoint under attack. There it forks: one child writes it undisturbed under strace, which
lists the file system calls; then one child per call is killed at that call (or has it fail), the run is continued by
another child, and every file of every checkpoint is compared with those of an uninterrupted run. Equal folders have equal
futures, so a folder that differs from an earlier one only in unfinished names is cleared of those and not continued again.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from picolm.base.errors import PicoError
from picolm.records.durable import TEMPORARY_MARK
from picolm.records.manifest import find_damage, hash_file, read_manifest
from picolm.records.rundir import RunDirectory
from picolm.train.config import RunConfig, parse_config
from picolm.train.retention import remove_leftovers
from picolm.train.run import Silence
from picolm.train.saver import BackgroundSaver
from picolm.train.train import run_training

from .tracing import FAILED, FILE_CALLS, Call, calls_touching, run_traced

ATTACKED = 2
"""The step whose checkpoint is attacked."""
ERRORS = ("EIO", "ENOSPC", "EDQUOT", "ESTALE")
CAN_FAIL = {"openat", "write", "pwrite64", "fsync", "fdatasync", "rename", "mkdir", "ftruncate", "chmod", "fchmodat", "fchmodat2"}


class Stage:
    """The run under attack, a copy of it as it was before the save, and the hashes it shall end with."""

    def __init__(self, content: dict[str, Any], spare: Path, mode: str) -> None:
        self.content = content
        self.spare = spare
        self.mode = mode
        self.run = self.config("attacked").run_directory
        self.expected = hashes(run_training(self.config("whole").config, Silence()).run)
        self.continued: set[str] = set()
        self.report: dict[str, Any] = {"calls": 0, "continued": 0, "passed_over": 0, "problems": []}

    def config(self, name: str) -> Named:
        content = {**self.content, "checkpointing": {**self.content["checkpointing"], "run_name": name}}
        return Named(parse_config(content, "tiny.yaml", default_name=name))

    def submit(self, saver: BackgroundSaver, what: str, write: Callable[[], None]) -> float:
        """Takes the place of `BackgroundSaver.submit`."""
        if what != f"checkpoint {ATTACKED}":
            write()
            return 0.0
        shutil.copytree(self.run, self.spare)
        for call in self.calls_of(write):
            self.attack(write, call)
        raise Finished

    def calls_of(self, write: Callable[[], None]) -> list[Call]:
        trace = self.spare.with_name("trace")
        assert run_traced(write, trace, "-f", "-e", FILE_CALLS) == 0
        calls = calls_touching(self.run, trace)
        return calls if self.mode == "kill" else [call for call in calls if call.name in CAN_FAIL and " = -1 " not in call.text]

    def attack(self, write: Callable[[], None], call: Call) -> None:
        self.put_back()
        number = self.report["calls"]
        fault = "signal=KILL" if self.mode == "kill" else f"error={ERRORS[number % len(ERRORS)]}"
        inject = f"inject={call.name}:{fault}:when={call.occurrence}"
        code = run_traced(write, self.spare.with_name("trace"), "-e", f"trace={call.name}", "-e", inject)
        self.report["calls"] += 1
        if (
            code == 0 and call.name not in CAN_FAIL
        ):  # the n-th call of a child need not be the same one: it changes nothing anyway
            self.report["passed_over"] += 1
            return
        problems = [] if code == (-9 if self.mode == "kill" else FAILED) else [f"the save ended with {code}"]
        for problem in problems + self.problems_now() + self.problems_after_continuing():
            self.report["problems"].append(f"{inject} {call.text[:150]}: {problem}")

    def put_back(self) -> None:
        shutil.rmtree(self.run)
        shutil.copytree(self.spare, self.run)

    def problems_now(self) -> list[str]:
        """What is wrong before anything is mended: every checkpoint that can be seen must be whole."""
        directory = RunDirectory(self.run)
        missing = {0, 1} - set(directory.steps())
        problems = [f"step {step} is gone" for step in missing]
        for step in directory.steps():
            problems += find_damage(directory.checkpoint(step), read_manifest(directory.checkpoint(step)))
        return problems + (self.leftovers() if self.mode == "error" else [])

    def problems_after_continuing(self) -> list[str]:
        """What differs from the uninterrupted run once the same command was repeated."""
        state = finished_files(self.run)
        if state in self.continued:
            remove_leftovers(RunDirectory(self.run))
            return self.leftovers()
        self.continued.add(state)
        self.report["continued"] += 1
        lock = RunDirectory(self.run).lock_file
        lock.write_text(json.dumps({**json.loads(lock.read_text()), "process": dead_process()}))
        child = os.fork()
        if child == 0:
            self._continue()
        _, status = os.waitpid(child, 0)
        if status != 0:
            return [f"continuing ended with {os.waitstatus_to_exitcode(status)}"]
        found = hashes(self.run)
        return self.leftovers() + [f"{name} differs" for name in self.expected if found.get(name) != self.expected[name]]

    def leftovers(self) -> list[str]:
        return [f"left behind: {path}" for path in self.run.rglob(f".*{TEMPORARY_MARK}*")]

    def _continue(self) -> None:
        code = 1
        try:
            with patch.object(BackgroundSaver, "submit", write_at_once):
                run_training(self.config("attacked").config, Silence())
            code = 0
        except PicoError as error:
            print(error, file=sys.stderr)
        finally:
            os._exit(code)


class Named:
    """A configuration and where its run is."""

    def __init__(self, config: RunConfig[Any]) -> None:
        self.config = config
        self.run_directory = Path(config.checkpointing.runs_dir) / config.run_name


class Finished(BaseException):
    """Ends the training under attack once every call has been tried."""


def write_at_once(saver: BackgroundSaver, what: str, write: Callable[[], None]) -> float:
    """`submit` without a thread: in a forked child the fewer threads the better."""
    write()
    return 0.0


def hashes(run: Path) -> dict[str, str]:
    """`step/path` -> SHA-256 of every file of every checkpoint, as its manifest lists it."""
    directory = RunDirectory(run)
    return {
        f"{step}/{name}": record.sha256
        for step in directory.steps()
        for files in read_manifest(directory.checkpoint(step)).parts.values()
        for name, record in files.items()
    }


def finished_files(run: Path) -> str:
    """One text that two run folders share if they differ in nothing but unfinished names and the lock."""
    files = (path for path in sorted(run.rglob("*")) if path.is_file() and path.name != RunDirectory(run).lock_file.name)
    finished = (path for path in files if TEMPORARY_MARK not in str(path.relative_to(run)))
    return "\n".join(f"{path.relative_to(run)} {hash_file(path).sha256}" for path in finished)


def dead_process() -> int:
    """The number of a process that is gone."""
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return child


def main(content_file: str, report_file: str, mode: str) -> None:
    """Attack the save of the run in `content_file` and write what went wrong to `report_file`."""
    torch.set_num_threads(1)
    content = json.loads(Path(content_file).read_text())
    stage = Stage(content, Path(report_file).with_name("spare"), mode)

    def submit(saver: BackgroundSaver, what: str, write: Callable[[], None]) -> float:
        return stage.submit(saver, what, write)

    try:
        with patch.object(BackgroundSaver, "submit", submit):
            run_training(stage.config("attacked").config, Silence())
    except Finished:
        pass
    Path(report_file).write_text(json.dumps(stage.report, indent=1))


if __name__ == "__main__":
    main(*sys.argv[1:])
