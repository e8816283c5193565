"""Single keys from the terminal, without Enter."""

from __future__ import annotations

import os
import select
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager

ReadKey = Callable[[float], str | None]
"""Waits at most so many seconds for a key; None where none was pressed."""


@contextmanager
def terminal_keys() -> Iterator[ReadKey]:
    """Keys of the terminal at stdin, which is put back as it was at the end. Ctrl-C stays an interrupt."""
    stdin = sys.stdin.fileno()
    before = termios.tcgetattr(stdin)

    def read(seconds: float) -> str | None:
        ready, _, _ = select.select([stdin], [], [], seconds)
        return os.read(stdin, 1).decode("ascii", "replace") if ready else None

    try:
        tty.setcbreak(stdin)
        yield read
    finally:
        termios.tcsetattr(stdin, termios.TCSADRAIN, before)
