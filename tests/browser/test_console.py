"""The console in a browser: hostile content stays text, and pages update live."""

from __future__ import annotations

import json

import pytest
from playwright.sync_api import Browser, expect

from runway.jobs.annotations import ANNOTATION_SPEC
from testbed.waiting import wait_for
from tests.api.conftest import Runway
from tests.browser.conftest import Served
from tests.support.chromium import NARROW, WIDE, Watched
from tests.support.fake_cluster import copy_of
from tests.support.fake_logs import FakeLog

HOSTILE = '"\'></code></pre><script>window.run=1</script><img src=x onerror="window.run=2"><svg onload="window.run=3">'
HIDDEN = "\u202egpj.exe\u2066\x1b[31m\x07\u200b"
LONG = "x" * 3000


async def hostile_job(runway: Runway, *, finished: bool) -> str:
    """Create a running or failed job with hostile content in every field that a user or container sets."""
    kubernetes, words = runway.kubernetes, HOSTILE + HIDDEN
    job_id = str((await runway.submit(command=["sh", "-c", words], env={"A": words})).json()["id"])
    job = copy_of(kubernetes.job(job_id))
    spec = json.loads(job["metadata"]["annotations"][ANNOTATION_SPEC])
    spec |= {"image": words + LONG, "env": {words: "value", LONG: ""}}
    job["metadata"]["annotations"][ANNOTATION_SPEC] = json.dumps(spec)
    job["metadata"]["labels"]["runway.internal/name"] = words + LONG
    kubernetes.put("jobs", job, "MODIFIED")
    pod = kubernetes.start_pod(job_id, node=words + LONG)
    log = FakeLog()
    log.write(words.encode(), LONG.encode(), b"\xff\xfe not UTF-8")
    kubernetes.logs[pod] = log
    if finished:
        kubernetes.end_pod(pod, 1, reason=words, message=words + LONG)
        kubernetes.fail(job_id, reason=words)
    await runway.until_state(job_id, "failed" if finished else "running")
    return job_id


@pytest.mark.parametrize("finished", [False, True], ids=["running", "failed"])
def test_untrusted_job_text_never_becomes_markup(served: Served, browser: Browser, finished: bool) -> None:
    job_id = served.run(lambda runway: hostile_job(runway, finished=finished))
    with Watched(browser, served.url) as seen:
        for path in (f"/jobs/{job_id}", "/jobs", "/", "/tenants/vision"):
            seen.page.set_viewport_size({"width": WIDE, "height": 800})
            seen.page.goto(path)
            if path == f"/jobs/{job_id}":
                expect(seen.page.locator("#log")).to_contain_text("not UTF-8")
                expect(seen.page.locator("#log")).to_contain_text("<script>window.run=1</script>")
                expect(seen.page.locator("#spec-title + dl")).to_contain_text("<img src=x")
            assert seen.page.evaluate("window.run") is None
            assert seen.page.locator("main img, main script, main [onload], main [onerror]").count() == 0
            text = seen.page.evaluate("document.documentElement.textContent")
            assert not set("\u202e\u2066\x1b\x07\u200b") & set(text), "invisible characters are escaped"
            for width in (WIDE, NARROW):
                seen.page.set_viewport_size({"width": width, "height": 800})
                assert seen.overflow() <= 0, f"{path} at {width} px"
        assert seen.complaints == []


def test_followed_log_never_becomes_markup(served: Served, browser: Browser) -> None:
    job_id = served.run(lambda runway: hostile_job(runway, finished=False))
    with Watched(browser, served.url) as seen:
        seen.page.goto(f"/jobs/{job_id}")
        expect(seen.page.locator("#log-note")).to_contain_text("Following attempt 1")

        async def say(runway: Runway) -> None:
            log = runway.kubernetes.logs[f"{job_id}-0"]
            assert isinstance(log, FakeLog)
            log.write(f"later {HOSTILE}{HIDDEN} end".encode())

        served.run(say)
        expect(seen.page.locator("#log")).to_contain_text("later \"'></code></pre><script>window.run=1</script>")
        expect(seen.page.locator("#log")).to_contain_text("\\u{202e}gpj.exe\\u{2066}\\u{1b}[31m\\u{7}\\u{200b} end")
        assert seen.page.evaluate("window.run") is None
        assert seen.complaints == []


def test_hostile_path_is_text_on_the_error_page(served: Served, browser: Browser) -> None:
    with Watched(browser, served.url) as seen:
        for path in ("/jobs?state=<img src=x onerror=alert(1)>", "/nowhere/<script>alert(1)</script>"):
            seen.page.goto(path)
            expect(seen.page.get_by_role("heading", level=1)).to_be_visible()
            assert seen.page.locator("main img, main script").count() == 0
        assert [words for words in seen.complaints if "status of 4" not in words] == []


