"""`runway logs`, and following a log through broken connections with each line shown once."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from enum import StrEnum
from functools import partial
from typing import Annotated, BinaryIO

import typer

from runway.cli.client import ApiError, RequestFailed, StreamIdle
from runway.cli.exits import Exit
from runway.cli.options import DEFAULT_URL, JobId, Tenant, Url
from runway.cli.output import Output
from runway.cli.session import Session, open_session
from runway.cli.waiting import Backoff, Patience
from runway.cli.wire import is_over

MAX_PIECE_BYTES = 1 << 16
"""A longer line is handled in pieces, so that a log without newlines fills no memory."""

_STAMP = re.compile(rb"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]{8,18}(?:Z|[+-][0-9]{2}:[0-9]{2})) ?")


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

    Once the pod is gone, the excerpt that Runway kept is shown instead. The log's bytes are passed on as they are.
    """
    writer = LogWriter(typer.get_binary_stream("stdout"), output, timestamps=timestamps)
    problem_form = Output.JSON if output is LogOutput.JSON else Output.TABLE
    with open_session(context, url, tenant, problem_form) as session:
        if follow:
            if not follow_log(session, job_id, writer, tail=tail, attempt=attempt):
                session.screen.note(f"{job_id} ended before it could write a log; `runway status {job_id}` says why")
                raise typer.Exit(Exit.REFUSED)
            return
        try:
            stamped = writer.needs_stamps
            with session.client.logs(job_id, follow=False, tail=tail, attempt=attempt, timestamps=stamped) as chunks:
                for line in split_lines(chunks):
                    writer.write(line, stamped=stamped)
        except ApiError as error:
            _show_excerpt(session, error, writer)


def follow_log(
    session: Session, job_id: str, writer: LogWriter, *, tail: int | None = None, attempt: int | None = None
) -> bool:
    """Write a job's log until the server ends it, waiting for its start and through broken connections.

    False where the job ended before it wrote a log. Raises RequestFailed where Runway refuses or stays away too long.
    """
    open_log = partial(session.client.logs, job_id, follow=True, attempt=attempt, timestamps=True)
    position = Position()
    patience, backoff = Patience(session), Backoff(session.edges.random)
    over = False
    while True:
        try:
            with open_log(tail=tail if position.at_start else None) as chunks:
                _write_new(chunks, position, writer, patience)
            return True
        except StreamIdle:
            continue
        except RequestFailed as error:
            if error.code == "logs_gone":
                if position.at_start:
                    _show_excerpt(session, error, writer)
                return True
            if error.code != "logs_not_ready":
                session.edges.sleep(patience.pause_after(error))
                continue
        if over:
            return not position.at_start
        over = _is_over(session, job_id, patience)
        # A job that is over gets one more look at once: it may have run and ended since the last one.
        if not over:
            session.edges.sleep(backoff.next())


class Position:
    """Where a reader stands in a log that only grows, whose lines begin with their times.

    After `rewind` the log is read from its beginning again, and `advance` is False for what was read before: up to the
    line read last, or, where that line is no longer there, up to the newest time read.
    """

    def __init__(self) -> None:
        self._last = b""
        self._copies = 0
        self._newest = b""
        self._behind = 0

    @property
    def at_start(self) -> bool:
        """Whether nothing was read yet."""
        return self._copies == 0

    def rewind(self) -> None:
        """The next line is the log's first again."""
        self._behind = self._copies

    def advance(self, line: bytes) -> bool:
        """Take the next line; whether it is a new one."""
        match = _STAMP.match(line)
        stamp = match[1] if match else b""
        if self._behind:
            if line == self._last:
                self._behind -= 1
                return False
            if stamp <= self._newest:
                return False
            self._behind = 0
        self._copies = self._copies + 1 if line == self._last else 1
        self._last = line
        self._newest = max(self._newest, stamp)
        return True


class LogWriter:
    """Writes the lines of a log in the form that was asked for. Each line is flushed: someone may be watching."""

    def __init__(self, stream: BinaryIO, output: LogOutput = LogOutput.TEXT, *, timestamps: bool = False) -> None:
        self._stream = stream
        self._output = output
        self._timestamps = timestamps

    @property
    def needs_stamps(self) -> bool:
        """Whether lines must come with their times."""
        return self._timestamps or self._output is LogOutput.JSON

    def write(self, line: bytes, *, stamped: bool) -> None:
        """Write one line; `stamped` says whether the server put its time before it."""
        match = _STAMP.match(line) if stamped else None
        text = line[match.end() :] if match else line
        if self._output is LogOutput.JSON:
            stamp = match[1].decode("ascii") if match else None
            entry = {"timestamp": stamp, "line": text.decode("utf-8", "replace").removesuffix("\n")}
            self._stream.write(json.dumps(entry).encode() + b"\n")
        else:
            self._stream.write(line if self._timestamps else text)
        self._stream.flush()


def split_lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The lines in a stream of bytes, newline included, cut after every `MAX_PIECE_BYTES` of a line.

    A line whose end has not arrived is held back, so that it is lost, to be read again, if the stream breaks.
    """
    pending = b""
    for chunk in chunks:
        *lines, pending = (pending + chunk).split(b"\n")
        for line in lines:
            yield from _cut(line + b"\n")
        *pieces, pending = list(_cut(pending)) or [b""]
        yield from pieces
    if pending:
        yield pending


def _cut(line: bytes) -> Iterator[bytes]:
    for start in range(0, len(line), MAX_PIECE_BYTES):
        yield line[start : start + MAX_PIECE_BYTES]


def _write_new(chunks: Iterable[bytes], position: Position, writer: LogWriter, patience: Patience) -> None:
    position.rewind()
    for line in split_lines(chunks):
        patience.answered()
        if position.advance(line):
            writer.write(line, stamped=True)


def _show_excerpt(session: Session, error: RequestFailed, writer: LogWriter) -> None:
    excerpt = error.problem.get("excerpt")
    if error.code != "logs_gone" or not isinstance(excerpt, str) or not excerpt:
        raise error
    session.screen.note("The pod is gone; this is the excerpt that Runway kept:", style="yellow")
    for line in excerpt.splitlines():
        writer.write(line.encode("utf-8", "replace") + b"\n", stamped=False)


def _is_over(session: Session, job_id: str, patience: Patience) -> bool:
    try:
        view = session.client.job(job_id)
    except RequestFailed as error:
        session.edges.sleep(patience.pause_after(error))
        return False
    patience.answered()
    return is_over(view)
