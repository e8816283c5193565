"""Unknown and repeated query parameters are refused."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import httpx2
import pytest
from fastapi import Depends, FastAPI, Query
from pydantic import Field
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


class Colour(StrEnum):
    RED = "red"
    GREEN = "green"


class ThingQuery(QueryParameters):
    size: Annotated[int, Field(ge=1, le=500)] = 1
    state: list[str] | None = None
    kind: Annotated[str | None, Field(max_length=5)] = None
    colour: Colour = Colour.RED
    deep: bool = False
    place: Annotated[str, Field(pattern="^[a-z]+$")] = "a"


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


@pytest.mark.parametrize(
    ("query", "message", "observed", "limit", "hint"),
    [
        ("size=ten", "must be a whole number", "ten", None, "write it in decimal digits"),
        ("size=1.5", "must be a whole number", "1.5", None, "write it in decimal digits"),
        ("size=0", "must be at least 1", "0", "at least 1", "use a value of at least 1"),
        ("size=501", "must be at most 500", "501", "at most 500", "use a value of at most 500"),
        ("colour=blue", "is not a known value", "blue", "red or green", "use red or green"),
        ("deep=perhaps", "must be true or false", "perhaps", None, "use true or false"),
        ("kind=aaaaaa", "is too long", "6 characters", "5 characters", "use at most 5 characters"),
        ("place=A", "has an invalid form", "A", "^[a-z]+$", "use a value of the form that the limit gives"),
    ],
)
async def test_faults_are_in_plain_words_with_a_hint(
    query: str, message: str, observed: str, limit: str | None, hint: str
) -> None:
    (violation,) = (await _get(query)).json()["violations"]
    assert [violation[name] for name in ("message", "observed", "limit", "hint")] == [message, observed, limit, hint]


async def test_violations_are_bounded_and_name_the_known_parameters() -> None:
    answer = await _get("&".join(f"x{number}=1" for number in range(300)))
    violations = answer.json()["violations"]
    assert len(violations) == 20
    assert violations[0]["hint"] == "parameters here: size, state, kind, colour, deep, place"
    assert len(answer.content) < 5000


async def _get(query: str) -> httpx2.Response:
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
        return await client.get(f"/things?{query}")
