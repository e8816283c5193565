"""Clients that read logs and events: slowly, behind proxies, and with breaks."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import Final

from bench.client import SLOW_SECONDS, Client
from bench.findings import WrittenJob
from bench.raw_http import Answer, Connection, get, read_answers

FOLLOW_SECONDS: Final = 10.0
"""For following a log whose job may run on, or has not started."""
SMALL_BUFFER_BYTES: Final = 4096
FINISHED: Final = ("succeeded", "failed", "cancelled")


class StreamClients(Client):
    """Clients of streams. A log is right if it is the beginning of what the job wrote."""

    __slots__ = ()

    async def half_closed_stream(self) -> None:
        """Close the sending side of a stream: Runway ends it, since a client that has gone does the same."""
        job = self._job()
        if job is None:
            return
        path = self.chance.choice((f"/v1/jobs/{job.id}/events", f"/v1/jobs/{job.id}/logs?follow=true"))
        async with Connection(self.port) as connection:
            await connection.send(get(path))
            if self.chance.random() < 0.5:
                await connection.read(100)
            connection.close_sending_side()
            received = await connection.read_to_end()
        answers = read_answers(received, ended=connection.has_ended) if received else []
        for answer in answers:
            self.found.expect("half-closed stream", answer, {200, 204, 400, 404, 410}, path)

    async def slow_reader(self) -> None:
        """Read a log or the events a few bytes at a time for a while, then the rest."""
        job = self._job()
        if job is None:
            return
        is_log = self.chance.random() < 0.7
        path = f"/v1/jobs/{job.id}/logs" if is_log else f"/v1/jobs/{job.id}/events"
        async with Connection(self.port, receive_buffer_bytes=SMALL_BUFFER_BYTES) as connection:
            await connection.send(get(path))
            until = asyncio.get_running_loop().time() + self.chance.uniform(1, SLOW_SECONDS)
            while asyncio.get_running_loop().time() < until and await connection.read(self.chance.randint(1, 40)):  # noqa: ASYNC110
                await asyncio.sleep(0.2)
            if not is_log:
                return  # An event stream of a running job has no end yet.
            answer = self._only(await connection.read_to_end(), connection)
        self.found.expect_log("slow reader", answer, job)

    async def behind_a_proxy(self) -> None:
        """Read a page, a log or a followed log through a proxy that buffers."""
        job = self._job()
        if not self.proxies:
            return
        port = self.chance.choice(self.proxies)
        if job is None or self.chance.random() < 0.3:
            request = self.chance.choice((get("/v1/quota", "Connection: close"), self._dry_run(close=True)))
            self.found.expect("behind a proxy", await self._whole(request, port=port), {200}, repr(request[:40]))
            return
        if self.chance.random() < 0.5:
            answer = await self._followed(job, port)
        else:
            answer = await self._whole(get(f"/v1/jobs/{job.id}/logs", "Connection: close"), port=port)
        if answer is not None:
            self.found.expect_log("behind a proxy", answer, job, proxied=True)

    async def log_with_breaks(self) -> None:
        """Follow a log, break off, and follow again until the log ends regularly; then compare it."""
        job = self._job()
        if job is None:
            return
        path = f"/v1/jobs/{job.id}/logs?follow=true"
        for _ in range(self.chance.randint(0, 3)):
            async with Connection(self.chance.choice((self.port, *self.proxies))) as connection:
                await connection.send(get(path))
                with suppress(TimeoutError):
                    async with asyncio.timeout(self.chance.uniform(0.05, 0.8)):
                        await connection.read_to_end()
                connection.vanish(with_reset=self.chance.random() < 0.5)
        answer = await self._followed(job, self.port)
        if answer is None:
            return
        self.found.expect_log("log with breaks", answer, job)
        if answer.status != 200 or not answer.is_complete:
            return
        view = await self._whole(get(f"/v1/jobs/{job.id}", "Connection: close"))
        if view.status != 200:
            return
        document = view.document()
        failure = document["failure"] and document["failure"]["code"]
        if document["state"] == "succeeded" or failure == "exit_nonzero":
            seen = f"{len(answer.body)} of {len(job.log)} bytes"
            self.found.check(answer.body == job.log, f"log with breaks: the log of {job.id} ends early: {seen}")

    async def _followed(self, job: WrittenJob, port: int) -> Answer | None:
        """Follow a log for a while. None: no response yet, which is right before the container has started.

        Raises ValueError if the server closes the connection without a response.
        """
        async with Connection(port) as connection:
            await connection.send(get(f"/v1/jobs/{job.id}/logs?follow=true", "Connection: close"))
            try:
                async with asyncio.timeout(FOLLOW_SECONDS):
                    await connection.read_to_end()
            except TimeoutError:
                if not connection.received:
                    return None
            return self._only(connection.received, connection)

    async def events_with_breaks(self) -> None:
        """Follow the events with `Last-Event-ID` after each break, until the job is finished."""
        job, last = self._job(), ""
        if job is None:
            return
        for number in range(8):
            fields = ["Connection: close"] + ([f"Last-Event-ID: {last}"] if last else [])
            request = get(f"/v1/jobs/{job.id}/events", *fields)
            async with Connection(self.port) as connection:
                await connection.send(request)
                with suppress(TimeoutError):
                    async with asyncio.timeout(self.chance.uniform(0.2, 2.0 + number)):
                        await connection.read_to_end()
            answers = read_answers(connection.received, ended=connection.has_ended) if connection.received else []
            if not answers:
                continue
            if answers[0].status != 200:
                self.found.expect("events with breaks", answers[0], {204, 404}, job.id)
                return
            last = self._read_events(answers[0], job, last)
            if answers[0].is_complete:
                return

    def _read_events(self, answer: Answer, job: WrittenJob, last: str) -> str:
        """Check the events of a stream, and return the id of the last view."""
        is_over = False
        for event in answer.body.decode().split("\n\n")[:-1]:
            lines = dict(line.split(": ", 1) for line in event.split("\n") if not line.startswith(":"))
            is_over |= lines.get("event") == "gone"
            if "id" in lines:
                view = json.loads(lines["data"])
                self.found.check(lines["id"] != last, f"events of {job.id}: the view {last} is sent again")
                self.found.check(view["id"] == job.id, f"events of {job.id} have the job {view['id']}")
                last, is_over = lines["id"], view["state"] in FINISHED
        if answer.is_complete:
            self.found.check(is_over, f"events of {job.id} end before the job does")
        return last
