"""Credentials for the API server, renewed before they expire and after a 401.

- An exec plugin says when its credentials expire. Runway calls it again before that time.
- A token file, a client certificate and its key may be rotated. Runway checks the files every minute.
- After a 401 the credentials are read again, and the transport sends the request once more: a 401 had no effect.

The official client renews only the token of a service account.
https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import structlog

from runway.backoff import Backoff, Timing
from runway.errors import ConfigurationError, NotExecuted
from runway.kube.kubeconfig import Access

log = structlog.get_logger()

RENEW_BEFORE: Final = timedelta(seconds=60)
"""Time before the expiry at which credentials are renewed; a fifth of their life if that is less."""
FILES_SECONDS: Final = 60.0
"""Between two checks of files, as in client-go."""
FIRST_PAUSE_SECONDS: Final = 1.0
LONGEST_PAUSE_SECONDS: Final = 60.0
"""Between renewals that failed, or whose credentials were no better."""

_Signature = tuple[tuple[int, int, int] | None, ...]


class Credentials:
    """The credentials in use. `close` cancels a renewal in progress."""

    def __init__(self, access: Access, timing: Timing) -> None:
        self._timing = timing
        self._backoff = Backoff(timing.jitter, FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS)
        self._next_renewal = 0.0
        self._renewal: asyncio.Task[None] | None = None
        self._failure = ""
        self._access: Access
        self._signature: _Signature
        self._next_check: float
        self._renew_at: datetime
        self._use(access)

    async def current(self, seconds: float) -> Access:
        """Return valid credentials. Raises NotExecuted if they have expired and are not renewed within `seconds`."""
        now, access = self._timing.now(), self._access
        if access.expires_at is not None and now >= self._renew_at:
            self._start()
            if now >= access.expires_at:
                with suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        await self.settled()
                if self._access is access:
                    reason = self._failure or "their renewal takes too long"
                    raise NotExecuted(f"the credentials for the Kubernetes API have expired: {reason}")
        elif self._timing.clock() >= self._next_check:
            self._next_check = self._timing.clock() + FILES_SECONDS
            if _signature(access.files) != self._signature:
                self._start()
        return self._access

    async def replace(self, rejected: Access) -> bool:
        """Renew credentials that the API server rejected. Return whether there are others now."""
        if self._access is rejected:
            self._start()
            await self.settled()
        return self._access is not rejected

    async def close(self) -> None:
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.gather(self._renewal, return_exceptions=True)

    def _use(self, access: Access) -> None:
        self._access = access
        self._signature = _signature(access.files)
        self._next_check = self._timing.clock() + FILES_SECONDS
        if access.expires_at is not None:
            life = max(access.expires_at - self._timing.now(), timedelta(0))
            self._renew_at = access.expires_at - min(RENEW_BEFORE, life / 5)

    def _start(self) -> None:
        """Start a renewal unless one is in progress, or an earlier one was in vain a moment ago."""
        if self._renewal is None and self._timing.clock() >= self._next_renewal:
            self._renewal = asyncio.create_task(self._renew(self._access.renew))

    async def settled(self) -> None:
        """Wait for the renewal in progress. A caller that is cancelled does not cancel it."""
        if self._renewal is not None:
            await asyncio.shield(self._renewal)

    async def _renew(self, renew: Callable[[], Access]) -> None:
        before = self._access.expires_at
        try:
            # The plugin is bounded in time. Not in this thread: the event loop must not wait for it.
            self._use(await asyncio.to_thread(renew))
        except ConfigurationError as error:
            self._failure = str(error)
            log.warning("credentials not renewed", reason=self._failure)
        else:
            log.info("credentials renewed", expires_at=self._access.expires_at)
        finally:
            self._renewal = None
        after = self._access.expires_at
        if before is not None and after is not None and after > before:
            self._backoff.reset()
        self._next_renewal = self._timing.clock() + (self._backoff.next() if after == before else 0.0)


def _signature(files: tuple[Path, ...]) -> _Signature:
    """Return what changes when a file is replaced or written; None for a file that cannot be read."""
    found: list[tuple[int, int, int] | None] = []
    for file in files:
        try:
            status = file.stat()
        except OSError:
            found.append(None)
        else:
            found.append((status.st_mtime_ns, status.st_ino, status.st_size))
    return tuple(found)
