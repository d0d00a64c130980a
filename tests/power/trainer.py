"""Trains a run and announces every sealed checkpoint on standard output, waiting for a line before it goes on."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from unittest.mock import patch

from picolm.train.checkpoint import Checkpointer, PendingCheckpoint
from picolm.train.config import parse_config
from picolm.train.run import Silence
from picolm.train.train import run_training


def main(content_file: str) -> None:
    seal = Checkpointer._seal

    def seal_and_tell(self: Checkpointer, pending: PendingCheckpoint, applied: bool) -> None:
        seal(self, pending, applied)
        print("sealed", pending.state.step, flush=True)
        sys.stdin.readline()

    content = json.loads(Path(content_file).read_text())
    with patch.object(Checkpointer, "_seal", seal_and_tell):
        run_training(parse_config(content, "tiny.yaml", default_name="tiny"), Silence())


if __name__ == "__main__":
    main(sys.argv[1])
