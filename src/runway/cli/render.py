"""A job as people read it: a row of a list, a one-line outcome, the whole story."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from rich.text import Text

from runway.cli.output import Screen, compact, show_state
from runway.cli.text import safe, show_age, show_duration
from runway.cli.wire import Attempt, Condition, Cost, Excerpt, Failure, JobView, Spec, Usage

MIB = 1024 * 1024

Say = Callable[..., None]
"""`Screen.line` or `Screen.note`."""

JOB_COLUMNS = ("ID", "NAME", "STATE", "WHY", "AGE", "GPU", "COST USD")


def job_row(view: JobView, now: datetime) -> Sequence[object]:
    """A job under `JOB_COLUMNS`; the cost is what it came to, or at most can come to."""
    return (
        view["id"],
        view["name"],
        show_state(view["state"]),
        _why(view),
        show_age(view["created_at"], now),
        view["spec"]["resources"]["gpu"] if view["spec"] else None,
        _price(view["cost"]),
    )


def show_submitted(say: Say, view: JobView, *, replayed: bool) -> None:
    """A job that was just accepted: its id, state and price."""
    cost = view["cost"]
    price = (
        f"{cost['hourly']} {cost['currency']} an hour, at most {cost['ceiling']} ({cost['rate_card']})" if cost else ""
    )
    say(Text(safe(view["id"]), "bold"), show_state(view["state"]), price)
    if replayed:
        say("This idempotency key was used before: this is its first job, nothing new was submitted.", style="yellow")


def show_outcome(say: Say, view: JobView) -> None:
    """How a job ended: its state and cost, and where it failed what happened and what to do."""
    say(view["id"], show_state(view["state"]), f"({_price(view['cost'])} USD)" if view["cost"] else "")
    if view["failure"] is not None:
        _failure(say, view["failure"])


def show_job(screen: Screen, view: JobView, now: datetime) -> None:
    """Everything known of a job, on stdout."""
    screen.line(Text(safe(view["id"]), "bold"), view["name"] or "", show_state(view["state"]))
    _times(screen, view, now)
    screen.line(f"  tenant    {view['tenant']}")
    if view["spec"] is not None:
        _spec(screen, view["spec"])
    if view["conditions"]:
        _conditions(screen, view["conditions"], now)
    if view["attempts"]:
        _attempts(screen, view, now)
    if view["failure"] is not None:
        screen.line("Failure", style="bold")
        _failure(screen.line, view["failure"])
    if view["usage"] is not None:
        _usage(screen, view["usage"])
    if view["cost"] is not None:
        _cost(screen, view["cost"])
    if view["excerpt"] is not None:
        _excerpt(screen, view["excerpt"])
    where = view["kubernetes"]
    screen.line("Kubernetes", style="bold")
    screen.line(f"  kubectl -n {where['namespace']} describe job {where['job']}")


def _conditions(screen: Screen, conditions: Sequence[Condition], now: datetime) -> None:
    screen.line("Conditions", style="bold")
    for condition in conditions:
        since = f" (for {show_age(condition['since'], now)})" if condition["since"] else ""
        screen.line(f"  {condition['code']}: {condition['message']}{since}", style="yellow")


def _attempts(screen: Screen, view: JobView, now: datetime) -> None:
    screen.line("Attempts", style="bold")
    columns = ("#", "POD", "NODE", "STATE", "EXIT", "SIGNAL", "REASON", "STARTED", "RAN", "COUNTED")
    numbered = list(enumerate(view["attempts"], start=1 + view["attempts_left_out"]))
    screen.table(columns, (_attempt_row(number, attempt, now) for number, attempt in numbered), indent=2)
    verdict = view["failure"]["message"] if view["failure"] else None
    for number, attempt in numbered:
        if attempt["message"] not in (None, verdict):
            screen.line(f"  {number}: {_told(attempt)}", style="dim")
    if view["disruptions"]:
        screen.line(f"  {view['disruptions']} ended by the cluster, which does not count against the retries")


def _times(screen: Screen, view: JobView, now: datetime) -> None:
    for label in ("created_at", "started_at", "finished_at"):
        if time := dict(view)[label]:
            screen.line(f"  {label.removesuffix('_at'):<9} {time} ({show_age(str(time), now)} ago)")
    if view["spec"] and view["created_at"] and not view["finished_at"]:
        deadline = datetime.fromisoformat(view["created_at"]) + timedelta(seconds=view["spec"]["timeout_seconds"])
        left = f"in {show_duration((deadline - now).total_seconds())}" if deadline > now else "passed"
        screen.line(f"  deadline  {deadline.isoformat().replace('+00:00', 'Z')} ({left})")


def _spec(screen: Screen, spec: Spec) -> None:
    resources = spec["resources"]
    gpu = f", {resources['gpu']} GPU {resources['gpu_type'] or ''}".rstrip() if resources["gpu"] else ""
    limits = (
        f"timeout {show_duration(spec['timeout_seconds'])}, retries {spec['retries']}, "
        f"grace {show_duration(spec['grace_period_seconds'])}"
    )
    screen.line(f"  image     {spec['image']}")
    screen.line(f"  command   {shlex.join([*spec['command'], *spec['args']]) or '(of the image)'}")
    if spec["env"]:
        # Names alone: values may be what should not stand on a screen. `-o json` has them.
        screen.line(f"  env       {' '.join(sorted(spec['env']))}")
    screen.line(f"  resources {resources['cpu']} CPU, {resources['memory']} memory{gpu}")
    screen.line(f"  limits    {limits}")


def _attempt_row(number: int, attempt: Attempt, now: datetime) -> Sequence[object]:
    finished = attempt["finished_at"]
    end = now if finished is None else datetime.fromisoformat(finished)
    return (
        number,
        attempt["pod"],
        attempt["node"],
        show_state(attempt["state"]),
        attempt["exit_code"],
        attempt["signal"],
        attempt["reason"],
        attempt["started_at"],
        show_age(attempt["started_at"], end),
        "yes" if attempt["counted"] else "no",
    )


def _told(attempt: Attempt) -> str:
    return f"{attempt['cause']}: {attempt['message']}" if attempt["cause"] else attempt["message"] or ""


def _failure(say: Say, failure: Failure) -> None:
    again = "may succeed if repeated" if failure["retryable"] else "will not succeed by being repeated"
    say(f"  {failure['code']} ({failure['category']}; {again}): {failure['message']}", style="red")
    if failure["hint"]:
        say(f"  hint: {failure['hint']}")
    for name, value in failure["evidence"].items():
        say(f"  {name}: {compact(value)}", style="dim")


def _usage(screen: Screen, usage: Usage) -> None:
    """What is known of it, beside the limits."""
    told = []
    if usage["cpu_cores"] is not None:
        told.append(f"CPU {usage['cpu_cores']:.2f} of {_or_unknown(usage['cpu_limit_cores'], '{:g}')} on average")
    if usage["throttled_ratio"] is not None:
        told.append(f"throttled in {usage['throttled_ratio']:.0%} of its CPU periods")
    if usage["memory_peak_bytes"] is not None:
        limit = usage["memory_limit_bytes"]
        of = "an unknown limit" if limit is None else f"{limit / MIB:.0f}Mi"
        told.append(f"memory peak {usage['memory_peak_bytes'] / MIB:.0f}Mi of {of}")
    if usage["gpu_utilisation"] is not None:
        told.append(f"GPU {usage['gpu_utilisation']:.0%}")
    if told:
        screen.line("Usage", style="bold")
        screen.line(f"  {', '.join(told)}")


def _or_unknown(value: float | None, form: str) -> str:
    return "an unknown limit" if value is None else form.format(value)


def _excerpt(screen: Screen, excerpt: Excerpt) -> None:
    screen.line(f"The end of the log of {excerpt['pod']}", style="bold")
    if excerpt["truncated"]:
        screen.line("  …", style="dim")
    for line in excerpt["text"].splitlines():
        screen.line(f"  {line}")


def _cost(screen: Screen, cost: Cost) -> None:
    screen.line(f"Cost in {cost['currency']} ({cost['rate_card']})", style="bold")
    actual = "unknown until it ends" if cost["actual"] is None else cost["actual"]
    screen.line(f"  hourly {cost['hourly']}, ceiling {cost['ceiling']}, actual {actual}")
    rows = ((line["resource"], line["quantity"], line["hourly"]) for line in cost["lines"])
    screen.table(("RESOURCE", "QUANTITY", "HOURLY"), rows, indent=2)


def _price(cost: Cost | None) -> str:
    if cost is None:
        return ""
    return f"max {cost['ceiling']}" if cost["actual"] is None else cost["actual"]


def _why(view: JobView) -> str:
    if view["failure"] is not None:
        return view["failure"]["code"]
    return ", ".join(condition["code"] for condition in view["conditions"])
