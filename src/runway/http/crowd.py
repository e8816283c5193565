"""How many submissions may be in progress: beyond that each is refused at once, before anything is done for it.

Whatever is let in shares the process with all the rest. Without a bound every caller waits for all who came before, and
at twice the load that can be borne all of them wait in vain. Pure ASGI, ahead of routing, so that a refusal is cheap.
"""

from __future__ import annotations

from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from runway.errors import TooBusy
from runway.http.problems import problem

PER_CALL: Final = 2
"""Submissions in progress for each call to Kubernetes that may be: half of them speak to it, half are about to."""
RETRY_SECONDS: Final = 1
_SUBMIT: Final = ("POST", "/v1/jobs")


class Crowd:
    """Lets at most `most` submissions in, dry runs included; the next is answered with TooBusy."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self.app = app
        self.most = most
        self.inside = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or (scope["method"], scope["path"]) != _SUBMIT:
            await self.app(scope, receive, send)
        elif self.inside >= self.most:
            refusal = TooBusy(f"{self.most} submissions are in progress already", retry_after=RETRY_SECONDS)
            await problem(refusal, scope["state"]["request_id"])(scope, receive, send)
        else:
            self.inside += 1
            try:
                await self.app(scope, receive, send)
            finally:
                self.inside -= 1
