"""What exists once for all test processes of this checkout, used by one of them at a time."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parents[2] / ".local" / "locks"


@contextmanager
def one_at_a_time(name: str) -> Iterator[None]:
    """Wait until no other process holds `name`, and hold it. The kernel releases it with a process that dies."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / name).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
