"""Loopback ports that a server keeps while it is stopped and started again."""

from __future__ import annotations

import random
import socket
from typing import Final

FIRST: Final = 20_000
LAST: Final = 32_000
"""Below the ports that Linux hands out itself, 32768 and above by default, so no outgoing connection takes one.

https://docs.kernel.org/networking/ip-sysctl.html (ip_local_port_range)
"""


class NoPort(Exception):
    """Every port that was tried is in use."""


class Port:
    """A TCP port on loopback that nobody else claims until `release`.

    The claim is a UDP socket with the same number: it leaves the TCP port free, so a client of a stopped server is
    refused, and the kernel drops it with the process.
    """

    def __init__(self) -> None:
        for number in random.SystemRandom().sample(range(FIRST, LAST), 100):
            claim = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            try:
                claim.bind(("127.0.0.1", number))
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", number))
            except OSError:
                claim.close()
                continue
            self.number = number
            self._claim = claim
            return
        raise NoPort(f"none of 100 ports between {FIRST} and {LAST} is free")

    def release(self) -> None:
        """Give up the claim."""
        self._claim.close()
