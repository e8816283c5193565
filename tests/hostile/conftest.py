"""One Runway on a fake cluster, as a real process with short times, for all tests of a file."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.served import Served, serving


@pytest.fixture(scope="module")
def hostile_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("hostile")) as running:
        yield running
