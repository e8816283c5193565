"""Every test process: logs as the server writes them, and few runs of the garbage collector."""

from __future__ import annotations

import gc
from typing import Final

import pytest
import structlog

GC_THRESHOLD: Final = 50_000
"""Allocations between two runs of the garbage collector, instead of 700: a seventh of the time of the unit tests."""


def pytest_configure() -> None:
    # The default of structlog renders tracebacks with colours and the source around each frame: 0.3 s for one.
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(default=repr),
        ]
    )


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()  # What is imported and collected lives until the end.
    gc.set_threshold(GC_THRESHOLD)
