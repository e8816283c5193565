"""`/docs`: the OpenAPI document as a page without external resources."""

from __future__ import annotations

import html
import re

from runway.api.openapi import codes, operations
from tests.api.conftest import Runway

BROWSER = {"Accept": "text/html"}


async def page_of(runway: Runway) -> str:
    answer = await runway.client.get("/docs", headers=BROWSER)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    return str(answer.text)


async def test_page_shows_every_operation_error_model_and_example(runway: Runway) -> None:
    document = (await runway.client.get("/openapi.json")).json()
    shown = html.unescape(await page_of(runway))
    for path, method, operation in operations(document):
        assert f'<span class="method">{method.upper()}</span> <code>{path}</code>' in shown
        assert f">{operation['summary']}</h2>" in shown
        for parameter in operation["parameters"]:
            assert f"<code>{parameter.get('name', 'X-Request-ID')}</code>" in shown
        for response in operation["responses"].values():
            assert all(f'<h3 id="{code}">' in shown for code in codes(response))
            for media in response.get("content", {}).values():
                assert all(example["summary"] in shown for example in media.get("examples", {}).values())
    for name in document["components"]["schemas"].keys() - {"Problem", "JobSpec"}:
        assert f'<h3 id="{name.lower()}">{name}</h3>' in shown
    for field in document["components"]["schemas"]["JobSpec"]["properties"]:
        assert f"<code>{field}</code>" in shown


async def test_page_begins_with_submit_read_and_logs(runway: Runway) -> None:
    first = html.unescape(await page_of(runway)).split('id="about"')[0]
    places = [
        first.index(word) for word in ('curl -X POST "$RUNWAY_URL/v1/jobs"', 'curl "$RUNWAY_URL/v1/jobs/rw-', "/logs")
    ]
    assert places == sorted(places)


async def test_links_resolve_and_anchors_are_unique(runway: Runway) -> None:
    shown = await page_of(runway)
    ids = re.findall(r' id="([^"]+)"', shown)
    assert len(ids) == len(set(ids))
    links = set(re.findall(r'href="([^"]*)"', shown))
    assert {link[1:] for link in links if link.startswith("#")} <= set(ids)
    for link in links:
        if link.startswith("/"):
            assert (await runway.client.get(link)).status_code == 200, link
    assert not re.findall(r'(?:src|action)="http', shown)


async def test_page_contains_no_markdown(runway: Runway) -> None:
    shown = re.sub(r"<(code|pre)[^>]*>.*?</\1>", "", await page_of(runway), flags=re.DOTALL)
    assert "`" not in shown
    assert "](" not in shown


async def test_head_is_supported_and_unknown_path_is_an_html_page(runway: Runway) -> None:
    assert (await runway.client.head("/docs")).status_code == 200
    for path in ("/docs/oauth2-redirect", "/redoc"):
        missing = await runway.client.get(path, headers=BROWSER)
        assert (missing.status_code, missing.headers["content-type"]) == (404, "text/html; charset=utf-8")
