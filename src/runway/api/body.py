"""Request bodies: bounded before they are read, and strict JSON."""

from __future__ import annotations

import asyncio
from typing import Final

from fastapi import Request

from runway.errors import BodyTooLarge, BodyTooSlow, InvalidSpec, UnsupportedMediaType, Violation
from runway.jobs.spec import decode

BODY_SECONDS: Final = 20.0
"""How long a body may take to arrive: the largest one at 13 kB/s."""


async def read_json(request: Request, limit: int, seconds: float = BODY_SECONDS) -> object:
    """The JSON document a request carries. Raises UnsupportedMediaType, BodyTooLarge, BodyTooSlow, InvalidSpec."""
    media_type, _, parameters = ", ".join(request.headers.getlist("content-type")).partition(";")
    charset = parameters.strip().lower().removeprefix("charset=").strip('"')
    if media_type.strip().lower() != "application/json" or charset not in ("", "utf-8"):
        raise UnsupportedMediaType("send the job as application/json in UTF-8")
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise UnsupportedMediaType("send the job as it is: a body that is compressed is not read")
    try:
        async with asyncio.timeout(seconds):
            body = await _read(request, limit)
    except TimeoutError:
        raise BodyTooSlow(f"the request body did not arrive within {seconds:g} s") from None
    try:
        return decode(body)
    except ValueError as error:
        raise InvalidSpec((Violation("body", "malformed_json", str(error), hint="send one JSON object"),)) from error


async def _read(request: Request, limit: int) -> bytes:
    declared = request.headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and int(declared[:20]) > limit:
        raise _too_large(limit)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise _too_large(limit)
    return bytes(body)


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"a request body may have at most {limit} bytes")
