"""A little app of its own for the rule on query parameters."""

from __future__ import annotations

from typing import Annotated

import httpx2
import pytest
from fastapi import Depends, FastAPI, Query
from starlette.types import ASGIApp, Receive, Scope, Send

from runway.api import problems
from runway.api.query import only_known_parameters


class WithRequestId:
    """What the problem documents need of the middleware."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope.setdefault("state", {})["request_id"] = "r-1"
        await self.app(scope, receive, send)


app = FastAPI(dependencies=[Depends(only_known_parameters)])
app.add_middleware(WithRequestId)
problems.install_error_handlers(app)


@app.get("/things")
async def things(
    size: Annotated[int, Query()] = 1,
    colour: Annotated[list[str] | None, Query()] = None,
    kind: Annotated[str | None, Query(alias="type")] = None,
) -> list[object]:
    return [size, colour, kind]


@pytest.mark.parametrize(
    ("query", "answered"),
    [
        ("", [1, None, None]),
        ("size=2&type=a", [2, None, "a"]),
        ("colour=red&colour=blue", [1, ["red", "blue"], None]),
    ],
)
async def test_what_is_declared_is_taken(query: str, answered: list[object]) -> None:
    answer = await _get(query)
    assert (answer.status_code, answer.json()) == (200, answered)


@pytest.mark.parametrize(
    ("query", "field", "code"),
    [
        ("Size=2", "Size", "unknown_parameter"),
        ("kind=a", "kind", "unknown_parameter"),
        ("size", "size", "int_parsing"),
        ("size=1&size=1", "size", "repeated_parameter"),
        ("type=a&type=b", "type", "repeated_parameter"),
        ("%1b[31m=1", "\\u001b[31m", "unknown_parameter"),
        ("=1", '""', "unknown_parameter"),
    ],
)
async def test_what_is_not_declared_or_sent_twice_is_refused(query: str, field: str, code: str) -> None:
    answer = await _get(query)
    assert answer.status_code == 422
    (violation,) = answer.json()["violations"]
    assert (violation["field"], violation["code"]) == (field, code)


async def test_all_are_named_at_once_up_to_a_bound() -> None:
    answer = await _get("size=1&size=2&" + "&".join(f"x{number}=1" for number in range(300)))
    violations = answer.json()["violations"]
    assert len(violations) == 21
    assert violations[0]["hint"] == "parameters here: size, colour, type"
    assert len(answer.content) < 5000


async def _get(query: str) -> httpx2.Response:
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
        return await client.get(f"/things?{query}")
