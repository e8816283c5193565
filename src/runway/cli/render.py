"""A job as people read it: a row of a list, a one-line outcome, the whole story."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from rich.text import Text

from runway.cli.output import Screen, compact, show_state
from runway.cli.text import safe, show_age, show_duration
from runway.cli.wire import Attempt, Cost, Failure, JobView, Spec

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
        screen.line("Conditions", style="bold")
        for condition in view["conditions"]:
            since = f" (for {show_age(condition['since'], now)})" if condition["since"] else ""
            screen.line(f"  {condition['code']}: {condition['message']}{since}", style="yellow")
    if view["attempts"]:
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
    if view["failure"] is not None:
        screen.line("Failure", style="bold")
        _failure(screen.line, view["failure"])
    if view["cost"] is not None:
        _cost(screen, view["cost"])
    where = view["kubernetes"]
    screen.line("Kubernetes", style="bold")
    screen.line(f"  kubectl -n {where['namespace']} describe job {where['job']}")


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
