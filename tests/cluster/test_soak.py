"""A soak of half a minute with hostile clients and faults; `make soak` runs for 30 minutes."""

from __future__ import annotations

import random

import pytest

from bench import soak
from testbed.server import Server

pytestmark = [pytest.mark.cluster, pytest.mark.alone]


MINUTES = 0.5
"""Enough for a frozen API server, two deleted pods, and several rounds of all kinds of submissions and clients."""

READS = {"read 200", "stream 200"}
SUBMISSIONS = {"submit 201", "submit 403", "submit 422"}
CLIENTS = {"log with breaks 200", "half-closed", "behind a proxy 200"}


def test_soak_finds_no_leaks_and_no_wrong_decisions(server: Server) -> None:
    server.stop()
    try:
        seed = random.randrange(2**32)
        found, wrong = soak.run(MINUTES, seed, growth=1.3, submit_seconds=0.75, required=READS | SUBMISSIONS | CLIENTS)
    finally:
        server.start()
    print(f"seed {seed}: {found.answers} {found.clients}")
    assert wrong == []
    # The soak has judged every kind of response.
    assert set(found.answers) >= READS | SUBMISSIONS
    assert set(found.clients) >= CLIENTS
