"""The API page in a browser: any width, light and dark, no scripts, accessible."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.conftest import Served
from tests.support.chromium import NARROW, WIDE, Watched


@pytest.mark.parametrize(("scheme", "width"), [("light", WIDE), ("dark", NARROW)])
def test_docs_page_needs_no_scripts(served: Served, browser: Browser, width: int, scheme: str) -> None:
    options = {"viewport": {"width": width, "height": 900}, "color_scheme": scheme}
    asked: list[str] = []
    with Watched(browser, served.url, **options) as seen:
        seen.page.on("request", lambda request: asked.append(request.url))
        seen.page.goto("/docs")
        expect(seen.page.locator("h1")).to_have_text("HTTP API")
        assert seen.overflow() <= 0
        assert seen.complaints == []
        assert all(url.startswith(served.url) for url in asked), "no request to another host"
        for summary in seen.page.locator("summary").all()[:4]:
            summary.click()
        assert seen.overflow() <= 0
        assert seen.barriers() == []
    with Watched(browser, served.url, java_script_enabled=False, **options) as seen:
        seen.page.goto("/docs")
        expect(seen.page.get_by_role("heading", name="Quickstart")).to_be_visible()
        expect(seen.page.get_by_role("heading", name="Submit a job").first).to_be_visible()
