"""A job for people: a row of a list, an accepted job, an outcome, and in full."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from rich.text import Text

from runway.cli.output import STATE_STYLES, Say, Screen, compact, show_state
from runway.cli.views.tables import Column
from runway.jobs.cost import cost_so_far
from runway.jobs.models import Attempt, ConditionView, CostView, Excerpt, Failure, JobView, Usage
from runway.jobs.timeline import moments_of
from runway.text import escape, shorten, show_between, show_bytes, show_duration, show_ratio, show_usd

EXCERPT_LINES: Final = 10
FAULT_OF: Final = {
    "user": "the job's own error",
    "infra": "an infrastructure failure",
    "policy": "a matter of the policy",
    "runway": "a defect of Runway",
}

JOB_COLUMNS: Final = [
    Column(title="ID"),
    Column(title="NAME", shrink=True, least=10),
    Column(title="STATE"),
    Column(title="WHY", shrink=True, least=24),
    Column(title="AGE", drop_priority=1, right=True),
    Column(title="GPU", drop_priority=3, right=True),
    Column(title="COST USD", drop_priority=2, right=True),
]
WIDE_COLUMNS: Final = [*JOB_COLUMNS, *(Column(title=title) for title in ("ATTEMPTS", "NODE", "CREATED", "IMAGE"))]
NARROW: Final = 100
"""In fewer columns a list shows the starts of ids, so that no column is dropped at 80."""
MIN_SHORT_ID: Final = 9
TENANT_COLUMN: Final = Column(title="TENANT", shrink=True)
TERMINATION_MESSAGE: Final = "last_words"  # The key of the evidence that repeats the excerpt.
BRIEF_MESSAGE: Final = 120
"""Characters of a message that quotes a registry; `status` shows the whole under the evidence."""
QUOTES_REGISTRY: Final = ("image_", "registry_")
"""The starts of the codes with such a message."""
REGISTRY_EVIDENCE: Final = frozenset({"waiting_message", "event_message"})
ATTEMPT_COLUMNS: Final = [
    Column(title="#", right=True),
    Column(title="STATE"),
    Column(title="EXIT", right=True),
    Column(title="SIGNAL", drop_priority=1),
    Column(title="CAUSE", shrink=True),
    Column(title="RAN", right=True),
    Column(title="COUNTED", drop_priority=3),
    Column(title="NODE", shrink=True, drop_priority=2),
    Column(title="POD", drop_priority=4),
]


def rows_of(
    views: Sequence[JobView], now: datetime, *, width: int | None, wide: bool, tenants: bool
) -> tuple[list[Column], list[list[object]]]:
    """Return the columns and rows of a list for this width; with `tenants` each row names the tenant."""
    heads = list(WIDE_COLUMNS if wide else JOB_COLUMNS)
    rows = [
        [job_id, *_row(view, now), *(_wide_cells(view) if wide else ())]
        for job_id, view in zip(shown_ids(views, width), views, strict=True)
    ]
    if tenants:
        heads.insert(1, TENANT_COLUMN)
        for row, view in zip(rows, views, strict=True):
            row.insert(1, view.tenant)
    return heads, rows


def show_submitted(say: Say, view: JobView, *, replayed: bool) -> None:
    price = ""
    if cost := view.cost:
        price = f"{show_usd(cost.hourly)} {cost.currency} an hour, at most {show_usd(cost.ceiling)} ({cost.rate_card})"
    say(Text(escape(view.id), "bold"), show_state(view.state), price, hang=2)
    if replayed:
        say("This idempotency key is already used. This is its first job; nothing new was submitted.", style="yellow")


def show_outcome(say: Say, view: JobView) -> None:
    cost = f"({_cost(view.cost)} USD)" if view.cost else ""
    say(Text(escape(view.id), "bold"), show_state(view.state), cost)
    show_incomplete(say, view)
    if view.failure is not None:
        show_failure(say, view.failure)
        if view.excerpt is not None:
            show_excerpt(say, view.excerpt, EXCERPT_LINES)
        if view.logs_url is not None:
            say(f"Stored logs: {view.logs_url}")


def show_incomplete(say: Say, view: JobView) -> None:
    if view.may_be_incomplete:
        say(f"  may be incomplete: {view.may_be_incomplete}", style="yellow", hang=4)


def show_failure(say: Say, failure: Failure, message: str | None = None) -> None:
    """Show a failure, with its message or another form of it."""
    whose = FAULT_OF.get(failure.category, failure.category)
    retry = "retrying may help" if failure.retryable else "retrying will not help"
    say(Text.assemble("  ", (escape(failure.code), "bold red"), f": {escape(whose)}; {retry}"))
    say(f"  {message or failure.message}", hang=2)
    if failure.hint:
        say(f"  hint: {failure.hint}", style="green", hang=8)


def show_excerpt(say: Say, excerpt: Excerpt, lines: int | None = None) -> None:
    stored = excerpt.text.splitlines()
    shown = stored if lines is None else stored[-lines:]
    say(f"End of the log of {excerpt.pod}", style="bold", hang=2)
    if excerpt.truncated or len(shown) < len(stored):
        say("  …", style="dim")
    for line in shown:
        say(f"  {line}")


def shown_ids(views: Sequence[JobView], width: int | None) -> list[str]:
    """Return the ids of a list; their starts in a narrow one."""
    ids = [view.id for view in views]
    return ids if width is None or width >= NARROW else short_ids(ids)


def short_ids(ids: Sequence[str]) -> list[str]:
    """Return the starts of ids, all of one length, which name the same jobs; every command takes them."""
    length = MIN_SHORT_ID
    while len({job_id[:length] for job_id in ids}) < len(set(ids)):
        length += 1
    return [job_id[:length] for job_id in ids]


def _row(view: JobView, now: datetime) -> list[object]:
    return [
        view.name,
        show_state(view.state),
        view.failure.code if view.failure else ", ".join(condition.code for condition in view.conditions),
        show_between(view.created_at, now),
        view.spec.resources.gpu if view.spec else None,
        _cost(view.cost),
    ]


def _wide_cells(view: JobView) -> list[object]:
    node = view.attempts[-1].node if view.attempts else None
    created = f"{view.created_at:%Y-%m-%dT%H:%M:%SZ}" if view.created_at else None
    return [view.attempt_count, node, created, view.spec.image if view.spec else None]


def _cost(cost: CostView | None) -> str:
    if cost is None:
        return ""
    return f"max {show_usd(cost.ceiling)}" if cost.actual is None else show_usd(cost.actual)


def show_job(screen: Screen, view: JobView, now: datetime) -> None:
    """Show on stdout what is known of a job, the most urgent first."""
    _show_head(screen, view, now)
    show_incomplete(screen.out, view)
    if view.failure:
        screen.out("Failure", style="bold")
        show_failure(screen.out, view.failure, _brief(screen, view.failure))
    if view.excerpt:
        show_excerpt(screen.out, view.excerpt)
    if view.conditions:
        screen.out("Conditions", style="bold")
    for condition in view.conditions:
        times = (
            f"for {show_between(condition.since, now)}" if condition.since else "",
            f"Runway ends the job after {show_duration(limit)}" if (limit := condition.start_timeout_seconds) else "",
        )
        waits = f" ({', '.join(filter(None, times))})" if any(times) else ""
        screen.out(f"  {condition.code}{waits}: {_brief(screen, condition)}", style="yellow", hang=4)
    _show_timeline(screen, view, now)
    if view.attempts:
        _show_attempts(screen, view, now)
    _show_spec(screen, view)
    if view.usage:
        _show_usage(screen, view.usage)
    if view.cost:
        _show_cost(screen, view, view.cost, now)
    _show_evidence(screen, view)
    if view.logs_url:
        # Not wrapped: the link is copied.
        screen.out("Stored logs", style="bold")
        screen.out(f"  {view.logs_url}")
    screen.out("Kubernetes", style="bold")
    screen.out(f"  kubectl -n {view.kubernetes.namespace} describe job {view.kubernetes.job}")


def _show_head(screen: Screen, view: JobView, now: datetime) -> None:
    times = (
        ("accepted", view.created_at),
        ("started", None if view.is_finished else view.started_at),
        ("finished", view.finished_at),
    )
    ages = ", ".join(f"{label} {show_between(time, now)} ago" for label, time in times if time)
    name = Text(escape(view.name), "bold") if view.name else ""
    screen.out(Text(escape(view.id), "bold"), name, show_state(view.state), f"({ages})" if ages else "", hang=2)


def _show_timeline(screen: Screen, view: JobView, now: datetime) -> None:
    """Show times in UTC and since the acceptance, with the date where it is not the one in the title."""
    moments = moments_of(view)
    if not moments:
        return
    first = view.created_at or moments[0].time
    screen.out(f"Timeline (UTC, {first:%Y-%m-%d})", style="bold")
    for moment in moments:
        clock = f"{moment.time:%H:%M:%S}" if moment.time.date() == first.date() else f"{moment.time:%m-%d %H:%M:%S}"
        offset = f"+{show_between(first, moment.time)}"
        future = f" in {show_between(now, moment.time)}" if moment.time > now else ""
        if moment.kind == "deadline" and not future:
            future = " has passed"
        style = {"condition": "yellow", "deadline": "dim"}.get(moment.kind, STATE_STYLES.get(moment.kind, ""))
        screen.out(f"  {clock} {offset:>8}  {moment.text}{future}", style=style, hang=21)


def _show_attempts(screen: Screen, view: JobView, now: datetime) -> None:
    screen.out("Attempts", style="bold")
    numbered = list(enumerate(view.attempts, start=1 + view.attempts_left_out))
    failed = view.state != "cancelled"
    rows = (_attempt_row(number, attempt, now, has_cause=failed) for number, attempt in numbered)
    screen.table(ATTEMPT_COLUMNS, rows, indent=2)
    shown = view.failure.message if view.failure else view.may_be_incomplete
    for number, attempt in numbered:
        if attempt.message not in (None, shown):
            screen.out(f"  {number}: {attempt.message}", hang=5)
    if view.images_differ:
        screen.out("  the attempts ran different images; name a digest in `image`", style="yellow", hang=4)
        for number, attempt in numbered:
            if attempt.image_id:
                screen.out(f"  {number}: image {attempt.image_id}", hang=5)
    if view.attempts_left_out:
        screen.out(f"  {view.attempts_left_out} earlier attempts are not stored")
    if view.disruptions:
        screen.out(f"  the cluster ended {view.disruptions}; they do not count against the retries", hang=4)


def _attempt_row(number: int, attempt: Attempt, now: datetime, *, has_cause: bool) -> Sequence[object]:
    # The reason of an attempt that succeeded or was cancelled is `Completed` or `Error`, which explains nothing.
    reason = attempt.reason if has_cause and attempt.state != "succeeded" else None
    return (
        number,
        show_state(attempt.state),
        attempt.exit_code,
        attempt.signal,
        attempt.cause or reason,
        show_between(attempt.started_at, attempt.finished_at or now),
        "yes" if attempt.counted else "",
        attempt.node,
        attempt.pod,
    )


def _show_spec(screen: Screen, view: JobView) -> None:
    spec = view.spec
    if spec is None:
        screen.out(f"Tenant {view.tenant}; created outside Runway", style="bold")
        return
    resources = spec.resources
    gpu = f", {resources.gpu} GPU {resources.gpu_type or ''}".rstrip() if resources.gpu else ""
    disk = f"{resources.disk} disk, " if resources.disk else ""
    timeout, grace = show_duration(spec.timeout_seconds), show_duration(spec.grace_period_seconds)
    start = f", start within {show_duration(spec.start_timeout_seconds)}" if spec.start_timeout_seconds else ""
    limits = f"timeout {timeout}{start}, retries {spec.retries}, grace {grace}"
    rows = (
        ("tenant", view.tenant),
        ("pool", spec.pool),
        ("image", spec.image),
        ("ran", None if view.images_differ else next((a.image_id for a in view.attempts if a.image_id), None)),
        ("command", shlex.join([*spec.command, *spec.args]) or "(of the image)"),
        # Names only: a value may be secret. `-o json` has the values.
        ("env", " ".join(sorted(spec.env))),
        ("secrets", " ".join(f"{name}={reference}" for name, reference in sorted(spec.secrets.items()))),
        ("volumes", " ".join(spec.volumes)),
        ("resources", f"{resources.cpu} CPU, {resources.memory} memory{gpu}"),
        ("storage", f"{disk}{resources.shared_memory} shared memory"),
        ("process", f"user {spec.user}, working directory {spec.working_dir or 'of the image'}"),
        ("limits", limits + (f", at most {show_usd(spec.max_cost_usd)} USD" if spec.max_cost_usd else "")),
    )
    screen.out("Spec", style="bold")
    for label, value in rows:
        if value:
            screen.out(f"  {label:<9} {value}", hang=12)


def _show_usage(screen: Screen, usage: Usage) -> None:
    figures = []
    if usage.cpu_cores is not None:
        limit = "an unknown limit" if usage.cpu_limit_cores is None else f"{usage.cpu_limit_cores:g}"
        figures.append(f"CPU {usage.cpu_cores:.2f} of {limit} on average")
    if usage.throttled_ratio is not None:
        figures.append(f"throttled in {show_ratio(usage.throttled_ratio)} of its CPU periods")
    if usage.memory_peak_bytes is not None:
        limit = "an unknown limit" if usage.memory_limit_bytes is None else show_bytes(usage.memory_limit_bytes)
        figures.append(f"memory peak {show_bytes(usage.memory_peak_bytes)} of {limit}")
    if usage.gpu_utilisation is not None:
        figures.append(f"GPU {show_ratio(usage.gpu_utilisation)}")
    if figures:
        screen.out("Usage", style="bold")
        screen.out(f"  {', '.join(figures)}", hang=2)


def _brief(screen: Screen, cause: ConditionView | Failure) -> str:
    """Return a message; of one that quotes a registry its start, which has the cause."""
    quotes = cause.code.startswith(QUOTES_REGISTRY) and not screen.wide
    return shorten(cause.message, BRIEF_MESSAGE) if quotes else cause.message


def _show_evidence(screen: Screen, view: JobView) -> None:
    evidence = view.failure.evidence if view.failure else {}
    known = {name: value for name, value in evidence.items() if value not in (None, "")}
    shown = {name: value for name, value in known.items() if name != TERMINATION_MESSAGE or view.excerpt is None}
    causes: list[ConditionView | Failure] = [*view.conditions, *([view.failure] if view.failure else [])]
    for cause in causes:
        if _brief(screen, cause) != cause.message and not REGISTRY_EVIDENCE & shown.keys():
            shown[cause.code] = cause.message
    if shown:
        screen.out("Evidence", style="bold")
    for name, value in shown.items():
        screen.out(f"  {name}: {compact(value)}", style="dim", hang=4)


def _show_cost(screen: Screen, view: JobView, cost: CostView, now: datetime) -> None:
    spent, ceiling = cost_so_far(view, now), cost.ceiling
    if spent is None:
        actual = "actual cost unknown"
    else:
        shown = show_usd(spent, ceiling)
        actual = f"{shown} total" if view.is_finished else f"about {shown} so far"
    lines = ", ".join(f"{show_usd(line.hourly)} for {line.quantity} {line.resource}" for line in cost.lines)
    screen.out(f"Cost in {cost.currency}", style="bold")
    screen.out(f"  {actual} (limit {show_usd(ceiling, ceiling)}, rate {show_usd(cost.hourly)}/h)", hang=2)
    screen.out(f"  rate: {lines} ({cost.rate_card})", hang=4)
