"""The end of a job's log, bounded, sanitized and without known secrets. Pure.

Known secrets are the values of environment variables with a name such as `API_TOKEN`, and passwords in URLs. Only the
literal value is found, not its base64 or another encoding.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from runway.jobs.annotations import ANNOTATION_SPEC_HASH, spec_of
from runway.jobs.models import Excerpt
from runway.kube.objects import Job
from runway.text import end_states, last_lines

EXCERPT_BYTES: Final = 4096  # UTF-8 bytes of the excerpt.
RAW_BYTES: Final = EXCERPT_BYTES + 32 * 1024
"""Bytes of a log that an excerpt is made from: secrets are redacted before the text is truncated, and one secret can be
as long as a whole environment."""
HIDDEN: Final = "***"

_SECRET_NAME: Final = re.compile(
    r"PASSW|PASSPHRASE|PASS$|_PWD$|TOKEN|SECRET|KEY|CREDENTIAL|AUTH(?!OR)|COOKIE|DSN$|CONNECTION_STRING", re.IGNORECASE
)
_PASSWORD_IN_ADDRESS: Final = re.compile(r"://[^/@:\s]*:([^/@\s]+)@")
_MIN_SECRET_LENGTH: Final = 4  # Shorter values occur everywhere, and are no secrets.
_MIN_LINE_LENGTH: Final = 8  # The same for one line of a value with several lines, such as a private key.


def excerpt_of(pod: str, log: bytes | str, secrets: Sequence[str] | None, *, cut: bool = False) -> Excerpt | None:
    """Make the excerpt of the end of a log; `cut` if `log` is not the whole log.

    Returns None if it is empty, or if the secrets to redact are unknown.
    """
    if secrets is None:
        return None
    text = log if isinstance(log, str) else log.decode("utf-8", "replace")
    text = redact(end_states(text), secrets)
    shown = last_lines(text, EXCERPT_BYTES).encode("utf-8", "replace")
    kept = shown[-EXCERPT_BYTES:].decode("utf-8", "ignore")
    if not kept.strip():
        return None
    return Excerpt(pod, kept, cut or len(text) > EXCERPT_BYTES or len(shown) > EXCERPT_BYTES)


def secrets_of(job: Job) -> tuple[str, ...] | None:
    """Return the values in a job's environment to redact, longest first; None if its specification is unreadable."""
    spec = spec_of(job)
    if spec is None:
        return None if ANNOTATION_SPEC_HASH in job.metadata.annotations else ()
    found: set[str] = set()
    for name, value in spec.env.items():
        if _SECRET_NAME.search(name) and len(value) >= _MIN_SECRET_LENGTH:
            found.add(value.replace("\r\n", "\n"))
            found.update(line for line in value.splitlines() if len(line) >= _MIN_LINE_LENGTH)
        found.update(
            password for password in _PASSWORD_IN_ADDRESS.findall(value) if len(password) >= _MIN_SECRET_LENGTH
        )
    return tuple(sorted(found, key=len, reverse=True))


def redact(text: str, secrets: Sequence[str]) -> str:
    """Replace each secret with `***`, including one that the beginning or end of the text cuts."""
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
    head = max((_cut_length(text[::-1], secret[::-1]) for secret in secrets), default=0)
    if head:
        text = HIDDEN + text[head:]
    tail = max((_cut_length(text, secret) for secret in secrets), default=0)
    return text[:-tail] + HIDDEN if tail else text


def _cut_length(text: str, secret: str) -> int:
    """Return how many characters at the end of `text`, at least `_MIN_SECRET_LENGTH`, are the beginning of `secret`."""
    prefix = secret[:_MIN_SECRET_LENGTH]
    at = text.find(prefix, max(0, len(text) - len(secret) + 1))
    while at >= 0 and not secret.startswith(text[at:]):
        at = text.find(prefix, at + 1)
    return len(text) - at if at >= 0 else 0
