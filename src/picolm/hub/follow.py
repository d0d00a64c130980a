"""The uploader beside a training: a process of its own, so that nothing the network does can reach the loop.

Started by `background`; a line on standard input wakes it, `finish` asks it to end once the outbox is empty, and the end of
the input (the training is gone) ends it at once, wherever it is. What it was doing is done again by the next one.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

from picolm.base.errors import PicoError
from picolm.hub.client import connect
from picolm.hub.outbox import Outbox
from picolm.hub.patience import Patience
from picolm.hub.secrecy import redacted
from picolm.hub.sync import Uploader
from picolm.records.rundir import RunDirectory

FINISH = b"finish\n"


class Follower:
    """Publishes until it is told to finish."""

    def __init__(self, run: RunDirectory, *, answer_seconds: float) -> None:
        self._outbox = Outbox(run)
        self._answer_seconds = answer_seconds
        self._woken = threading.Event()
        self._finishing = threading.Event()

    def listen(self) -> None:
        """Follow the training's words; its end is the end of this process."""
        for line in sys.stdin.buffer:
            if line == FINISH:
                self._finishing.set()
            self._woken.set()
        os._exit(0)

    def publish(self) -> None:
        """Publish what waits, wait for more, until told to finish."""
        patience = Patience(attempts=None, before_wait=self._tell_wait, sleep=time.sleep)
        uploader = Uploader(self._outbox, connect(answer_seconds=self._answer_seconds), patience, note)
        introduced = False
        while True:
            self._woken.clear()
            finishing = self._finishing.is_set()
            self._outbox.tell("working")
            if uploader.publish_waiting() and not introduced:
                uploader.join_collection()
                uploader.publish_page()
                introduced = True
            if finishing:
                uploader.publish_results()
                uploader.publish_page()
                self._outbox.tell("idle")
                return
            self._outbox.tell("idle")
            self._woken.wait()

    def run(self) -> None:
        """Publish; a failure that does not pass is left in the status for the next look."""
        threading.Thread(target=self.listen, daemon=True).start()
        try:
            self.publish()
        except PicoError as error:
            self._outbox.tell("stopped", redacted(str(error)))
            note(str(error))
        except BaseException as error:  # its text may hold anything
            self._outbox.tell("stopped", redacted(f"{type(error).__name__}: {error}"))
            note(f"{type(error).__name__}: {error}")

    def _tell_wait(self, reason: str, seconds: float) -> None:
        self._outbox.tell("waiting", f"{reason}; trying again in {seconds:.0f} s")
        note(f"{reason}; trying again in {seconds:.0f} s")


def note(sentence: str) -> None:
    """One line in the uploader's log."""
    print(time.strftime("%Y-%m-%d %H:%M:%S"), redacted(sentence), file=sys.stderr, flush=True)


if __name__ == "__main__":
    Follower(RunDirectory(Path(sys.argv[1])), answer_seconds=float(sys.argv[2])).run()
    sys.stderr.flush()
    os._exit(0)  # not held up by a request that is never answered
