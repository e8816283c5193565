"""`runway logs`, and following a log through broken connections with each line shown once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import Annotated, BinaryIO

import typer

from runway.cli.client import ApiError, RequestFailed, StreamIdle
from runway.cli.context import Session, open_session
from runway.cli.exits import Exit
from runway.cli.options import DEFAULT_URL, JobId, Tenant, Url
from runway.cli.output import Output
from runway.cli.terminal_sanitizer import TerminalSanitizer
from runway.cli.wait import Backoff, RetryBudget
from runway.cli.wire import is_over
from runway.log_cursor import LogCursor, Piece

MAX_JSON_LINE_BYTES = 1 << 16
"""A longer line becomes several JSON objects, so that a log without newlines fills no memory."""


class LogOutput(StrEnum):
    """The forms of `logs -o`: the log as it is, or one JSON object a line."""

    TEXT = "text"
    JSON = "json"


def logs(
    context: typer.Context,
    job_id: JobId,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Stay until the attempt ends.")] = False,
    tail: Annotated[int | None, typer.Option("--tail", min=0, metavar="LINES", help="Only the last lines.")] = None,
    attempt: Annotated[
        int | None, typer.Option("--attempt", min=1, metavar="N", help="The Nth attempt instead of the latest.")
    ] = None,
    timestamps: Annotated[bool, typer.Option("--timestamps", help="Begin each line with its time.")] = False,
    output: Annotated[LogOutput, typer.Option("-o", "--output", help="Form of the log on stdout.")] = LogOutput.TEXT,
    url: Url = DEFAULT_URL,
    tenant: Tenant = None,
) -> None:
    """Show what a job wrote to stdout and stderr.

    With -f lines come as they are written, each once through broken connections too, until the attempt ends. Once the
    pod is gone, the excerpt that Runway kept is shown instead. The log's bytes are passed on as they are; at a terminal
    colours are, and what else could drive it is shown as an escape.
    """
    writer = LogWriter(typer.get_binary_stream("stdout"), output, timestamps=timestamps)
    problem_form = Output.JSON if output is LogOutput.JSON else Output.TABLE
    with open_session(context, url, tenant, problem_form) as session:
        if follow:
            if not follow_log(session, job_id, writer, tail=tail, attempt=attempt):
                session.screen.err(f"{job_id} ended before it could write a log; `runway status {job_id}` says why")
                raise typer.Exit(Exit.REJECTED)
            return
        stamps = writer.needs_stamps
        try:
            with session.client.logs(job_id, follow=False, tail=tail, attempt=attempt, timestamps=stamps) as log:
                if stamps:
                    _write_new(log.chunks, LogCursor(), writer)
                else:
                    for chunk in log.chunks:
                        writer.write(Piece(b"", chunk))
                writer.close()
        except ApiError as error:
            _show_excerpt(session, error, writer)


def follow_log(
    session: Session, job_id: str, writer: LogWriter, *, tail: int | None = None, attempt: int | None = None
) -> bool:
    """Write a job's log until the server ends it, waiting for its start and through broken connections.

    False where the job ended before it wrote a log. Raises RequestFailed where Runway refuses or stays away too long.
    """
    cursor = LogCursor(from_start=tail is None)
    patience, backoff = RetryBudget(session), Backoff(session.edges.random)
    over = False
    while True:
        try:
            with session.client.logs(
                job_id, follow=True, attempt=attempt, timestamps=True, tail=tail if cursor.at_start else None
            ) as log:
                # From now on of this attempt: the last one may be another after a break.
                attempt = attempt if log.attempt is None else log.attempt
                cursor.rewind()
                _write_new(log.chunks, cursor, writer, patience.answered)
            writer.close()
            return True
        except StreamIdle:
            continue
        except RequestFailed as error:
            if error.code == "logs_gone":
                return _is_gone(session, error, writer, cursor)
            if error.code != "logs_not_ready":
                session.edges.sleep(patience.pause_after(error))
                continue
        if over:
            return not cursor.at_start
        over = _is_over(session, job_id, patience)
        # A job that is over gets one more look at once: it may have run and ended since the last one.
        if not over:
            session.edges.sleep(backoff.next())


class LogWriter:
    """Writes the lines of a log in the form that was asked for. Each line is flushed: someone may be watching.

    Bytes are passed on as they are, but not to a terminal, which they could drive.
    """

    def __init__(self, stream: BinaryIO, output: LogOutput = LogOutput.TEXT, *, timestamps: bool = False) -> None:
        self._stream = stream
        self._output = output
        self._timestamps = timestamps
        self._line = b""
        self._stamp = b""
        self._harmless = TerminalSanitizer() if output is LogOutput.TEXT and stream.isatty() else None

    @property
    def needs_stamps(self) -> bool:
        """Whether lines must come with their times."""
        return self._timestamps or self._output is LogOutput.JSON

    def write(self, piece: Piece) -> None:
        """Write some of a line; text at once, JSON when the line has ended or is too long."""
        if self._output is LogOutput.TEXT:
            self._write_text(piece.stamp + b" " + piece.text if self._timestamps and piece.stamp else piece.text)
            return
        self._stamp = piece.stamp or self._stamp
        self._line += piece.text
        while len(self._line) > MAX_JSON_LINE_BYTES:
            self._write_json(self._line[:MAX_JSON_LINE_BYTES])
            self._line = self._line[MAX_JSON_LINE_BYTES:]
        if self._line.endswith(b"\n"):
            self.close()

    def close(self) -> None:
        """Write what is left of a line that did not end."""
        if self._line:
            self._write_json(self._line)
        self._line, self._stamp = b"", b""
        if self._harmless is not None:
            self._stream.write(self._harmless.close())
            self._stream.flush()

    def _write_text(self, text: bytes) -> None:
        self._stream.write(text if self._harmless is None else self._harmless.feed(text))
        self._stream.flush()

    def _write_json(self, line: bytes) -> None:
        entry = {
            "timestamp": self._stamp.decode("ascii") or None,
            "line": line.decode("utf-8", "replace").removesuffix("\n"),
        }
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
        problem = {
            "title": "The answer is not Runway's",
            "detail": f"a line of the log has no time: {cursor.unexpected_text[:80]!r}",
            "code": "unexpected_answer",
        }
        raise ApiError(200, problem)


def _is_gone(session: Session, error: RequestFailed, writer: LogWriter, cursor: LogCursor) -> bool:
    """The pod is gone: before anything was read, what was kept of its log is shown in its place."""
    if cursor.at_start:
        _show_excerpt(session, error, writer)
    else:
        writer.close()
        session.screen.err(
            "The pod went before its log was read to the end; what it wrote last may be missing.", style="yellow"
        )
    return True


def _show_excerpt(session: Session, error: RequestFailed, writer: LogWriter) -> None:
    excerpt = error.problem.get("excerpt")
    if error.code != "logs_gone" or not isinstance(excerpt, str) or not excerpt:
        raise error
    session.screen.err("The pod is gone; this is the excerpt that Runway kept:", style="yellow")
    for line in excerpt.splitlines():
        writer.write(Piece(b"", line.encode("utf-8", "replace") + b"\n"))


def _is_over(session: Session, job_id: str, patience: RetryBudget) -> bool:
    try:
        view = session.client.job(job_id)
    except RequestFailed as error:
        session.edges.sleep(patience.pause_after(error))
        return False
    patience.answered()
    return is_over(view)
