"""The end of a job's log, fit to be kept: short, harmless, and without the secrets that are known. Pure.

What is known to be secret is the value of an environment variable of the job whose name looks like one, and the
password in an address. Only the value as it stands is found: not its base64, nor what a program made of it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from runway.jobs.annotations import spec_of
from runway.jobs.identity import ANNOTATION_SPEC_HASH
from runway.kube.objects import Job
from runway.text import last_lines

EXCERPT_BYTES: Final = 4096
"""UTF-8 bytes of a log that are kept, of its end."""
RAW_BYTES: Final = EXCERPT_BYTES + 32 * 1024
"""Bytes of a log that have to be looked at for that: a secret can be as long as a whole environment, and is cut out
before the rest is cut to size."""
HIDDEN: Final = "***"

_SECRET_NAME: Final = re.compile(
    r"PASSW|PASSPHRASE|PASS$|_PWD$|TOKEN|SECRET|KEY|CREDENTIAL|AUTH(?!OR)|COOKIE|DSN$|CONNECTION_STRING", re.IGNORECASE
)
_PASSWORD_IN_ADDRESS: Final = re.compile(r"://[^/@:\s]*:([^/@\s]+)@")
_MIN_SECRET_LENGTH: Final = 4
"""Characters of a value that is worth hiding: one that is shorter is found everywhere, and is no secret."""
_MIN_LINE_LENGTH: Final = 8
"""The same for one line of a value of several, such as a private key."""


@dataclass(frozen=True, slots=True)
class Excerpt:
    """The end of an attempt's log. `truncated`: there was more before it."""

    pod: str
    text: str
    truncated: bool


def excerpt_of(pod: str, log: bytes | str, secrets: Sequence[str] | None, *, cut: bool = False) -> Excerpt | None:
    """The excerpt of this end of a log; `cut` where something before it was left out already.

    None where it is empty, or where the secrets to hide in it are not known.
    Bytes that are not UTF-8, and characters that could steer a terminal, are shown as escapes.
    """
    if secrets is None:
        return None
    text = log if isinstance(log, str) else log.decode("utf-8", "replace")
    text = redact(text.replace("\r\n", "\n"), secrets)
    shown = last_lines(text, EXCERPT_BYTES).encode("utf-8", "replace")
    kept = shown[-EXCERPT_BYTES:].decode("utf-8", "ignore")
    if not kept.strip():
        return None
    return Excerpt(pod, kept, cut or len(text) > EXCERPT_BYTES or len(shown) > EXCERPT_BYTES)


def secrets_of(job: Job) -> tuple[str, ...] | None:
    """The values in a job's environment that must not be shown, longest first.

    None where they are not known: the job is Runway's, and its specification cannot be read or is no longer cached.
    """
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
    """The text with each secret as `***`, also one of which only a part stands at its beginning or end."""
    if not secrets:
        return text
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
    head = max((_overlap(secret, text) for secret in secrets), default=0)
    if head:
        text = HIDDEN + text[head:]
    tail = max((_overlap(text, secret) for secret in secrets), default=0)
    return text[:-tail] + HIDDEN if tail else text


def _overlap(first: str, second: str) -> int:
    """How many characters, at least `_SHORTEST`, are both the end of `first` and the beginning of `second`.

    By the prefix function of Knuth, Morris and Pratt: both can be long, and are not Runway's own.
    """
    most = min(len(first), len(second))
    first, second = first[len(first) - most :], second[:most]
    if most < _MIN_SECRET_LENGTH or second[:_MIN_SECRET_LENGTH] not in first:
        return 0
    back, matched = [0] * most, 0
    for at in range(1, most):
        while matched and second[at] != second[matched]:
            matched = back[matched - 1]
        matched += second[at] == second[matched]
        back[at] = matched
    matched = 0
    for letter in first:
        while matched and (matched == most or letter != second[matched]):
            matched = back[matched - 1]
        matched += letter == second[matched]
    return matched if matched >= _MIN_SECRET_LENGTH else 0
