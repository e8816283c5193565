"""The console in Chromium with real jobs: content, live updates, accessibility."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from testbed.context import Context, Tools
from testbed.http_client import shell
from testbed.server import Server
from tests.support.allowed import once_allowed
from tests.support.chromium import NARROW, WIDE, Watched, chromium
from tests.support.held_jobs import held

pytestmark = pytest.mark.cluster

ENDLESS_LOG = "i=0; while :; do i=$((i+1)); echo step $i; sleep 0.5; done"
TINY = {"cpu": "100m", "memory": "32Mi"}


@dataclass(frozen=True)
class Scene:
    """The URL of the console, and the ids of jobs in five different states."""

    url: str
    succeeded: str
    failed: str
    running: str
    pending: str
    cancelled: str

    def pages(self) -> dict[str, str]:
        """Return the path of every kind of page by the name of its screenshot."""
        jobs = ("succeeded", "failed", "running", "pending", "cancelled")
        lists = {"overview": "/", "jobs": "/jobs", "capacity": "/capacity", "tenant": "/tenants/vision"}
        others = lists | {"error": "/jobs?state=asleep"}
        return others | {f"job-{name}": f"/jobs/{getattr(self, name)}" for name in jobs}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def scene(server: Server, tools: Tools) -> Iterator[Scene]:
    context = Context(tools, show=lambda *_: None)

    def submit(name: str, script: str, tenant: str = "vision", **fields: object) -> str:
        return str(context.submit(tenant, shell(script, name=name, timeout_seconds=900, **fields))["id"])

    try:
        succeeded = submit("prepare-data", "for i in 1 2 3; do echo shard $i of 3 written; sleep 1; done")
        out_of_memory = shell("", name="train-large-batch", retries=1) | {"command": ["tail", "/dev/zero"]}
        failed = context.submit("vision", out_of_memory)["id"]
        running = submit(
            "train-resnet", ENDLESS_LOG, resources=TINY | {"gpu": 2}, env={"SITE_TOKEN": "not-to-be-shown", "N": "3"}
        )
        cancelled = submit("sweep-17", ENDLESS_LOG)
        pending = submit("evaluate", "true", "research", pool="large", resources=TINY | {"cpu": "8"})
        for job_id in (running, cancelled):
            context.until(job_id, lambda view: view["state"] == "running", "running")
        context.runway.cancel(cancelled)
        for job_id in (succeeded, failed, cancelled):
            context.until_finished(job_id)
        context.until(pending, lambda view: any(at["code"] == "unschedulable" for at in view["conditions"]), "waits")
        yield Scene(server.url, succeeded, failed, running, pending, cancelled)
    finally:
        context.cancel_jobs()


@pytest.mark.parametrize(("scheme", "width"), [("light", WIDE), ("dark", WIDE), ("light", NARROW), ("dark", NARROW)])
def test_pages_are_accessible_in_every_color_scheme_and_width(
    scene: Scene, browser: Browser, scheme: str, width: int
) -> None:
    with Watched(browser, scene.url, color_scheme=scheme, viewport={"width": width, "height": 800}) as seen:
        for name, path in scene.pages().items():
            seen.page.goto(path)
            expect(seen.page.get_by_role("heading", level=1)).to_be_visible()
            if name == "job-running":
                expect(seen.page.locator("#log")).to_contain_text("step 2")
            assert seen.overflow() <= 0, f"{name} at {width} px"
            if scheme == "light" or width == WIDE:
                assert seen.barriers() == [], name
            seen.picture(f"{name}-{scheme}-{width}")
        assert [words for words in seen.complaints if "status of 422" not in words] == []


def test_job_page_shows_state_changes_without_reload(scene: Scene, context: Context, browser: Browser) -> None:
    job = held(code=3)
    job_id = context.submit("vision", shell(job.script))["id"]
    with Watched(browser, scene.url) as seen:
        page = _open_marked(seen, f"/jobs/{job_id}")
        expect(page.locator("h1 .state")).to_have_text("running")
        expect(page.locator("#log")).to_contain_text("started")
        job.end()
        expect(page.locator("h1 .state")).to_have_text("failed")
        expect(page.locator("#announcement")).to_have_text("The job is now failed")
        expect(page.locator("#log")).to_contain_text("finished")
        expect(page.locator(".verdict")).to_contain_text("exit_nonzero")
        expect(page.locator("#timeline svg.end.failed")).to_be_visible()
        expect(page.locator("#attempts")).to_contain_text("exit 3")
        expect(page.locator("#live")).to_contain_text("Finished")
        expect(page.locator("#cost .name")).to_have_text("Actual")
        _assert_not_reloaded(page)
        assert seen.complaints == []


def test_job_page_follows_log_until_cancel(scene: Scene, context: Context, browser: Browser) -> None:
    job_id = context.submit("vision", shell(ENDLESS_LOG))["id"]
    context.until_log(job_id, "step 2")
    with Watched(browser, scene.url) as seen:
        page = _open_marked(seen, f"/jobs/{job_id}")
        before = page.locator("#log").inner_text().count("step")
        page.wait_for_function(
            "(before) => document.querySelector('#log').textContent.split('step').length > before + 4", arg=before
        )
        context.runway.cancel(job_id)
        expect(page.locator("h1 .state")).to_have_text("cancelled")
        expect(page.locator(".moments")).to_contain_text("cancelled")
        _assert_not_reloaded(page)
        assert seen.complaints == []


def test_new_job_appears_on_overview_and_job_list(scene: Scene, context: Context, browser: Browser) -> None:
    with Watched(browser, scene.url) as seen, Watched(browser, scene.url) as beside:
        pages = [_open_marked(seen, "/"), _open_marked(beside, "/jobs?tenant=speech")]
        job_id = once_allowed(context, "speech", shell("sleep 30", resources=TINY | {"gpu": 1}))["id"]
        for page in pages:
            expect(link_to(page, job_id)).to_be_visible()
            _assert_not_reloaded(page)
        expect(pages[0].locator("#quota article", has_text="speech").locator("li", has_text="GPU")).to_contain_text(
            "1 of 2"
        )


def test_pages_work_without_javascript(scene: Scene, browser: Browser) -> None:
    with Watched(browser, scene.url, java_script_enabled=False) as seen:
        page = seen.page
        page.goto(f"/jobs/{scene.running}")
        expect(page.locator("#log")).to_contain_text("step ")
        expect(page.get_by_role("link", name="Reload")).to_be_visible()
        expect(page.locator("body")).not_to_contain_text("not-to-be-shown")
        page.goto(f"/jobs/{scene.failed}")
        expect(page.locator(".verdict")).to_contain_text("oom_killed")
        expect(page.locator(".verdict")).to_contain_text("raise resources.memory")
        expect(page.locator("#attempts tbody th")).to_have_count(2)
        page.goto(f"/jobs/{scene.pending}")
        expect(page.locator(".waits")).to_contain_text("unschedulable")
        page.goto("/jobs")
        page.get_by_label("State").select_option("cancelled")
        page.get_by_role("button", name="Filter").click()
        expect(link_to(page, scene.cancelled)).to_be_visible()
        expect(link_to(page, scene.running)).to_have_count(0)


def test_filter_and_job_are_reachable_by_keyboard(scene: Scene, browser: Browser) -> None:
    with Watched(browser, scene.url) as seen:
        page = seen.page
        page.goto("/jobs")
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        expect(page.get_by_label("Name or id")).to_be_focused()
        page.keyboard.press("Tab")
        expect(page.get_by_label("Tenant")).to_be_focused()
        page.keyboard.type("research")
        page.keyboard.press("Tab")
        expect(page.get_by_label("State")).to_be_focused()
        page.keyboard.type("pending")
        expect(page).to_have_url(f"{scene.url}/jobs?tenant=research&state=pending")
        link = link_to(page, scene.pending)
        expect(link).to_be_visible()
        for _ in range(20):
            page.keyboard.press("Tab")
            if link.evaluate("(element) => element === document.activeElement"):
                break
        assert link.evaluate("(element) => getComputedStyle(element).outlineStyle") == "solid", "the focus is visible"
        page.keyboard.press("Enter")
        expect(page).to_have_url(f"{scene.url}/jobs/{scene.pending}?tenant=research&state=pending")


def link_to(page: Page, job_id: str) -> Locator:
    """Return the link to a job in the list of jobs: its text is the name."""
    return page.locator("#list, #newest").locator(f'a[href^="/jobs/{job_id}"]')


def _open_marked(seen: Watched, path: str) -> Page:
    """Open a page and set a mark in it that a reload would remove."""
    seen.page.goto(path)
    seen.page.evaluate("window.marked = true")
    return seen.page


def _assert_not_reloaded(page: Page) -> None:
    assert page.evaluate("window.marked") is True, "the page was reloaded"
