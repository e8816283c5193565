"""Renewal of credentials, in virtual time."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from runway.backoff import Timing
from runway.errors import ConfigurationError, NotExecuted
from runway.kube.credentials import FILES_SECONDS, LONGEST_PAUSE_SECONDS, Credentials
from runway.kube.kubeconfig import Access

START = datetime(2026, 11, 1, tzinfo=UTC)
SECONDS = 5.0
"""The time of a call."""


class Plugin:
    """Issues credentials that live for `life` seconds, or none while it is `broken`."""

    def __init__(self, life: float = 900.0, files: tuple[Path, ...] = ()) -> None:
        self.life, self.files = life, files
        self.calls = 0
        self.broken = False
        self.elapsed = 0.0
        self.timing = Timing(clock=lambda: self.elapsed, now=self.now, jitter=lambda: 0.5)

    def now(self) -> datetime:
        return START + timedelta(seconds=self.elapsed)

    def issue(self) -> Access:
        self.calls += 1
        if self.broken:
            raise ConfigurationError("the exec plugin failed")
        expires = None if self.files else self.now() + timedelta(seconds=self.life)
        return Access(cast("Any", None), cast("Any", None), self.issue, expires, self.files)


async def _after(credentials: Credentials, plugin: Plugin, seconds: float) -> Access:
    """Return the credentials after this time, and after the renewal that the question for them starts."""
    plugin.elapsed += seconds
    await credentials.current(SECONDS)
    await credentials.settled()
    return await credentials.current(SECONDS)


async def test_credentials_are_renewed_before_they_expire_without_a_wait() -> None:
    plugin = Plugin(life=900)
    first = plugin.issue()
    credentials = Credentials(first, plugin.timing)
    plugin.elapsed = 839
    assert await credentials.current(SECONDS) is first
    assert plugin.calls == 1
    assert await _after(credentials, plugin, 2) is not first
    assert plugin.calls == 2


async def test_plugin_failure_is_harmless_before_the_expiry_and_named_after_it() -> None:
    plugin = Plugin(life=900)
    first = plugin.issue()
    credentials = Credentials(first, plugin.timing)
    plugin.broken = True
    assert await _after(credentials, plugin, 850) is first
    plugin.elapsed = 901
    with pytest.raises(NotExecuted, match="have expired: the exec plugin failed"):
        await credentials.current(SECONDS)
    plugin.broken = False
    plugin.elapsed += LONGEST_PAUSE_SECONDS
    assert await credentials.current(SECONDS) is not first


async def test_failing_plugin_is_called_ever_more_rarely() -> None:
    plugin = Plugin(life=10)
    credentials = Credentials(plugin.issue(), plugin.timing)
    plugin.broken = True
    for _ in range(600):
        plugin.elapsed += 1
        with suppress(NotExecuted):
            await credentials.current(SECONDS)
        await credentials.settled()
    assert 10 < plugin.calls < 25


async def test_401_renews_once_for_all_waiting_requests() -> None:
    plugin = Plugin()
    first = plugin.issue()
    credentials = Credentials(first, plugin.timing)
    assert await asyncio.gather(*[credentials.replace(first) for _ in range(50)]) == [True] * 50
    assert plugin.calls == 2


async def test_401_does_not_call_a_failing_plugin_in_a_loop() -> None:
    plugin = Plugin()
    first = plugin.issue()
    credentials = Credentials(first, plugin.timing)
    plugin.broken = True
    assert [await credentials.replace(first) for _ in range(50)] == [False] * 50
    assert plugin.calls == 2


async def test_replaced_file_renews_within_a_minute(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("one")
    plugin = Plugin(files=(token,))
    first = plugin.issue()
    credentials = Credentials(first, plugin.timing)
    assert await _after(credentials, plugin, FILES_SECONDS) is first
    (tmp_path / "new").write_text("two!")
    (tmp_path / "new").replace(token)
    assert await _after(credentials, plugin, FILES_SECONDS) is not first
