"""`/docs`: the OpenAPI document as a page without external resources."""

from __future__ import annotations

import html
import json
import re
import shlex

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


async def test_page_begins_with_submit_follow_and_log_as_commands_that_work(runway: Runway) -> None:
    first = html.unescape(await page_of(runway)).split('id="about"')[0]
    _, submit, follow, log = re.findall(r"<pre[^>]*>(.*?)</pre>", first, flags=re.DOTALL)
    spec = json.loads(shlex.split(submit)[-1])
    answer = await runway.client.post("/v1/jobs", json=spec, headers={"X-Tenant-ID": "vision"})
    assert answer.status_code == 201
    routes = (await runway.client.get("/openapi.json")).json()["paths"]
    for command, path in ((submit, ""), (follow, "/{job_id}/events"), (log, "/{job_id}/logs")):
        address = next(word for word in shlex.split(command) if word.startswith("$RUNWAY_URL"))
        called = address.removeprefix("$RUNWAY_URL").replace("$JOB", "{job_id}").partition("?")[0]
        assert called == f"/v1/jobs{path}"
        assert called in routes


async def test_long_parts_are_folded_and_each_call_has_one_open_example(runway: Runway) -> None:
    shown = html.unescape(await page_of(runway))
    calls = re.findall(r"<section[^>]*>(.*?)</section>", shown, flags=re.DOTALL)[2:-2]
    for call in calls:
        unfolded = re.sub(r"<details>.*?</details>", "", call, flags=re.DOTALL)
        assert unfolded.count("<pre") == 1
        assert unfolded.count("\n") < 60


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
