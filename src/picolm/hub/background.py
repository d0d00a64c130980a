"""The training's side of publishing: notes on disk what waits, wakes the uploader, and leaves it when the run ends.

Nothing here talks to the network. The uploader is another process (`follow`): threads of the client are waited for when an
interpreter ends, so one request without an answer could hold up a training that is over.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace

from picolm.hub.client import ANSWER_SECONDS, has_token
from picolm.hub.follow import FINISH
from picolm.hub.outbox import Destination, Outbox
from picolm.records.rundir import RunDirectory

CLOSING_SECONDS = 60.0
"""Longest wait at the end of a run without a checkpoint getting published."""
POLL_SECONDS = 0.1

Say = Callable[[str], None]


class Publication:
    """Publishes a run while it is trained."""

    def __init__(
        self,
        run: RunDirectory,
        destination: Destination,
        say: Say,
        *,
        answer_seconds: float = ANSWER_SECONDS,
        closing_seconds: float = CLOSING_SECONDS,
    ) -> None:
        self._run = run
        self._outbox = Outbox(run)
        self._destination = destination
        self._say = say
        self._answer_seconds = answer_seconds
        self._closing_seconds = closing_seconds
        self._uploader: subprocess.Popen[bytes] | None = None
        self.training_seconds = 0.0
        """Time that the training's threads spent here while the run went on."""

    def begin(self) -> None:
        """Say where the run goes, queue what was sealed before, and start the uploader if there is a token."""
        before = self._outbox.destination()
        if before is not None and before.repo_id == self._destination.repo_id:
            self._destination = replace(before, collection_slug=self._destination.collection_slug, every_checkpoint=True)
        self._outbox.address(self._destination)
        self._outbox.queue_sealed()
        where = f"{self._destination.repo_id}, branch {self._run.name}"
        if not has_token():
            self._say(f"no Hub token: checkpoints for {where} wait in the outbox; later: {self._later}")
            return
        parts = ", ".join(self._destination.parts).replace("_", " ")
        self._say(f"publishing every checkpoint ({parts}), configuration, log and scores: {where}; a new repository is private")
        self._start()

    def on_sealed(self, step: int) -> None:
        """Queue a checkpoint that was just sealed: a note on disk and a nudge."""
        begun = time.perf_counter()
        with contextlib.suppress(OSError):  # a sealed checkpoint without its note is found and queued by the uploader
            self._outbox.queue(step)
        self._nudge(b"\n")
        self.training_seconds += time.perf_counter() - begun

    def finish(self) -> None:
        """The run is complete: wait while publishing gets on, but not for a Hub that does not answer."""
        if self._uploader is not None:
            self._nudge(FINISH)
            self._wait_while_getting_on()

    def close(self) -> None:
        """End the uploader and say what still waits."""
        uploader, self._uploader = self._uploader, None
        if uploader is None:
            return
        if uploader.stdin is not None:
            uploader.stdin.close()
        try:
            uploader.wait(timeout=2)
        except subprocess.TimeoutExpired:
            uploader.kill()
            uploader.wait()
        waiting = len(self._outbox.waiting())
        if waiting:
            why = self._outbox.status().get("why", "")
            self._say(f"{waiting} checkpoint(s) wait in the outbox{': ' + why if why else ''}; to publish them: {self._later}")
        else:
            self._say(f"everything is published: {self._destination.repo_id}, branch {self._run.name}")

    @property
    def _later(self) -> str:
        return f"pico hub sync {self._run.path}"

    def _start(self) -> None:
        with self._run.outbox_log.open("ab") as log:
            self._uploader = subprocess.Popen(
                [sys.executable, "-m", "picolm.hub.follow", str(self._run.path), str(self._answer_seconds)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the training
            )
        if self._uploader.stdin is not None:
            os.set_blocking(self._uploader.stdin.fileno(), False)

    def _nudge(self, word: bytes) -> None:
        """Wake the uploader; one that is busy or gone is left alone: the note on disk is what counts."""
        if self._uploader is not None and self._uploader.stdin is not None:
            with contextlib.suppress(OSError):
                os.write(self._uploader.stdin.fileno(), word)

    def _wait_while_getting_on(self) -> None:
        count, since = len(self._outbox.waiting()), time.monotonic()
        while self._uploader is not None and self._uploader.poll() is None:
            left = len(self._outbox.waiting())
            if left < count:
                count, since = left, time.monotonic()
            trouble = self._outbox.status().get("state") in ("waiting", "stopped")
            if trouble or time.monotonic() - since > self._closing_seconds:
                return
            time.sleep(POLL_SECONDS)
