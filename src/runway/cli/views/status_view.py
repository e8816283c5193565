"""`runway status`: everything that is known of a job, told so that it can be read."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from rich.text import Text

from runway.cli.output import Screen, compact, show_state
from runway.cli.text import parse_moment, safe, show_age, show_bytes, show_duration, show_usd
from runway.cli.views.job_metrics import cost_so_far
from runway.cli.views.job_views import show_excerpt, show_failure
from runway.cli.views.tables import Column
from runway.cli.views.timeline import timeline
from runway.cli.wire import Attempt, Condition, Cost, Excerpt, Failure, JobView, Spec, Usage, is_over

LAST_WORDS: Final = "last_words"

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


def show_job(screen: Screen, view: JobView, now: datetime) -> None:
    """The whole story, on stdout: what it is, what happened when, why it failed and what to do, what it cost."""
    _head(screen, view, now)
    if view["failure"] is not None:
        screen.out("Why it failed", style="bold")
        show_failure(screen.out, view["failure"])
    if view["conditions"]:
        _conditions(screen, view["conditions"], now)
    _timeline(screen, view, now)
    if view["attempts"]:
        _attempts(screen, view, now)
    _print_spec(screen, view, view["spec"])
    if view["usage"] is not None:
        _usage(screen, view["usage"])
    if view["cost"] is not None:
        _cost(screen, view, view["cost"], now)
    if view["failure"] is not None:
        _evidence(screen, view["failure"], view["excerpt"])
    if view["excerpt"] is not None:
        show_excerpt(screen.out, view["excerpt"])
    where = view["kubernetes"]
    screen.out("Kubernetes", style="bold")
    screen.out(f"  kubectl -n {where['namespace']} describe job {where['job']}")


def _head(screen: Screen, view: JobView, now: datetime) -> None:
    name = Text(safe(view["name"]), "bold") if view["name"] else ""
    told = [f"{label} {show_age(time, now)} ago" for label, time in _landmarks(view) if time]
    landmarks = f"({', '.join(told)})" if told else ""
    screen.out(Text(safe(view["id"]), "bold"), name, show_state(view["state"]), landmarks, hang=2)


def _landmarks(view: JobView) -> list[tuple[str, str | None]]:
    over = is_over(view)
    return [
        ("accepted", view["created_at"]),
        ("started", None if over else view["started_at"]),
        ("ended", view["finished_at"]),
    ]


def _conditions(screen: Screen, conditions: Sequence[Condition], now: datetime) -> None:
    screen.out("Now", style="bold")
    for condition in conditions:
        since = f" (for {show_age(condition['since'], now)})" if condition["since"] else ""
        screen.out(f"  {condition['code']}{since}: {condition['message']}", style="yellow", hang=4)


def _timeline(screen: Screen, view: JobView, now: datetime) -> None:
    """Times in UTC and from the acceptance on; the date where it is not the one in the title."""
    moments = timeline(view)
    if not moments:
        return
    first = parse_moment(view["created_at"]) or moments[0].time
    screen.out(f"Timeline (UTC, {first:%Y-%m-%d})", style="bold")
    for moment in moments:
        same_day = moment.time.date() == first.date()
        clock = f"{moment.time:%H:%M:%S}" if same_day else f"{moment.time:%m-%d %H:%M:%S}"
        offset = f"+{show_duration((moment.time - first).total_seconds())}"
        left = (moment.time - now).total_seconds()
        future = f" in {show_duration(left)}" if left > 0 else " has passed" if moment.what == "deadline" else ""
        screen.out(f"  {clock} {offset:>8}  {moment.what}{future}", style=moment.style, hang=21)


def _attempts(screen: Screen, view: JobView, now: datetime) -> None:
    screen.out("Attempts", style="bold")
    numbered = list(enumerate(view["attempts"], start=1 + view["attempts_left_out"]))
    screen.table(ATTEMPT_COLUMNS, (_attempt_row(number, attempt, now) for number, attempt in numbered), indent=2)
    verdict = view["failure"]["message"] if view["failure"] else None
    for number, attempt in numbered:
        if attempt["message"] not in (None, verdict):
            screen.out(f"  {number}: {attempt['message']}", hang=5)
    if view["attempts_left_out"]:
        screen.out(f"  {view['attempts_left_out']} earlier ones are not kept")
    if view["disruptions"]:
        screen.out(f"  {view['disruptions']} ended by the cluster, which does not count against the retries", hang=4)


def _attempt_row(number: int, attempt: Attempt, now: datetime) -> Sequence[object]:
    end = parse_moment(attempt["finished_at"]) or now
    return (
        number,
        show_state(attempt["state"]),
        attempt["exit_code"],
        attempt["signal"],
        attempt["cause"] or attempt["reason"],
        show_age(attempt["started_at"], end),
        "yes" if attempt["counted"] else "no",
        attempt["node"],
        attempt["pod"],
    )


def _print_spec(screen: Screen, view: JobView, spec: Spec | None) -> None:
    if spec is None:
        screen.out(f"Of tenant {view['tenant']}; it did not come through Runway", style="bold")
        return
    resources = spec["resources"]
    gpu = f", {resources['gpu']} GPU {resources['gpu_type'] or ''}".rstrip() if resources["gpu"] else ""
    limits = (
        f"timeout {show_duration(spec['timeout_seconds'])}, retries {spec['retries']}, "
        f"grace {show_duration(spec['grace_period_seconds'])}"
    )
    cap = f", at most {spec['max_cost_usd']} USD" if spec["max_cost_usd"] else ""
    rows = [
        ("tenant", view["tenant"]),
        ("image", spec["image"]),
        ("command", shlex.join([*spec["command"], *spec["args"]]) or "(of the image)"),
        # Names alone: values may be what should not stand on a screen. `-o json` has them.
        ("env", " ".join(sorted(spec["env"]))),
        ("resources", f"{resources['cpu']} CPU, {resources['memory']} memory{gpu}"),
        ("limits", limits + cap),
    ]
    screen.out("What was asked for", style="bold")
    for label, value in rows:
        if value:
            screen.out(f"  {label:<9} {value}", hang=12)


def _usage(screen: Screen, usage: Usage) -> None:
    """What is known of it, beside the limits."""
    told = []
    if usage["cpu_cores"] is not None:
        told.append(f"CPU {usage['cpu_cores']:.2f} of {_or_unknown(usage['cpu_limit_cores'], '{:g}')} on average")
    if usage["throttled_ratio"] is not None:
        told.append(f"throttled in {usage['throttled_ratio']:.0%} of its CPU periods")
    if usage["memory_peak_bytes"] is not None:
        limit = usage["memory_limit_bytes"]
        of = "an unknown limit" if limit is None else show_bytes(limit)
        told.append(f"memory peak {show_bytes(usage['memory_peak_bytes'])} of {of}")
    if usage["gpu_utilisation"] is not None:
        told.append(f"GPU {usage['gpu_utilisation']:.0%}")
    if told:
        screen.out("Usage", style="bold")
        screen.out(f"  {', '.join(told)}", hang=2)


def _evidence(screen: Screen, failure: Failure, excerpt: Excerpt | None) -> None:
    """The fields that the verdict was read from; the end of the log is shown whole where it is kept."""
    shown = {name: value for name, value in failure["evidence"].items() if name != LAST_WORDS or excerpt is None}
    if shown:
        screen.out("Evidence", style="bold")
    for name, value in shown.items():
        screen.out(f"  {name}: {compact(value)}", style="dim", hang=4)


def _or_unknown(value: float | None, form: str) -> str:
    return "an unknown limit" if value is None else form.format(value)


def _cost(screen: Screen, view: JobView, cost: Cost, now: datetime) -> None:
    spent = cost_so_far(view, now)
    if cost["actual"] is not None:
        actual = f"{show_usd(cost['actual'])} in the end"
    elif spent is None or is_over(view):
        actual = "what it came to is unknown" if is_over(view) else "so far unknown"
    else:
        actual = f"about {show_usd(f'{spent:f}')} so far"
    lines = ", ".join(f"{show_usd(line['hourly'])} for {line['quantity']} {line['resource']}" for line in cost["lines"])
    screen.out(f"Cost in {cost['currency']}", style="bold")
    screen.out(f"  {actual}, at most {show_usd(cost['ceiling'])}; {show_usd(cost['hourly'])} an hour", hang=2)
    screen.out(f"  an hour {lines} ({cost['rate_card']})", hang=4)
