"""The kernel's own words, from its log on this machine.

https://www.kernel.org/doc/Documentation/ABI/testing/dev-kmsg
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Self

DEVICE = Path("/dev/kmsg")
MAX_RECORD = 8192
"""Bytes of one record: the kernel's own bound."""

_VICTIM = re.compile(r"\bpid=(\d+)")


class KernelLogLost(Exception):
    """The kernel's log cannot be read."""


class KernelLog:
    """What the kernel logs from now on; earlier lines are never shown. A context manager."""

    def __init__(self) -> None:
        try:
            self._descriptor = os.open(DEVICE, os.O_RDONLY | os.O_NONBLOCK)
        except OSError as error:
            raise KernelLogLost(f"{DEVICE}: {error.strerror} (reading it needs root)") from error
        os.lseek(self._descriptor, 0, os.SEEK_END)
        self._lines: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def oom_kill(self, pod_uid: str) -> list[str] | None:
        """The lines of the OOM kill in this pod's cgroup: whose limit was passed, and who was killed. None if none.

        The first names the cgroup, which holds the pod's uid (with `_` for `-` under the systemd cgroup driver); the
        second names the same process.
        """
        self._read()
        uids = (pod_uid, pod_uid.replace("-", "_"))
        for line in self._lines:
            if line.startswith("oom-kill:") and any(uid in line for uid in uids):
                victim = _VICTIM.search(line)
                killed = f"Killed process {victim[1]} " if victim else ""
                return [line, *(other for other in self._lines if killed and killed in other)]
        return None

    def _read(self) -> None:
        while True:
            try:
                record = os.read(self._descriptor, MAX_RECORD)
            except BlockingIOError:
                return
            except BrokenPipeError:
                # Records were overwritten before they were read; reading goes on with the oldest that is left.
                continue
            prefix, _, message = record.decode(errors="replace").partition(";")
            del prefix  # priority, sequence number, time
            self._lines.append(message.split("\n", 1)[0])
