"""Sockets of outgoing connections."""

from __future__ import annotations

import os
import socket

import pytest

from runway.client_socket import client_socket

ADDRESS = (socket.AF_INET, socket.SOCK_STREAM, 0, "", ())


def test_collected_socket_closes_its_descriptor() -> None:
    opened = client_socket(ADDRESS)
    descriptor = opened.fileno()
    del opened
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_descriptor_that_has_another_owner_now_stays_open() -> None:
    opened = client_socket(ADDRESS)
    with socket.socket() as other:
        descriptor = os.dup2(other.fileno(), opened.fileno())
        del opened
        os.fstat(descriptor)
        os.close(descriptor)
