"""Locks between the test processes of this checkout."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parents[2] / ".local" / "locks"


@contextmanager
def one_at_a_time(name: str) -> Iterator[None]:
    """Hold the lock `name`, and wait for it first. The kernel releases it when the process exits."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / name).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
