"""`runway logs`: read a log, or follow it through broken connections."""

from __future__ import annotations

import codecs
import json
import math
import os
import re
import select
import stat
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from functools import partial
from threading import Thread
from typing import Annotated, BinaryIO, Final, Literal

import typer

from runway.backoff import Backoff
from runway.cli.client import ApiError, LogStream, RequestFailed, StreamIdle
from runway.cli.context import Exit, Session, open_session
from runway.cli.options import DEFAULT_URL, JobOrNewest, Tenant, Url
from runway.cli.output import Output
from runway.cli.resolve import find_job, newest_job
from runway.cli.views.progress import progress
from runway.cli.wait import IDLE_SECONDS, STABLE_SECONDS, RetryBudget, briefly
from runway.jobs.models import JobView
from runway.log_cursor import JUMP_SECONDS, NANOSECONDS, LineTime, LogCursor, Piece, line_time
from runway.text import escape_controls, one_line

MAX_JSON_LINE_BYTES = 1 << 16
"""A longer line becomes several JSON objects: a log without newlines must not fill the memory."""

_EXIT_OF_BROKEN_PIPE: Final = 1  # As typer exits after EPIPE.

LogOutput = Literal["text", "json"]


def logs(
    context: typer.Context,
    job: JobOrNewest = None,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Follow the log until the attempt ends.")] = False,
    tail: Annotated[int | None, typer.Option(min=0, metavar="LINES", help="Only the last lines.")] = None,
    attempt: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="The Nth attempt instead of the latest.")
    ] = None,
    timestamps: Annotated[bool, typer.Option("--timestamps", help="Prefix each line with its time.")] = False,
    output: Annotated[LogOutput, typer.Option("-o", "--output", help="Format of the log on stdout.")] = "text",
    url: Url = DEFAULT_URL,
    tenant: Tenant = None,
) -> None:
    """Show the stdout and stderr of a job.

    With -f the command follows the log until the attempt ends; it resumes after broken connections without repeating a
    line. Once the pod is deleted, the command shows the excerpt that Runway stored. A pipe gets the bytes of the log
    unchanged. A terminal gets its colours, and every other control character as an escape.
    """
    writer = LogWriter(typer.get_binary_stream("stdout"), output, timestamps=timestamps)
    problem_format = Output.JSON if output == "json" else Output.TABLE
    with open_session(context, url, tenant, problem_format) as session:
        job_id = briefly(session, lambda: newest_job(session) if job is None else find_job(session, job))
        if follow:
            _show_wait(session, job_id, attempt)
            watch_reader(typer.get_binary_stream("stdout"), lambda: os._exit(_EXIT_OF_BROKEN_PIPE))
            if not follow_log(session, job_id, writer, tail=tail, attempt=attempt):
                session.screen.err(f"{job_id} ended before it wrote a log; `runway status {job_id}` shows why")
                raise typer.Exit(Exit.REJECTED)
            return
        stamps = timestamps or output == "json"
        try:
            with ExitStack() as stack:
                opened = partial(
                    session.client.logs, job_id, follow=False, tail=tail, attempt=attempt, timestamps=stamps
                )
                log = briefly(session, lambda: stack.enter_context(opened()))
                _show_warning(session, log.warning)
                if stamps:
                    _write_new(log.chunks, LogCursor(), writer)
                else:
                    for chunk in log.chunks:
                        writer.write(Piece(b"", chunk))
                writer.close()
            if writer.is_empty and tail != 0:
                session.screen.err(f"The log of {job_id} is empty.")
        except ApiError as error:
            _show_excerpt(session, error, writer)


def watch_reader(stdout: BinaryIO, on_exit: Callable[[], None]) -> None:
    """Call `on_exit` in a thread when the reader of a pipe exits, as `head` does: a quiet log writes nothing for long.

    The command then ends as after a write to that pipe. A thread cannot interrupt the main one while it reads a socket.
    """
    try:
        descriptor = stdout.fileno()
    except (OSError, ValueError):
        return
    if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
        Thread(target=_wait_for_exit, args=(descriptor, on_exit), daemon=True).start()


