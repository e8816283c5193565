"""The console's pages in Chromium: nothing cut at any width, search and sort, log controls, copy buttons."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from testbed.waiting import wait_for
from tests.api.conftest import Runway
from tests.browser.conftest import Served
from tests.browser.scene import Scene, play
from tests.support.chromium import NARROW, WIDE, Watched
from tests.support.fake_logs import FakeLog

HOSTILE = "\"'></td><img src=x onerror=window.run=1><script>window.run=2"
TABLET = 890  # The narrowest window with tables; narrower ones have cards.
IMPORTANT = (
    "main h1, .state, .jobs th[scope=row] a, .jobs .why, .cards .number:not(.zero), .states th[scope=row] a, "
    ".attempts .pod code, .attempts .end, .figure, .verdict .message, #filters label, .tools button:not([hidden])"
)
"""What a reader of a page must not miss."""
CUT = """(selector) => [...document.querySelectorAll(selector)].filter((one) => {
    const box = one.getBoundingClientRect(), style = getComputedStyle(one);
    if (!box.width) return false;
    if (one.closest("thead") && innerWidth <= 880) return false;
    for (let up = one; up; up = up.parentElement)
        if (up.matches(".scroll") && up.scrollWidth > up.clientWidth) return true;
    const isCut = style.display !== "inline" && one.scrollWidth > one.clientWidth + 1;
    return box.left < 0 || box.right > innerWidth || isCut;
}).map((one) => one.outerHTML.slice(0, 120))"""
"""The elements that the window or a scrolling box cuts."""


@pytest.fixture(scope="module")
def stage() -> Iterator[tuple[Served, Scene]]:
    """Serve one scene to all tests: they change none of its jobs."""
    with Served() as served:
        yield served, served.run(play)


@contextmanager
def opened(browser: Browser, url: str, path: str, **options: object) -> Iterator[Page]:
    """Open a page with a mark that a reload would remove; no test page may report an error."""
    with Watched(browser, url, **options) as seen:
        seen.page.goto(path)
        if options.get("java_script_enabled", True):
            seen.page.evaluate("window.marked = true")
        yield seen.page
        assert seen.complaints == []


def test_no_page_cuts_what_matters(stage: tuple[Served, Scene], browser: Browser) -> None:
    served, scene = stage
    with Watched(browser, served.url) as seen:
        for name, path in scene.pages().items():
            seen.page.goto(path)
            assert seen.page.locator(".state, h1").count() > 0
            for width in (WIDE, TABLET, NARROW):
                seen.page.set_viewport_size({"width": width, "height": 800})
                assert seen.overflow() <= 0, f"{name} at {width} px"
                assert seen.page.evaluate(CUT, IMPORTANT) == [], f"{name} at {width} px"
        assert [words for words in seen.complaints if "status of 404" not in words] == []


def test_pages_with_controls_are_accessible_on_a_dark_phone(stage: tuple[Served, Scene], browser: Browser) -> None:
    served, scene = stage
    options = {"color_scheme": "dark", "viewport": {"width": NARROW, "height": 800}}
    with Watched(browser, served.url, **options) as seen:
        for path in ("/capacity", "/jobs?sort=cost", f"/jobs/{scene.running}"):
            seen.page.goto(path)
            assert seen.barriers() == [], path


def test_overview_shows_recent_failures_first_and_folds_idle_tenants(
    stage: tuple[Served, Scene], browser: Browser
) -> None:
    served, _ = stage
    with opened(browser, served.url, "/") as page:
        expect(page.locator("main section h2").first).to_have_text("Failed in the last hour")
        names = page.locator("#failures th[scope=row] a")
        expect(names).to_have_text(["nightly-report", "train-large-batch"])
        expect(page.locator("#idle")).to_contain_text("1 tenant without active jobs")
        expect(page.locator("#idle li a")).to_be_hidden()
        expect(page.locator("#capacity article", has_text="a10g")).to_contain_text("3 of 4, 1 free")


def test_search_filter_and_sort_apply_at_once_and_keep_their_place(
    stage: tuple[Served, Scene], browser: Browser
) -> None:
    served, scene = stage
    with opened(browser, served.url, "/jobs") as page:
        names, search = page.locator(".jobs th[scope=row] a"), page.get_by_label("Name or id")
        search.press_sequentially("TRAIN")
        expect(names).to_have_text(["train-resnet", "train-large-batch"])
        expect(search).to_be_focused()
        expect(page.locator("#announcement")).to_have_text("2 jobs match")
        page.get_by_label("Sort by").select_option("name")
        expect(names).to_have_text(["train-large-batch", "train-resnet"])
        expect(page.get_by_role("columnheader", name="Job")).to_have_attribute("aria-sort", "ascending")
        page.get_by_label("State").select_option("failed")
        expect(names).to_have_text(["train-large-batch"])
        assert page.evaluate("window.marked") is True, "the page was reloaded"
        place = f"{served.url}/jobs?q=TRAIN&state=failed&sort=name"
        expect(page).to_have_url(place)
        names.click()
        expect(page.get_by_role("navigation", name="Pages").get_by_role("link", name="Jobs")).to_have_attribute(
            "aria-current", "true"
        )
        page.get_by_role("link", name='← Jobs: failed, "TRAIN"').click()
        expect(page.locator(".jobs th[scope=row] a")).to_have_text(["train-large-batch"])
        expect(page.get_by_label("Name or id")).to_have_value("TRAIN")
        page.get_by_role("link", name="Clear filter").click()
        expect(page).to_have_url(f"{served.url}/jobs?sort=name")
        search.fill(scene.pending.removeprefix("rw-")[:9])
        expect(names).to_have_text(["evaluate"])
        page.reload()
        expect(names).to_have_text(["evaluate"])


def test_search_is_announced_when_a_later_refresh_overtakes_it(stage: tuple[Served, Scene], browser: Browser) -> None:
    served, _ = stage
    held: list[Route] = []

    def wait_until_held(page: Page, number: int) -> None:
        # Playwright calls the route's handler during a call of the page.
        def are_held() -> bool | None:
            page.title()
            return len(held) >= number or None

        wait_for(are_held, f"{number} requests")

    with Watched(browser, served.url) as seen:
        seen.page.clock.install()
        seen.page.goto("/jobs")
        seen.page.route("**/jobs?q=TRAIN*", lambda route: held.append(route))
        seen.page.get_by_label("Name or id").fill("TRAIN")
        seen.page.clock.run_for(300)
        wait_until_held(seen.page, 1)
        seen.page.clock.run_for(10_000)  # The page refreshes every five seconds.
        wait_until_held(seen.page, 2)
        for route in held:
            route.continue_()
        expect(seen.page.locator("#announcement")).to_have_text("2 jobs match")
        assert seen.complaints == []


def test_filters_work_without_javascript(stage: tuple[Served, Scene], browser: Browser) -> None:
    served, scene = stage
    with opened(browser, served.url, "/jobs", java_script_enabled=False) as page:
        page.get_by_label("Name or id").fill("e")
        page.get_by_label("State").select_option("cancelled")
        page.get_by_role("button", name="Filter").click()
        expect(page.locator(".jobs th[scope=row] a")).to_have_text(["sweep-17"])
        page.get_by_role("link", name="Cost, USD").click()
        expect(page.locator(".jobs [aria-sort=descending]")).to_contain_text("Cost")
        page.goto(f"/jobs/{scene.running}")
        expect(page.get_by_role("button").locator("visible=true")).to_have_count(0)


def test_hostile_search_is_text(stage: tuple[Served, Scene], browser: Browser) -> None:
    served, scene = stage
    with opened(browser, served.url, "/jobs") as page:
        page.get_by_label("Name or id").fill(HOSTILE)
        expect(page.locator("#list")).to_contain_text("No jobs match.")
        query = page.url.partition("?")[2]
        page.reload()
        expect(page.get_by_label("Name or id")).to_have_value(HOSTILE)
        page.goto(f"/jobs/{scene.failed}?{query}")
        expect(page.locator(".back a")).to_contain_text("<script>window.run=2")
        expect(page.locator(".back a")).to_have_attribute("href", f"/jobs?{query}")
        assert page.evaluate("window.run") is None
        assert page.locator("main img, main script").count() == 0


def test_paused_log_holds_new_lines_back(stage: tuple[Served, Scene], browser: Browser) -> None:
    served, _ = stage

    async def start(runway: Runway) -> str:
        job_id = str((await runway.submit("speech")).json()["id"])
        log = FakeLog()
        log.write(*(b"line %d " % number + b"x" * 300 for number in range(100)))
        runway.kubernetes.logs[runway.kubernetes.start_pod(job_id)] = log
        await runway.until_state(job_id, "running")
        return job_id

    async def say(runway: Runway, *lines: bytes) -> None:
        log = runway.kubernetes.logs[f"{job_id}-0"]
        assert isinstance(log, FakeLog)
        log.write(*lines)

    job_id = served.run(start)
    with opened(browser, served.url, f"/jobs/{job_id}") as page:
        log, state = page.locator("#log"), page.locator("#log-state")
        at_end = "log => log.scrollHeight - log.scrollTop - log.clientHeight < 24"
        expect(log).to_contain_text("line 99")
        expect(page.locator("#log-note")).to_contain_text("Following attempt 1")
        served.run(lambda runway: say(runway, b"followed"))
        expect(log).to_contain_text("followed")
        assert log.evaluate(at_end), "the log is at its end"
        page.get_by_role("button", name="Pause").click()
        served.run(lambda runway: say(runway, b"held", b"back"))
        expect(state).to_have_text("Paused, 2 new lines")
        expect(log).not_to_contain_text("held")
        page.get_by_role("button", name="Follow").click()
        expect(log).to_contain_text("held\nback")
        expect(state).to_be_empty()
        log.hover()
        page.mouse.wheel(0, -900)
        expect(state).to_have_text("Paused")
        served.run(lambda runway: say(runway, b"last"))
        expect(state).to_have_text("Paused, 1 new line")
        page.mouse.wheel(0, 5000)
        expect(log).to_contain_text("last")
        page.get_by_label("Wrap lines").uncheck()
        assert log.evaluate("log => log.scrollWidth > log.clientWidth"), "a long line is not wrapped"
        log_end, page_end = (
            page.locator(selector).evaluate("one => one.getBoundingClientRect().bottom")
            for selector in ("section.logs", ".narrow section:last-child")
        )
        assert log_end >= page_end - 1, "the log fills the page"


def test_pending_job_gets_its_log_link_when_it_starts(stage: tuple[Served, Scene], browser: Browser) -> None:
    served, _ = stage

    async def submit(runway: Runway) -> str:
        return str((await runway.submit("speech")).json()["id"])

    async def start(runway: Runway) -> None:
        log = FakeLog()
        log.write(b"hello")
        runway.kubernetes.logs[f"{job_id}-0"] = log
        runway.kubernetes.start_pod(job_id)

    job_id = served.run(submit)
    with opened(browser, served.url, f"/jobs/{job_id}") as page:
        expect(page.locator("#log-note")).to_contain_text("No container has started")
        link = page.get_by_role("link", name="Full log")
        expect(link).to_have_count(0)
        expect(page.get_by_role("button", name="Pause")).to_be_hidden()
        served.run(start)
        expect(link).to_be_visible()
        expect(page.locator("#log")).to_have_text("hello")
        expect(page.locator("#cost")).to_contain_text("about")


@pytest.mark.parametrize("clipboard", [True, False], ids=["clipboard", "no clipboard"])
def test_copy_button_copies_or_selects_the_text(stage: tuple[Served, Scene], browser: Browser, clipboard: bool) -> None:
    served, scene = stage
    with Watched(browser, served.url, permissions=["clipboard-read", "clipboard-write"]) as seen:
        if not clipboard:
            seen.page.add_init_script("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
        seen.page.goto(f"/jobs/{scene.failed}")
        button = seen.page.get_by_role("button", name="Copy the id")
        button.click()
        if clipboard:
            expect(button).to_have_text("Copied")
            assert seen.page.evaluate("navigator.clipboard.readText()") == scene.failed
        else:
            expect(button).not_to_have_text("Copy")
            assert seen.page.evaluate("getSelection().toString()") == scene.failed
