"""Output at a terminal: live progress, lines that fit, and no text that steers it."""

from __future__ import annotations

import os
import pty
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runway.cli.commands.logs import TerminalSanitizer
from runway.cli.context import Environment
from testbed.waiting import GUARD_SECONDS
from tests.support.cli import COMMAND, NOW, URL, Chunks, Clock, FakeRunway, attempt, failure, job, problem, reply
from tests.unit.cli.test_event_stream import event, stream
from tests.unit.cli.test_output import HARMLESS, HOSTILE, steering
from tests.unit.cli.test_quota import QUOTA as QUOTA_PAGE

ID = "rw-" + "x" * 20
UNSCHEDULABLE = {"code": "unschedulable", "message": "no node has a free GPU", "since": "2026-11-24T08:02:00Z"}


@pytest.fixture(autouse=True)
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24", "RUNWAY_URL": URL}.items():
        monkeypatch.setenv(name, value)
    for name in ("NO_COLOR", "RUNWAY_TENANT"):
        monkeypatch.delenv(name, raising=False)


def seen(
    *arguments: str,
    answers: FakeRunway,
    keys: Sequence[str | type[BaseException] | None] = (),
    clock: Clock | None = None,
) -> tuple[int, str]:
    """Run `runway ARGUMENTS` at a terminal. Return the exit code and the output."""
    clock, left = clock or Clock(), list(keys)

    @contextmanager
    def scripted_keys() -> Iterator[Callable[[float], str | None]]:
        def read(seconds: float) -> str | None:
            key = left.pop(0)
            if isinstance(key, type):
                raise key
            clock.time += seconds if key is None else 0
            return key

        yield read

    edges = Environment(
        transport=httpx2.MockTransport(answers),
        sleep=clock.sleep,
        monotonic=clock.monotonic,
        random=lambda: 0.0,
        now=lambda: NOW,
        at_terminal=lambda: True,
        keys=scripted_keys,
    )
    parent, child = pty.openpty()
    written = bytearray()

    def collect() -> None:
        while True:
            try:
                chunk = os.read(parent, 65_536)
            except OSError:  # Linux says so when the other end is closed.
                return
            written.extend(chunk)

    reader = threading.Thread(target=collect)
    reader.start()
    try:
        with os.fdopen(child, "w") as screen, redirect_stdout(screen), redirect_stderr(screen):
            code = COMMAND.main(list(arguments), obj=edges, standalone_mode=False)
    finally:
        reader.join(timeout=GUARD_SECONDS)
        os.close(parent)
    return int(code or 0), written.decode()


