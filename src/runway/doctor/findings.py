"""The result of a check. Pure; the command line imports it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class CheckStatus(StrEnum):
    """How serious a finding is. Only `failed` makes `runway doctor` exit with 1."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    UNKNOWN = "unknown"
    """The caller may not read what the check needs."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report: what was checked, the observed value, and the fix as one imperative sentence."""

    check: str
    subject: str
    status: CheckStatus
    observed: str
    fix: str = ""


def ok(check: str, subject: str, observed: str) -> Finding:
    return Finding(check, subject, CheckStatus.OK, observed)


def warning(check: str, subject: str, observed: str, fix: str) -> Finding:
    return Finding(check, subject, CheckStatus.WARNING, observed, fix)


def failed(check: str, subject: str, observed: str, fix: str) -> Finding:
    return Finding(check, subject, CheckStatus.FAILED, observed, fix)


def unknown(check: str, subject: str, observed: str, fix: str) -> Finding:
    return Finding(check, subject, CheckStatus.UNKNOWN, observed, fix)