def _wait_for_exit(pipe: int, on_exit: Callable[[], None]) -> None:
    poll = select.poll()
    poll.register(pipe, 0)  # POLLERR and POLLHUP are always reported.
    if any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll()):
        on_exit()


def follow_log(
    session: Session, job_id: str, writer: LogWriter, *, tail: int | None = None, attempt: int | None = None
) -> bool:
    """Write a job's log until the server ends it. Return False where the job ended before it wrote a log.

    Raises RequestFailed where Runway rejects the call or stays unreachable.
    """
    cursor = LogCursor(from_start=tail is None)
    budget, backoff = RetryBudget(session), Backoff(session.environment.random)
    finished, monotonic = False, session.environment.monotonic
    while True:
        opened_at = math.inf
        try:
            with session.client.logs(
                job_id, follow=True, attempt=attempt, timestamps=True, tail=tail if cursor.at_start else None
            ) as log:
                opened_at = monotonic()
                # Stay with this attempt: after a break another one may be the latest.
                attempt = attempt if log.attempt is None else log.attempt
                _show_warning(session, _gap_before(log, cursor) if cursor.newest else log.warning)
                cursor.rewind()
                _write_new(log.chunks, cursor, writer, budget.answered)
            writer.close()
            return True
        except StreamIdle:
            continue
        except RequestFailed as error:
            if error.code == "logs_gone":
                if cursor.at_start:
                    _show_excerpt(session, error, writer)
                else:
                    writer.close()
                    reason = "The pod was deleted before its log was fully read; the last lines may be missing."
                    session.screen.err(reason, style="yellow")
                    _show_link(session, error)
                return True
            if error.code == "unreachable" and monotonic() - opened_at > STABLE_SECONDS:
                budget.answered()  # A proxy ends a quiet stream after a while.
                continue
            if error.code != "logs_not_ready":
                session.environment.sleep(budget.pause_after(error))
                continue
        if finished:
            return not cursor.at_start
        finished = _is_finished(session, job_id, budget)
        # A finished job is read once more at once: it may have run since the last read.
        if not finished:
            session.environment.sleep(backoff.next())


class LogWriter:
    """Writes the lines of a log. A terminal gets sanitized text, every other stream the bytes of the log."""

    def __init__(self, stream: BinaryIO, output: LogOutput = "text", *, timestamps: bool = False) -> None:
        self._stream = stream
        self._output = output
        self._timestamps = timestamps
        self._line = b""
        self._stamp = b""
        self._sanitizer = TerminalSanitizer() if output == "text" and stream.isatty() else None
        self.is_empty = True

    def write(self, piece: Piece) -> None:
        """Write a part of a line: text at once, JSON when the line has ended or is too long."""
        self.is_empty = self.is_empty and not piece.text
        if self._output == "text":
            text = piece.stamp + b" " + piece.text if self._timestamps and piece.stamp else piece.text
            self._stream.write(text if self._sanitizer is None else self._sanitizer.feed(text))
            self._stream.flush()
            return
        self._stamp = piece.stamp or self._stamp
        self._line += piece.text
        while len(self._line) > MAX_JSON_LINE_BYTES:
            self._write_json(self._line[:MAX_JSON_LINE_BYTES])
            self._line = self._line[MAX_JSON_LINE_BYTES:]
        if self._line.endswith(b"\n"):
            self.close()

    def close(self) -> None:
        if self._line:
            self._write_json(self._line)
        self._line, self._stamp = b"", b""
        if self._sanitizer is not None:
            self._stream.write(self._sanitizer.close())
            self._stream.flush()

    def _write_json(self, line: bytes) -> None:
        text = line.decode("utf-8", "replace").removesuffix("\n")
        entry = {"timestamp": self._stamp.decode("ascii") or None, "line": text}
        self._stream.write(json.dumps(entry).encode() + b"\n")
        self._stream.flush()


