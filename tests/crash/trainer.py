"""A training process that tests kill, stop and wake: `python -m tests.crash.trainer CONTENT [die at step] [seconds per step]`."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

from picolm.base.errors import PicoError
from picolm.train.config import parse_config
from picolm.train.stop import STOPPED_EXIT_CODE
from picolm.train.train import run_training

from ..train.recording import Recording


class Mortal(Recording):
    """Ends its own process without notice at a step; takes its time over each of them."""

    def __init__(self, die_at: int, step_seconds: float) -> None:
        super().__init__()
        self.die_at, self.step_seconds = die_at, step_seconds

    def advance(self, step: int) -> None:
        if step == self.die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(self.step_seconds)

    def say(self, sentence: str) -> None:
        print(sentence, file=sys.stderr, flush=True)


def main(content_file: str, die_at: str = "-1", step_seconds: str = "0") -> int:
    """Exit code of a run: 0 complete, 75 stopped, 2 refused."""
    config = parse_config(json.loads(Path(content_file).read_text()), "tiny.yaml", default_name="tiny")
    try:
        outcome = run_training(config, Mortal(int(die_at), float(step_seconds)))
    except PicoError as error:
        print(error, file=sys.stderr)
        return 2
    return 0 if outcome.complete else STOPPED_EXIT_CODE


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
