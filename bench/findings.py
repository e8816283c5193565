"""The checks of the hostile clients: statuses, problem documents and logs, against what is known to be right."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from bench.raw_http import Answer

BUSY: Final = (429, 503)
"""Right for every request, with Retry-After."""


@dataclass(frozen=True, slots=True)
class WrittenJob:
    """A job whose log is known: `log` is all that it writes if it ends as its command says."""

    id: str
    tenant: str
    log: bytes


@dataclass(slots=True)
class Findings:
    """Counts clients and statuses in `answers`, and lists every incorrect response in `wrong`."""

    answers: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def check(self, right: bool, what: str) -> None:
        """Record an incorrect response unless `right`."""
        if not right:
            self.wrong.append(what)

    def expect(
        self,
        client: str,
        answer: Answer | None,
        statuses: set[int] | frozenset[int],
        what: str,
        *,
        proxied: bool = False,
    ) -> None:
        """Check the status, and the problem document of an error. A proxy may answer an error on its own."""
        if answer is None:
            self.wrong.append(f"{client}: no response to {what}")
            return
        self.answers[f"{client} {answer.status}"] += 1
        allowed = statuses | set(BUSY) | ({502, 504} if proxied else set())
        self.check(answer.status in allowed, f"{client}: {answer.status} for {what}: {answer.body[:200]!r}")
        is_own = answer.fields.get("content-type") == "application/problem+json"
        if answer.status >= 400 and (is_own or not proxied):
            self.check(
                _is_problem(answer), f"{client}: {answer.status} for {what} has no problem: {answer.body[:200]!r}"
            )

    def expect_log(self, client: str, answer: Answer, job: WrittenJob, *, proxied: bool = False) -> None:
        """Check that a log is the beginning of what the job wrote."""
        self.expect(client, answer, {200, 404, 410}, f"the log of {job.id}", proxied=proxied)
        if answer.status == 200 and not job.log.startswith(answer.body):
            seen = f"{len(answer.body)} bytes, which end with {answer.body[-60:]!r}"
            self.wrong.append(f"{client}: the log of {job.id} is not what the job wrote: {seen}")


def _is_problem(answer: Answer) -> bool:
    """Return whether this is a problem document of Runway with all that it promises."""
    try:
        document = answer.document()
    except ValueError:
        return False
    texts = ("type", "title", "detail", "code", "hint", "request_id")
    return (
        answer.is_complete
        and answer.fields.get("content-type") == "application/problem+json"
        and all(isinstance(document.get(name), str) and document[name] for name in texts)
        and document["status"] == answer.status
        and document["request_id"] == answer.fields.get("x-request-id")
        and (answer.status not in BUSY or answer.fields.get("retry-after", "").isdigit())
    )
