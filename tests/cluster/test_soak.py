"""Mixed load with faults for a minute and a half; `make soak` takes an hour."""

from __future__ import annotations

import random

import pytest

from bench import soak
from demo.server import Server

pytestmark = pytest.mark.cluster


def test_nothing_leaks_and_nothing_is_decided_wrongly(server: Server) -> None:
    server.stop()
    try:
        seed = random.randrange(2**32)
        found, wrong = soak.run(minutes=1.5, seed=seed, growth=1.3)
    finally:
        server.start()
    print(f"seed {seed}: {found.answers}")
    assert wrong == []
    # All kinds of answers were there to be judged.
    assert {"submit 201", "submit 403", "submit 422", "read 200", "stream 200"} <= set(found.answers)