def _write_new(
    chunks: Iterable[bytes], cursor: LogCursor, writer: LogWriter, answered: Callable[[], None] = lambda: None
) -> None:
    for chunk in chunks:
        for piece in cursor.feed(chunk):
            answered()
            writer.write(piece)
    if cursor.unexpected_text:
        detail = f"a line of the log has no timestamp: {cursor.unexpected_text[:80]!r}"
        raise ApiError(200, {"title": "Unexpected answer", "detail": detail, "code": "unexpected_answer"})


def _show_wait(session: Session, job_id: str, attempt: int | None) -> None:
    """Show on stderr why the job waits, until a container of the attempt starts. Without a stream show nothing."""
    with (
        suppress(RequestFailed),
        progress(session) as show,
        session.client.events(job_id, None, IDLE_SECONDS, lambda: False) as events,
    ):
        for _, view in events:
            if view.value.is_finished or _has_started(view.value, attempt):
                return
            show(view.value)


def _has_started(view: JobView, attempt: int | None) -> bool:
    number = view.attempt_count if attempt is None else attempt
    shown = view.attempts[-1:] if number == view.attempt_count else ()
    return number < view.attempt_count or any(one.started_at is not None for one in shown)


def _show_warning(session: Session, warning: str) -> None:
    if warning:
        session.screen.err(f"Note: {one_line(warning)}", style="yellow", hang=6)


def _gap_before(log: LogStream, cursor: LogCursor) -> str:
    """Say that lines are missing after a break: the node's file begins later than the last line shown. Else empty."""
    begins, last = line_time(log.first_line_at.encode("latin-1", "replace") + b" "), cursor.newest
    if begins is None or last is None or begins.nanoseconds - last <= JUMP_SECONDS * NANOSECONDS:
        return ""
    seen = LineTime("", last).moment
    times = f"{seen:%H:%M:%S} and {begins.moment:%H:%M:%S} UTC"
    return f"lines between {times} may be missing: the node rotated the log away"


def _show_excerpt(session: Session, error: RequestFailed, writer: LogWriter) -> None:
    excerpt = error.problem.get("excerpt")
    if error.code != "logs_gone" or not isinstance(excerpt, str) or not excerpt:
        raise error
    session.screen.err("The pod is deleted; this is the excerpt that Runway stored:", style="yellow")
    for line in excerpt.splitlines():
        writer.write(Piece(b"", line.encode("utf-8", "replace") + b"\n"))
    _show_link(session, error)


def _show_link(session: Session, error: RequestFailed) -> None:
    if isinstance(url := error.problem.get("logs_url"), str):
        session.screen.err(f"Stored logs: {url}")


def _is_finished(session: Session, job_id: str, budget: RetryBudget) -> bool:
    try:
        view = session.client.job(job_id).value
    except RequestFailed as error:
        session.environment.sleep(budget.pause_after(error))
        return False
    budget.answered()
    return view.is_finished


# Colours (SGR) alone: the other sequences of ECMA-48 move the cursor, erase, rename the window or query the terminal.
_COLOUR: Final = re.compile(r"\x1b\[[0-9;:]{0,40}m")
_UNFINISHED: Final = re.compile(r"\x1b(?:\[[0-9;:]{0,40})?\Z")
_KEPT: Final = re.compile(rf"({_COLOUR.pattern}|[\n\r\t])")


class TerminalSanitizer:
    """Sanitizes a log that arrives in pieces, cut anywhere. Bytes that are not UTF-8 become U+FFFD."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held = ""
        self._coloured = False

    def feed(self, piece: bytes) -> bytes:
        text = self._held + self._decoder.decode(piece)
        unfinished = _UNFINISHED.search(text)
        self._held = unfinished[0] if unfinished else ""
        return self._sanitized(text.removesuffix(self._held) if self._held else text)

    def close(self) -> bytes:
        """Return the text held back, and reset the colours that the log began."""
        text, self._held = self._held + self._decoder.decode(b"", final=True), ""
        return self._sanitized(text) + (b"\x1b[0m" if self._coloured else b"")

    def _sanitized(self, text: str) -> bytes:
        self._coloured = self._coloured or _COLOUR.search(text) is not None
        parts = _KEPT.split(text)
        return "".join(part if at % 2 else escape_controls(part) for at, part in enumerate(parts)).encode()
