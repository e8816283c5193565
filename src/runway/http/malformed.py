"""What is not even HTTP, answered as a problem too: a broken request line, header or chunk reaches no application."""

from __future__ import annotations

import uuid
from typing import Any

import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from runway.errors import MalformedRequest
from runway.http.problems import MEDIA_TYPE, problem_document


def answer_as_problems() -> None:
    """Have the server of this process answer such a request as a problem; it has no setting for that answer."""
    HttpToolsProtocol.send_400_response = _send_problem  # type: ignore[assignment,method-assign]


def _send_problem(protocol: Any, reason: str) -> None:
    """Answer, and close the connection: where the next request would begin is not known."""
    request_id = uuid.uuid4().hex
    body = msgspec.json.encode(problem_document(MalformedRequest(reason), request_id))
    head = (
        "HTTP/1.1 400 Bad Request",
        f"content-type: {MEDIA_TYPE}",
        f"content-length: {len(body)}",
        f"x-request-id: {request_id}",
        "connection: close",
    )
    protocol.transport.write("".join(f"{line}\r\n" for line in (*head, "")).encode() + body)
    protocol.transport.close()
