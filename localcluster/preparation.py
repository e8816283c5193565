"""Install and build what `up` starts, side by side on a first run."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self

from localcluster import build, packages, paths, train_image
from localcluster.errors import LocalClusterError

# What `python -m localcluster build NAME` builds, in a process of its own.
BUILDS = {"kubernetes": build.ensure_built, "image": train_image.ensure_built}

# Longer than a build that waits for that of another checkout.
TIMEOUT_SECONDS = 2.0 * build.BUILD_TIMEOUT_SECONDS + 60.0
POLL_SECONDS = 0.1
# A program that was interrupted has this time to end.
END_SECONDS = 10.0


def prepare(beside: Sequence[str] = ()) -> None:
    """Install packages, build the components and the image, and run the command `beside`, all at the same time.

    Raises LocalClusterError if one fails, and stops the others.
    """
    with Programs() as programs:
        if beside:
            programs.start(beside)
        if not build.current().exists:
            programs.start(_build("kubernetes"))
        # Not beside the others: a dpkg that is stopped needs repair by hand.
        packages.ensure_installed()
        if not train_image.archive().exists():
            programs.start(_build("image"))
        programs.wait()


def _build(name: str) -> Sequence[str]:
    return [sys.executable, "-m", "localcluster", "build", name]


class Programs:
    """Programs that run side by side and say themselves why they fail. The end interrupts those that still run."""

    def __init__(self) -> None:
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for program in self._running.values():
            _signal(program, signal.SIGINT)
        for program in self._running.values():
            try:
                program.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                _signal(program, signal.SIGKILL)
                program.wait()

    def start(self, command: Sequence[str]) -> None:
        """Start a program beside the others, in the directory of the checkout."""
        # Its group has the programs that it starts. The terminal's Ctrl-C does not reach it: `__exit__` interrupts it.
        program = subprocess.Popen(command, stdin=subprocess.DEVNULL, cwd=paths.this_checkout(), process_group=0)
        self._running[" ".join(command)] = program

    def wait(self) -> None:
        """Wait until all have ended. Raises LocalClusterError as soon as one fails."""
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while self._running:
            for command, program in list(self._running.items()):
                if program.poll() is not None:
                    del self._running[command]
                    if program.returncode != 0:
                        raise LocalClusterError(f"{command} failed, see above")
            if time.monotonic() > deadline:
                raise LocalClusterError(f"still running after {TIMEOUT_SECONDS:g} s: {', '.join(self._running)}")
            time.sleep(POLL_SECONDS)


def _signal(program: subprocess.Popen[bytes], number: signal.Signals) -> None:
    if program.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(program.pid, number)
