"""Loopback ports that a server keeps across restarts."""

from __future__ import annotations

import random
import socket
from typing import Final

FIRST: Final = 20_000
LAST: Final = 32_000
"""Below the ephemeral ports of Linux, 32768 and above by default, so no outgoing connection uses one.

https://docs.kernel.org/networking/ip-sysctl.html (ip_local_port_range)
"""


class NoFreePort(Exception):
    """Every tried port is in use."""


class ReservedPort:
    """A TCP port on loopback that no other ReservedPort has until `release`.

    The claim is a UDP socket with the same number. The TCP port stays free, so a client of a stopped server gets
    `connection refused`. The kernel releases the claim when the process exits.
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
        raise NoFreePort(f"none of 100 ports between {FIRST} and {LAST} is free")

    def release(self) -> None:
        """Release the claim."""
        self._claim.close()
