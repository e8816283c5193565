"""A lock between processes that the kernel releases when its holder exits."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from localcluster import waiting
from localcluster.progress import say


@contextmanager
def only_one(lock_file: Path, *, what: str, timeout: float) -> Iterator[None]:
    """Hold the lock at `lock_file`. Raises LocalClusterError if another process keeps it for `timeout` seconds."""
    with lock_file.open("w") as lock:

        def why_locked() -> str | None:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return f"another process holds {lock_file}"
            return None

        if why_locked() is not None:
            say(f"waiting for another {what} to finish")
            waiting.until(why_locked, what=f"the other {what}", timeout=timeout)
        yield