def plain(written: str) -> str:
    """Return the output without colours and cursor movements."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written).replace("\r", "")


def test_live_progress_shows_state_condition_time_and_cost() -> None:
    waiting = job("pending", conditions=[UNSCHEDULABLE])
    done = job("succeeded", cost=job()["cost"] | {"actual": "0.25"})
    fake = FakeRunway([reply(done)], events=[stream(event(waiting, "1"))])
    code, written = seen("wait", "rw-4f2a", answers=fake)
    shown = plain(written)
    assert code == 0
    assert "rw-4f2a  train  pending" in shown
    assert "━━━━────────────────────  10m of 1h  0.00 of at most 1.418 USD" in shown
    assert "unschedulable (8m): no node has a free GPU" in shown
    assert written.count("\x1b[2K") >= 3, "the display is erased when the job is over"
    assert shown.rstrip().endswith("rw-4f2a succeeded (0.25 USD)")


def test_live_progress_shows_attempt_node_and_cost() -> None:
    running = job("running", attempts=[attempt("failed", finished_at="2026-11-24T08:01:30Z"), attempt(node="node-7")])
    fake = FakeRunway([reply(job("succeeded"))], events=[stream(event(running, "1"))])
    shown = plain(seen("wait", "rw-4f2a", answers=fake)[1])
    assert "running  attempt 2 of 2 on node-7" in shown
    assert "0.2482 of at most 1.418 USD" in shown


def test_dumb_terminal_gets_a_line_for_each_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    fake = FakeRunway([reply(job("succeeded"))], events=[stream(event(job("running"), "1"))])
    _, written = seen("wait", "rw-4f2a", answers=fake)
    assert "\x1b" not in written
    assert "rw-4f2a is running (10m of 1h, 0.00 of at most 1.418 USD)" in written


def test_without_colours_progress_is_still_live(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    fake = FakeRunway([reply(job("succeeded"))], events=[stream(event(job("running"), "1"))])
    _, written = seen("wait", "rw-4f2a", answers=fake)
    assert "\x1b[2K" in written
    assert re.search(r"\x1b\[[0-9;]*m", written) is None


@pytest.mark.parametrize("columns", [80, 60])
@pytest.mark.parametrize(
    "command", [("status", "rw-4f2a"), ("wait", "rw-4f2a"), ("ls",), ("top", "--once"), ("quota",)]
)
def test_everything_fits_a_narrow_terminal(
    command: tuple[str, ...], columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    words = "of 1001 nodes 1 has too little free CPU and 1000 have a taint " * 3
    view = job(
        "failed",
        id=ID,
        name="a-name-that-is-rather-long-for-a-name",
        conditions=[UNSCHEDULABLE | {"message": words}],
        attempts=[attempt("failed", pod=f"{ID}-12345", exit_code=137, signal="SIGKILL", cause="oom_killed")],
        failure=failure("oom_killed", message=words, hint=words, evidence={"words": words}),
        kubernetes={"namespace": "n", "job": "j"},
    )
    usage = dict.fromkeys(("cpu_cores", "cpu_limit_cores", "memory_bytes", "memory_limit_bytes", "gpu_utilisation"))
    page = reply({"jobs": [view | {"state": "running"}], "next_cursor": None})
    answers = {
        "ls": [page],
        "top": [reply(QUOTA_PAGE), page, reply(usage | {"throttled_ratio": None})],
        "quota": [reply(QUOTA_PAGE)],
    }
    _, written = seen(*command, answers=FakeRunway(list(answers.get(command[0], [reply(view)]))))
    lines = plain(written).splitlines()
    assert len(lines) > 1
    assert [line for line in lines if len(line) > columns] == []


def test_wide_output_ignores_the_width() -> None:
    view = job(name="n" * 100)
    page = reply({"jobs": [view], "next_cursor": None})
    assert "n" * 100 in plain(seen("ls", "-o", "wide", answers=FakeRunway([page]))[1])
    assert "n" * 100 not in plain(seen("ls", answers=FakeRunway([page]))[1])


@pytest.mark.parametrize("command", [("wait", "rw-4f2a"), ("status", "rw-4f2a"), ("ls",), ("top",)])
def test_hostile_text_does_not_steer_the_terminal(command: tuple[str, ...]) -> None:
    view = job(
        "running",
        name=HOSTILE,
        tenant=HOSTILE,
        conditions=[{"code": HOSTILE, "message": HOSTILE, "since": None}],
        attempts=[attempt(HOSTILE, pod=HOSTILE, node=HOSTILE, cause=HOSTILE)],
    )
    page = reply({"jobs": [view], "next_cursor": None})
    answers = {
        "wait": FakeRunway([reply(job("succeeded", name=HOSTILE))], events=[stream(event(view, "1"))]),
        "ls": FakeRunway([page]),
        "top": FakeRunway([reply(QUOTA_PAGE), page, problem(503, HOSTILE, title=HOSTILE, detail=HOSTILE)]),
    }
    _, written = seen(*command, answers=answers.get(command[0], FakeRunway([reply(view)])), keys=[None, "q"])
    assert HARMLESS[:8] in plain(written).replace("\n", "")
    assert steering(plain(written)) == set()
    assert "\x1b]" not in written


def test_top_refreshes_until_q() -> None:
    page = reply({"jobs": [job("pending", conditions=[UNSCHEDULABLE])], "next_cursor": None})
    fake = FakeRunway([reply(QUOTA_PAGE), page] * 3)
    code, written = seen("top", "--every", "2", answers=fake, keys=[None, None, "x", "q"])
    assert code == 0
    assert fake.paths.count("GET /v1/quota") == 3, "x is no reason to look earlier"
    assert "every 2 s, q exits" in plain(written)
    assert written.index("\x1b[?1049h") < written.index("\x1b[?1049l"), "the screen from before is put back"


def test_top_ends_with_an_interrupt() -> None:
    page = reply({"jobs": [], "next_cursor": None})
    assert seen("top", answers=FakeRunway([reply(QUOTA_PAGE), page]), keys=[KeyboardInterrupt])[0] == 0


def test_top_shows_the_age_of_figures_in_an_outage() -> None:
    clock = Clock()
    page = reply({"jobs": [job("pending")], "next_cursor": None})
    fake = FakeRunway([reply(QUOTA_PAGE), page, problem(503, "not_ready", retry_after=42)])
    code, written = seen("top", answers=fake, keys=[None, "q"], clock=clock)
    assert code == 0
    assert "Not today: It is closed. (figures are 0 s old)" in plain(written)
    assert plain(written).count("rw-4f2a") == 2, "the last figures stay"


def test_submission_at_a_terminal_names_the_next_command() -> None:
    written = seen("submit", "--image", "x", answers=FakeRunway([reply(job(), 201)]))[1]
    assert "next: runway wait rw-4f2a" in plain(written)


def test_log_keeps_colours_and_cannot_steer_the_terminal() -> None:
    text = b"\x1b[32mok\x1b[0m 50%\r100%\n\x1b]0;owned\x07\x1b[2J\x1b[31mred"
    answer = httpx2.Response(200, stream=Chunks(text))
    _, written = seen("logs", "rw-4f2a", answers=FakeRunway([answer]))
    assert written.replace("\r\n", "\n") == (
        "\x1b[32mok\x1b[0m 50%\r100%\n\\x1b]0;owned\\x07\\x1b[2J\x1b[31mred\x1b[0m"
    )


@given(st.binary(max_size=60) | st.text("\x1b[0;1mK]\n\té", max_size=60).map(str.encode), st.integers(1, 9))
def test_sanitizer_output_does_not_depend_on_chunks(text: bytes, size: int) -> None:
    whole, pieces = TerminalSanitizer(), TerminalSanitizer()
    shown = b"".join(pieces.feed(text[at : at + size]) for at in range(0, len(text), size)) + pieces.close()
    assert shown == whole.feed(text) + whole.close()
    assert steering(re.sub(r"\x1b\[[0-9;:]*m|[\r\t]", "", shown.decode())) == set()
