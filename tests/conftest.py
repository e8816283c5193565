"""What tests of several kinds take."""

from __future__ import annotations

import pytest

from tests.support.documented import Block, run_by


@pytest.fixture
def documented(request: pytest.FixtureRequest) -> tuple[Block, ...]:
    """The shell blocks of the documents that this test is to run (tests/support/documented.py)."""
    return run_by(request.node.nodeid)
