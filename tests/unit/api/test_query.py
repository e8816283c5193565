"""Unknown and repeated query parameters are refused."""

from __future__ import annotations

from typing import Annotated

import httpx2
import pytest
from fastapi import Depends, FastAPI, Query
from starlette.types import ASGIApp, Receive, Scope, Send

from runway.api import problems
from runway.api.dependencies import QueryParameters, check_parameter_names


class WithRequestId:
    """Set the request id, as the middleware does."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope.setdefault("state", {})["request_id"] = "r-1"
        await self.app(scope, receive, send)


app = FastAPI(dependencies=[Depends(check_parameter_names)])
app.add_middleware(WithRequestId)
problems.install_error_handlers(app)


class ThingQuery(QueryParameters):
    size: int = 1
    state: list[str] | None = None
    kind: str | None = None


@app.get("/things")
async def things(query: Annotated[ThingQuery, Query()]) -> list[object]:
    return [query.size, query.state, query.kind]


@pytest.mark.parametrize(
    ("query", "answered"),
    [
        ("", [1, None, None]),
        ("size=2&kind=a", [2, None, "a"]),
        ("state=red&state=blue", [1, ["red", "blue"], None]),
    ],
)
async def test_declared_parameters_are_read(query: str, answered: list[object]) -> None:
    answer = await _get(query)
    assert (answer.status_code, answer.json()) == (200, answered)


@pytest.mark.parametrize(
    ("query", "field", "code"),
    [
        ("Size=2", "Size", "unknown_parameter"),
        ("type=a", "type", "unknown_parameter"),
        ("size", "size", "int_parsing"),
        ("size=1&size=1", "size", "repeated_parameter"),
        ("kind=a&kind=b", "kind", "repeated_parameter"),
        ("%1b[31m=1", "\\x1b[31m", "unknown_parameter"),
        ("=1", '""', "unknown_parameter"),
    ],
)
async def test_unknown_and_repeated_parameters_are_refused(query: str, field: str, code: str) -> None:
    answer = await _get(query)
    assert answer.status_code == 422
    (violation,) = answer.json()["violations"]
    assert (violation["field"], violation["code"]) == (field, code)


async def test_violations_are_bounded_and_name_the_known_parameters() -> None:
    answer = await _get("&".join(f"x{number}=1" for number in range(300)))
    violations = answer.json()["violations"]
    assert len(violations) == 20
    assert violations[0]["hint"] == "parameters here: size, state, kind"
    assert len(answer.content) < 5000


async def _get(query: str) -> httpx2.Response:
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
        return await client.get(f"/things?{query}")
