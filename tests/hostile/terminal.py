"""The command line as a user starts it, at a terminal or not."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import tty

from tests.hostile.serving import Runway


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "from runway.cli.main import main; main()", *arguments]


def environment(process: Runway) -> dict[str, str]:
    return {**os.environ, "RUNWAY_URL": process.url, "RUNWAY_TENANT": "vision", "TERM": "xterm-256color"}


def at_terminal(process: Runway, *arguments: str) -> bytes:
    """What a command writes where stdout is a terminal."""
    ours, theirs = pty.openpty()
    tty.setraw(theirs)
    with subprocess.Popen(
        command(*arguments),
        env=environment(process),
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=subprocess.DEVNULL,
    ) as running:
        os.close(theirs)
        shown = b""
        try:
            while chunk := os.read(ours, 1 << 16):
                shown += chunk
        except OSError:  # How the end of a terminal is told.
            pass
        running.wait(30)
    os.close(ours)
    return shown
