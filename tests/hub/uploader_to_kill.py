"""A process that publishes a run each time it is told to, in a fork of itself that may be killed.

Reads folders from standard input; answers `pid N` when the fork stands and `ended CODE` when it is gone.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import huggingface_hub.hf_api
import huggingface_hub.lfs  # noqa: F401 - loaded once, for all forks
import pandas  # noqa: F401
import pyarrow.parquet  # noqa: F401

from picolm.hub.client import connect
from picolm.hub.outbox import Outbox
from picolm.hub.patience import Patience
from picolm.hub.sync import Uploader
from picolm.records.rundir import RunDirectory


def publish(folder: str) -> None:
    uploader = Uploader(Outbox(RunDirectory(Path(folder))), connect(), Patience(attempts=3), lambda sentence: None)
    uploader.publish_waiting()
    uploader.publish_results()
    uploader.publish_page()


def main() -> None:
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            publish(line.strip())
            os._exit(0)
        print("pid", child, flush=True)
        _, status = os.waitpid(child, 0)
        print("ended", os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
