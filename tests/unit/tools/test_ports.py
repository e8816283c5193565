"""Ports that a server keeps across restarts."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from testbed.ports import LAST, ReservedPort


def test_claimed_port_is_exclusive_and_closed_until_served() -> None:
    port = ReservedPort()
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other, pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", port.number))
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port.number), timeout=1)
        with socket.create_server(("127.0.0.1", port.number)):
            socket.create_connection(("127.0.0.1", port.number), timeout=1).close()
    finally:
        port.release()


def test_claimed_ports_are_outside_ephemeral_port_range() -> None:
    first, _ = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()
    assert int(first) > LAST
