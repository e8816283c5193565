"""One Runway process on a fake cluster for all tests of a module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.hostile.serving import Process, serving


@pytest.fixture(scope="module")
def hostile_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    with serving(tmp_path_factory.mktemp("hostile")) as running:
        yield running
