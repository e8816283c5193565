"""Jobs that run until the test ends their process on the node, whatever Kubernetes knows of it."""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from testbed.waiting import wait_for


@dataclass(frozen=True, slots=True)
class HeldJob:
    """`script` prints "started" and waits, until `end` is called. Then it prints "finished" and exits with its code."""

    script: str
    command: str
    """What it waits for, as in /proc/PID/cmdline."""

    def runs(self) -> bool:
        return any(self._pids())

    def end(self) -> None:
        """Wait until it runs, end it in every container, and wait until it has ended."""
        wait_for(lambda: self.runs() or None, f"the process {self.command!r} runs")
        for pid in self._pids():
            os.kill(pid, signal.SIGPIPE)  # The shell writes "Terminated" to the log after a SIGTERM.
        wait_for(lambda: not self.runs() or None, f"the process {self.command!r} has ended")

    def _pids(self) -> Iterator[int]:
        for file in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                if file.read_bytes() == self.command.encode():
                    yield int(file.parent.name)
            except (FileNotFoundError, ProcessLookupError):
                continue


def unique_duration() -> str:
    """Return about 600 s as an argument of `sleep`, by which a test finds the process."""
    return f"600.{uuid.uuid4().int % 10**9:09}"


def held(first: str = "", code: int = 0, then: str = "", on_sigterm: str = "exit 143") -> HeldJob:
    """Return a job that runs the commands `first` at its start, and `then` after it has printed "finished".

    It ignores SIGTERM if `on_sigterm` is empty.
    """
    duration = unique_duration()
    begin = f"{first}trap '{on_sigterm}' TERM; echo started; sleep {duration} & wait $!"
    script = f"{begin}; echo finished; {then}exit {code}"
    return HeldJob(script, f"sleep\0{duration}\0")