def test_page_follows_a_job_without_reload(served: Served, browser: Browser) -> None:
    async def submit(runway: Runway) -> str:
        return str((await runway.submit()).json()["id"])

    async def run(runway: Runway) -> None:
        pod = runway.kubernetes.start_pod(job_id)
        runway.kubernetes.logs[pod] = log

    async def fail(runway: Runway) -> None:
        log.write(b"last words")
        runway.kubernetes.end_pod(f"{job_id}-0", 3)
        runway.kubernetes.fail(job_id)

    job_id, log = served.run(submit), FakeLog()
    with Watched(browser, served.url) as seen:
        page, state = seen.page, seen.page.locator("h1 .state")
        page.goto(f"/jobs/{job_id}")
        page.evaluate("window.marked = true")
        expect(state).to_have_text("pending")
        served.run(run)
        expect(state).to_have_text("running")
        expect(page.locator("#announcement")).to_have_text("The job is now running")
        served.run(fail)
        expect(state).to_have_text("failed")
        expect(page.locator("#announcement")).to_have_text("The job is now failed")
        expect(page.locator(".verdict")).to_contain_text("exit_nonzero")
        expect(page.locator("#log")).to_contain_text("last words")
        expect(page.locator("#live")).to_contain_text("Finished")
        expect(page.locator("#cost .name")).to_have_text("Actual")
        expect(page.locator("#log-note")).to_contain_text("has ended")
        assert page.evaluate("window.marked") is True, "the page was reloaded"
        assert seen.complaints == []


def test_job_page_follows_the_next_attempt(served: Served, browser: Browser) -> None:
    async def first(runway: Runway) -> str:
        job_id = str((await runway.submit(retries=1)).json()["id"])
        log = FakeLog()
        log.write(b"first attempt")
        runway.kubernetes.logs[runway.kubernetes.start_pod(job_id)] = log
        await runway.until_state(job_id, "running")
        return job_id

    job_id = served.run(first)
    with Watched(browser, served.url) as seen:
        seen.page.goto(f"/jobs/{job_id}")
        expect(seen.page.locator("#log")).to_have_text("first attempt")

        async def second(runway: Runway) -> None:
            runway.kubernetes.end_pod(f"{job_id}-0", 1)
            log = FakeLog()
            log.write(b"second attempt")
            runway.kubernetes.logs[runway.kubernetes.start_pod(job_id)] = log

        served.run(second)
        expect(seen.page.locator("#log")).to_have_text("second attempt")
        expect(seen.page.locator("#attempts tbody th")).to_have_count(2)
        assert seen.complaints == []


def test_followed_progress_bar_shows_its_end_state(served: Served, browser: Browser) -> None:
    """https://github.com/tqdm/tqdm/issues/1319"""

    async def start(runway: Runway) -> str:
        job_id = str((await runway.submit()).json()["id"])
        log = FakeLog()
        log.write(b"epoch 1")
        runway.kubernetes.logs[runway.kubernetes.start_pod(job_id)] = log
        await runway.until_state(job_id, "running")
        return job_id

    async def say(runway: Runway, *pieces: bytes, partial: bool = True) -> None:
        log = runway.kubernetes.logs[f"{job_id}-0"]
        assert isinstance(log, FakeLog)
        log.write(*pieces, partial=partial)

    job_id = served.run(start)
    with Watched(browser, served.url) as seen:
        seen.page.goto(f"/jobs/{job_id}")
        expect(seen.page.locator("#log-note")).to_contain_text("Following attempt 1")
        log = seen.page.locator("#log")
        served.run(lambda runway: say(runway, b" 10%", b"\r 50%\r"))
        expect(log).to_have_text("epoch 1\n 50%", use_inner_text=True)
        served.run(lambda runway: say(runway, b" 90%"))
        expect(log).to_have_text("epoch 1\n 90%", use_inner_text=True)
        served.run(lambda runway: say(runway, b"\r100%\r", b"epoch 2\r", partial=False))
        expect(log).to_have_text("epoch 1\n100%\nepoch 2", use_inner_text=True)
        assert seen.complaints == []


def test_hidden_page_closes_its_streams(served: Served, browser: Browser) -> None:
    job_id = served.run(lambda runway: hostile_job(runway, finished=False))

    async def streams(runway: Runway) -> int:
        return int(runway.app.state.services.limits.streams.total())

    with Watched(browser, served.url) as seen:
        seen.page.goto(f"/jobs/{job_id}")
        expect(seen.page.locator("#log-note")).to_contain_text("Following attempt 1")
        expect(seen.page.locator("#live")).to_have_attribute("data-how", "on")
        assert served.run(streams) == 2
        _set_visibility(seen, "hidden")
        wait_for(lambda: served.run(streams) == 0 or None, "both streams closed")
        _set_visibility(seen, "visible")
        wait_for(lambda: served.run(streams) == 2 or None, "both streams open")
        assert seen.complaints == []


def _set_visibility(seen: Watched, state: str) -> None:
    """Set the visibility of the page, which a headless browser never changes."""
    seen.page.evaluate(
        """(state) => {
            Object.defineProperty(document, "visibilityState", { value: state, configurable: true });
            document.dispatchEvent(new Event("visibilitychange"));
        }""",
        state,
    )


def test_page_shows_lost_and_restored_server(browser: Browser) -> None:
    with Served() as served, Watched(browser, served.url) as seen:
        seen.page.clock.install()
        seen.page.goto("/")
        seen.page.route("**/*", lambda route: route.abort())
        seen.page.clock.run_for(10_000)
        expect(seen.page.locator("#live")).to_contain_text("Not live")
        seen.page.unroute("**/*")
        seen.page.clock.run_for(60_000)
        expect(seen.page.locator("#live")).to_contain_text("Live")
