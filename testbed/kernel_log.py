"""The kernel log and the cgroups of the machine that runs the jobs.

https://www.kernel.org/doc/Documentation/ABI/testing/dev-kmsg
https://docs.kernel.org/scheduler/sched-bwc.html#statistics
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Self

from localcluster import addresses

DEVICE = Path("/dev/kmsg")
CPU_CGROUPS = (Path("/sys/fs/cgroup/cpu", addresses.CGROUP), Path("/sys/fs/cgroup", addresses.CGROUP))
"""The local cluster's cgroups: version 1, version 2."""
MAX_RECORD = 8192
"""Bytes of one record: the limit of the kernel."""

_VICTIM = re.compile(r"\bpid=(\d+)")


class KernelUnreadable(Exception):
    """The kernel's log or a cgroup cannot be read."""


class Kernel:
    """Read this machine's kernel log, from now on, and its cgroups. A context manager."""

    def __init__(self) -> None:
        try:
            self._descriptor = os.open(DEVICE, os.O_RDONLY | os.O_NONBLOCK)
        except OSError as error:
            raise KernelUnreadable(f"{DEVICE}: {error.strerror} (reading it needs root)") from error
        os.lseek(self._descriptor, 0, os.SEEK_END)
        self._lines: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def oom_kill(self, pod_uid: str) -> list[str] | None:
        """Return the two log lines of the OOM kill in this pod's cgroup, or None.

        The first line names the cgroup, which contains the pod's uid (`_` replaces `-` under the systemd driver). The
        second line names the killed process.
        """
        self._read()
        uids = (pod_uid, pod_uid.replace("-", "_"))
        for line in self._lines:
            if line.startswith("oom-kill:") and any(uid in line for uid in uids):
                victim = _VICTIM.search(line)
                killed = f"Killed process {victim[1]} " if victim else ""
                return [line, *(other for other in self._lines if killed and killed in other)]
        return None

    def cpu_stat(self, pod_uid: str) -> dict[str, int]:
        """Return the CPU bandwidth statistics of a running pod's cgroup: nr_periods, nr_throttled and others."""
        for root in CPU_CGROUPS:
            # Unlike Path.rglob, os.walk ignores cgroups that vanish meanwhile.
            for folder, _, files in os.walk(root):
                if folder.endswith(f"/pod{pod_uid}") and "cpu.stat" in files:
                    return parse_cpu_stat(Path(folder, "cpu.stat").read_text(encoding="ascii"))
        raise KernelUnreadable(f"pod {pod_uid} has no cgroup below {' or '.join(map(str, CPU_CGROUPS))}")

    def _read(self) -> None:
        while True:
            try:
                record = os.read(self._descriptor, MAX_RECORD)
            except BlockingIOError:
                return
            except BrokenPipeError:
                # The kernel has overwritten unread records; the next read returns the oldest one left.
                continue
            prefix, _, message = record.decode(errors="replace").partition(";")
            del prefix  # priority, sequence number, time
            self._lines.append(message.split("\n", 1)[0])


def parse_cpu_stat(text: str) -> dict[str, int]:
    """Parse the lines of a cpu.stat as numbers; skip lines of another form."""
    pairs = (line.split() for line in text.splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}
