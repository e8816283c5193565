"""Progress on the terminal: one line per step, and a heartbeat in long steps."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

HEARTBEAT_SECONDS = 10.0

_started = time.monotonic()


def say(message: str) -> None:
    """Print one line with the seconds since the program started."""
    print(f"localcluster {time.monotonic() - _started:6.1f} s  {message}", file=sys.stderr, flush=True)


@contextmanager
def step(name: str, *, heartbeat: float = HEARTBEAT_SECONDS) -> Iterator[None]:
    """Print the duration of a step at its end, and a line every `heartbeat` seconds until then."""
    started = time.monotonic()
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(heartbeat):
            say(f"... {name} ({time.monotonic() - started:.0f} s)")

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    say(f"{name}: {time.monotonic() - started:.1f} s")
