"""Jobs by id, start of an id, or name; several jobs; the newest job; and the filters of `ls` and `cancel`."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.cli import Answer, Clock, FakeRunway, attempt, failure, job, jobs, problem, reply, runway

FULL = "rw-" + "a" * 20
OTHER = "rw-" + "b" * 20
NONE = jobs()


def searching(*found: Answer, answers: list[Answer] | None = None) -> FakeRunway:
    """Return a Runway that answers each search in turn, and everything else with a finished job."""
    return FakeRunway(answers or [reply(job("succeeded", id=FULL))], found=list(found))


def searches(fake: FakeRunway) -> list[dict[str, str]]:
    return [dict(request.url.params) for request in fake.searches]


@pytest.mark.parametrize("command", ["status", "logs", "wait"])
def test_full_id_costs_no_search(command: str) -> None:
    fake = searching(NONE)
    assert runway(command, FULL, answers=fake).exit_code == 0
    assert fake.searches == []
    assert fake.requests[0].url.path.startswith(f"/v1/jobs/{FULL}")


@pytest.mark.parametrize("command", ["status", "logs", "wait", "top"])
@pytest.mark.parametrize(
    ("text", "found", "searched"),
    [
        ("rw-aaaa", [jobs(job(id=FULL))], [{"id_prefix": "rw-aaaa"}]),
        ("aaaa", [NONE, jobs(job(id=FULL))], [{"name": "aaaa"}, {"id_prefix": "rw-aaaa"}]),
        ("train", [jobs(job(id=FULL))], [{"name": "train"}]),
        ("rw-aaaa", [NONE, jobs(job(id=FULL))], [{"id_prefix": "rw-aaaa"}, {"name": "rw-aaaa"}]),
    ],
    ids=["start of an id", "start without rw-", "name", "name like the start of an id"],
)
def test_job_is_found(command: str, text: str, found: list[Answer], searched: list[dict[str, str]]) -> None:
    quota = reply({"tenants": []})
    fake = searching(*found, answers=[quota, reply(job("succeeded", id=FULL))] if command == "top" else None)
    assert runway(command, text, answers=fake).exit_code == 0
    assert searches(fake) == [{"limit": "6", **query} for query in searched]
    assert FULL in fake.requests[-1].url.path


def test_name_means_its_newest_job_and_the_others_are_named() -> None:
    found = jobs(job(id=FULL), job("failed", id=OTHER), job("succeeded", id="rw-c"))
    result = runway("status", "train", answers=searching(found))
    assert result.exit_code == 0
    assert f"Newest job with the name train: {FULL} (pending). Others: {OTHER} (failed), rw-c (succeeded)." in (
        result.stderr
    )


def test_ten_thousand_jobs_of_a_name_are_one_page() -> None:
    fake = searching(jobs(*(job(id=f"rw-{letter}") for letter in "abcdef"), more="next"))
    result = runway("status", "train", answers=fake)
    assert "rw-e (pending), and more." in result.stderr
    assert len(fake.searches) == 1


@pytest.mark.parametrize("command", ["status", "logs", "wait", "cancel"])
def test_ambiguous_start_of_an_id_is_a_usage_error_with_candidates(command: str) -> None:
    fake = searching(jobs(job(id=FULL), job("failed", id="rw-" + "a" * 19 + "b", name="evil\x1b[2J")))
    result = runway(command, "rw-aa", *(["-y"] if command == "cancel" else []), answers=fake)
    assert result.exit_code == 2
    assert FULL in result.stderr
    assert "evil\\x1b[2J" in result.stderr
    assert fake.requests == []


def test_ambiguity_as_data_lists_the_candidates() -> None:
    found = jobs(job(id=FULL), job(id=OTHER))
    document = json.loads(runway("status", "rw-a", "-o", "json", answers=searching(found)).stdout)
    assert document["code"] == "ambiguous_job"
    assert [each["id"] for each in document["candidates"]] == [FULL, OTHER]


def test_unknown_job_has_a_plain_answer() -> None:
    result = runway("status", "train", answers=searching(NONE))
    assert result.exit_code == 1
    assert "no job has the id or the name 'train' in tenant vision" in result.stderr
    assert "finished jobs are deleted after a time" in result.stderr


def test_short_text_is_never_the_start_of_an_id() -> None:
    """A misspelt name of three letters would be the start of one id in ten thousand jobs."""
    fake = searching(NONE)
    assert runway("cancel", "-y", "abc", answers=fake).exit_code == 1
    assert [query.get("id_prefix") for query in searches(fake)] == [None] * 3


@pytest.mark.parametrize("text", ["", "a b", "../x", "rw-\x1b[2J", "$(reboot)", "a/b", "a?x=1", "é", "-", "a" * 64])
def test_text_that_cannot_name_a_job_sends_nothing(text: str) -> None:
    fake = searching(NONE)
    assert runway("status", "--", text, answers=fake).exit_code == 2
    assert fake.requests == fake.searches == []


@given(st.text(max_size=70))
def test_any_argument_asks_only_for_labels_and_ids(text: str) -> None:
    fake = searching(NONE)
    assert runway("status", "--", text, answers=fake).exit_code in (0, 1, 2)
    for query in searches(fake):
        assert re.fullmatch(r"[A-Za-z0-9][-A-Za-z0-9_.]{0,62}", query.get("name", "a"))
        assert re.fullmatch(r"rw-[a-z2-7]{0,20}", query.get("id_prefix", "rw-"))


# The newest job


@pytest.mark.parametrize("command", ["status", "logs"])
def test_without_an_argument_the_newest_job_of_the_tenant_is_meant(command: str) -> None:
    fake = FakeRunway([jobs(job(id=FULL)), reply(job("succeeded", id=FULL))])
    result = runway(command, answers=fake)
    assert result.exit_code == 0
    assert dict(fake.requests[0].url.params) == {"limit": "1"}
    assert fake.requests[1].url.path.startswith(f"/v1/jobs/{FULL}")
    assert f"Newest job in tenant vision: {FULL}" in result.stderr


def test_newest_job_requires_a_tenant_and_a_job() -> None:
    assert "set a tenant" in runway("status", answers=[NONE], tenant=None).stderr
    assert runway("status", answers=[NONE], tenant=None).exit_code == 2
    assert runway("logs", answers=[NONE]).exit_code == 1


# wait for several


def finished(state: str, job_id: str, **members: Any) -> Answer:
    return reply(job(state, id=job_id, **members))


EXIT_3 = {"failure": failure(), "attempts": [attempt("failed", exit_code=3)]}


def test_wait_takes_several_and_exits_with_the_first_failure() -> None:
    answers = [finished("succeeded", FULL), finished("failed", OTHER, **EXIT_3), finished("cancelled", "rw-c")]
    result = runway("wait", FULL, OTHER, "rw-" + "c" * 20, answers=answers)
    assert result.exit_code == 3
    assert [line.split()[:2] for line in result.stdout.splitlines() if line.startswith("rw-")] == [
        [FULL, "succeeded"],
        [OTHER, "failed"],
        ["rw-c", "cancelled"],
    ]


def test_wait_for_several_as_data() -> None:
    answers = [finished("succeeded", FULL), finished("succeeded", OTHER)]
    result = runway("wait", FULL, OTHER, FULL, "-o", "json", answers=answers)
    assert result.exit_code == 0
    assert [view["id"] for view in json.loads(result.stdout)["jobs"]] == [FULL, OTHER]


def test_timeout_of_wait_covers_all_jobs() -> None:
    clock = Clock()
    fake = FakeRunway([reply(job("running"))])
    result = runway("wait", FULL, OTHER, "--timeout", "60", answers=fake, clock=clock)
    assert result.exit_code == 75
    assert sum(clock.slept) == pytest.approx(60)
    assert f"{FULL} is still running" in result.stderr
    assert f"{OTHER} is still running" in result.stderr


def test_wait_for_a_name_survives_an_outage() -> None:
    fake = searching(problem(503, "not_ready", retry_after=5), jobs(job(id=FULL)))
    result = runway("wait", "train", answers=fake)
    assert result.exit_code == 0
    assert "retrying for up to 5m" in result.stderr


# cancel by name, state and all


def test_cancel_of_a_name_needs_exactly_one_unfinished_job() -> None:
    fake = searching(jobs(job("running", id=FULL)), answers=[reply(job("cancelling", id=FULL), 202)])
    assert runway("cancel", "-y", "train", answers=fake).exit_code == 0
    assert fake.paths == [f"DELETE /v1/jobs/{FULL}"]
    assert fake.searches[0].url.params.get_list("state") == ["pending", "running"]

    fake = searching(jobs(job("running", id=FULL), job("pending", id=OTHER)))
    result = runway("cancel", "-y", "train", answers=fake)
    assert (result.exit_code, fake.requests) == (2, [])
    assert "runway cancel --name train" in result.stderr

    fake = searching(NONE, jobs(job("cancelling", id=FULL)), answers=[reply(job("cancelling", id=FULL), 202)])
    assert runway("cancel", "-y", "train", answers=fake).exit_code == 0, "a cancel is idempotent"

    fake = searching(NONE, NONE, jobs(job("succeeded", id=FULL)))
    result = runway("cancel", "-y", "train", answers=fake)
    assert (result.exit_code, fake.requests) == (1, [])
    assert f"the newest, {FULL}, is succeeded" in result.stderr


def test_unknown_name_does_not_stop_the_other_cancellations() -> None:
    fake = searching(NONE, answers=[reply(job("cancelling", id=FULL), 202)])
    result = runway("cancel", "-y", "unknown", FULL, answers=fake)
    assert (result.exit_code, result.stdout) == (1, f"{FULL} is cancelling\n")
    assert "unknown was not cancelled" in result.stderr


def test_one_ambiguous_name_cancels_none() -> None:
    fake = searching(jobs(job("running", id=FULL), job("running", id=OTHER)))
    assert runway("cancel", "-y", "rw-" + "c" * 20, "train", answers=fake).exit_code == 2
    assert fake.requests == []


@pytest.mark.parametrize(
    ("flags", "query"),
    [
        (["--all"], [("limit", "100"), ("state", "pending"), ("state", "running")]),
        (["--state", "pending"], [("limit", "100"), ("state", "pending")]),
        (["--name", "train"], [("limit", "100"), ("state", "pending"), ("state", "running"), ("name", "train")]),
        (["--name", "train", "--state", "running"], [("limit", "100"), ("state", "running"), ("name", "train")]),
    ],
)
def test_cancel_selects_jobs(flags: list[str], query: list[tuple[str, str]]) -> None:
    page = jobs(job(id=FULL), job(id=OTHER))
    fake = FakeRunway([page, reply(job("cancelling"), 202)], found=[page])
    if "--name" in flags:
        fake.answers.pop(0)
    assert runway("cancel", "-y", *flags, answers=fake).exit_code == 0
    [listed] = fake.searches or fake.requests[:1]
    assert listed.url.params.multi_items() == query
    assert fake.paths[-2:] == [f"DELETE /v1/jobs/{FULL}", f"DELETE /v1/jobs/{OTHER}"]


def test_cancel_of_many_waits_for_the_rate_limit() -> None:
    clock = Clock()
    fake = FakeRunway([problem(429, "rate_limited", retry_after=7), reply(job("cancelling"), 202)])
    assert runway("cancel", "-y", FULL, OTHER, answers=fake, clock=clock).exit_code == 0
    assert clock.slept == [7]
    assert len(fake.requests) == 3


@pytest.mark.parametrize("flags", [[], ["--all", FULL], ["--name", "x", FULL], ["--state", "failed"]])
def test_cancel_without_a_clear_choice_is_a_usage_error(flags: list[str]) -> None:
    fake = FakeRunway([NONE])
    assert runway("cancel", "-y", *flags, answers=fake).exit_code == 2
    assert fake.requests == []


def test_cancel_all_asks_with_a_short_list() -> None:
    fake = FakeRunway([jobs(*(job(id=f"rw-{number}") for number in range(25)))])
    result = runway("cancel", "--all", answers=fake, at_terminal=True, stdin="n\n")
    assert result.exit_code == 1
    assert "and 5 more" in result.stderr
    assert "Cancel these 25 jobs?" in result.stderr
    assert len(fake.requests) == 1


# ls


def test_ls_filters_by_name_and_limits_with_n() -> None:
    fake = FakeRunway([NONE], found=[jobs(job(id=FULL))])
    assert runway("ls", "--name", "train", "-n", "3", "-o", "name", answers=fake).stdout == f"{FULL}\n"
    assert searches(fake) == [{"limit": "3", "name": "train"}]


def test_ls_since_stops_at_the_first_older_job() -> None:
    recent, old = "2026-11-24T08:00:00Z", "2026-11-24T06:00:00Z"
    fake = FakeRunway([jobs(job(id="rw-1", created_at=recent), job(id="rw-2", created_at=old), more="next")])
    result = runway("ls", "--since", "1h", "-o", "name", answers=fake)
    assert result.stdout == "rw-1\n"
    assert len(fake.requests) == 1
    assert runway("ls", "--since", "999999999d", "-o", "name", answers=[jobs(job(id="rw-1"))]).stdout == "rw-1\n"


def test_ls_watch_prints_once_without_a_terminal() -> None:
    fake = FakeRunway([jobs(job())])
    assert "rw-4f2a" in runway("ls", "-w", answers=fake).stdout
    assert len(fake.requests) == 1


def test_completion_of_hostile_names_is_empty() -> None:
    from tests.unit.cli.test_completion import completed

    found = jobs(
        *(job(id=FULL, name=name) for name in ("train-1", "train$(reboot)", "train;ls", "train 2", "train`x`"))
    )
    assert completed("runway status trai", found) == ["train-1"]
