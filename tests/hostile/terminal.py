"""Runs the command line on a pseudo terminal."""

from __future__ import annotations

import os
import pty
import subprocess
import tty

from tests.hostile.serving import CLI, Runway


def at_terminal(process: Runway, *arguments: str) -> bytes:
    """Return what a command writes to a terminal."""
    ours, theirs = pty.openpty()
    tty.setraw(theirs)
    with subprocess.Popen(
        [*CLI, *arguments],
        env=process.environment(),
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=subprocess.DEVNULL,
    ) as running:
        os.close(theirs)
        shown = b""
        try:
            while chunk := os.read(ours, 1 << 16):
                shown += chunk
        except OSError:  # Linux reports the end of a terminal as EIO.
            pass
        running.wait(30)
    os.close(ours)
    return shown
