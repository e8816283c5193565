"""The quota ledger: sums, limits, and refusals that name the holders."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from runway.admission.quota import Ledger, ObservedUsage, limits_of
from runway.errors import QuotaExceeded
from runway.jobs.models import CostView
from runway.jobs.resources import ZERO, ResourceVector, vector_of
from runway.jobs.spec import Resources
from runway.policy import Quota

GIB = 1 << 30
LIMIT = Quota.model_validate(
    {
        "gpu": 2, "gpu_types": {"a10g": 2, "h100": 1}, "cpu": "16", "memory": "64Gi", "disk": "100Gi", "jobs": 5,
        "usd_per_hour": "20",
    }
)  # fmt: skip
LIMITS = limits_of(LIMIT)
NOW = datetime(2026, 11, 24, 8, tzinfo=UTC)
COST = CostView("USD", "a10g/g5.12xlarge@5.672", "0.093000", "0.094000", None, [])


def ledger() -> Ledger:
    return Ledger({"vision": LIMIT, "speech": LIMIT})


def request(gpu: int = 0, cpu: int = 1000, memory: int = GIB, disk: int = 0) -> ResourceVector:
    return ResourceVector(gpu, cpu, memory, 1, disk)


def of_type(gpu_type: str, gpu: int) -> ResourceVector:
    return ResourceVector(gpu, 1000, GIB, 1, gpu_types=((gpu_type, gpu),))


def refusal(book: Ledger, asked: ResourceVector) -> QuotaExceeded:
    with pytest.raises(QuotaExceeded) as caught:
        book.reserve("vision", "rw-new", asked, NOW)
    return caught.value


def test_vector_of_job_has_its_resources_and_one_job() -> None:
    resources = Resources(500, GIB, 2, "a10g", disk=3 * GIB)
    assert vector_of(resources, COST) == ResourceVector(
        gpu=2, cpu=500, memory=GIB, jobs=1, disk=3 * GIB, usd_per_hour=93_000, ceiling=94_000, gpu_types=(("a10g", 2),)
    )


def test_job_observed_before_create_response_counts_once() -> None:
    book = ledger()
    book.reserve("vision", "rw-a", request(gpu=2), NOW)
    account = book.accounts["vision"]
    assert (account.reserved.gpu, account.used.gpu) == (2, 0)
    book.set_observed("vision", "rw-a", ObservedUsage(request(gpu=2), own=request(gpu=2)))
    assert (account.reserved, account.used.gpu) == (ZERO, 2)
    book.release("vision", "rw-a")
    assert (account.reserved, account.used.gpu) == (ZERO, 2)


def test_second_create_is_refused_if_it_no_longer_fits() -> None:
    """The first create made the Job after all; that was deleted, its pod still ends, and the key is submitted again."""
    book = ledger()
    book.reserve("vision", "rw-new", request(gpu=2), NOW)
    book.set_observed("vision", "rw-new", ObservedUsage(request(gpu=2)))
    assert refusal(book, request(gpu=2)).violations[0].message == "2 of 2 are used or reserved, 0 free"
    assert book.accounts["vision"].reserved == request(gpu=2)


def test_pods_of_earlier_job_do_not_reduce_reservation() -> None:
    book = ledger()
    book.reserve("vision", "rw-a", request(gpu=1), NOW)
    book.set_observed("vision", "rw-a", ObservedUsage(request(gpu=1)))
    assert refusal(book, request(gpu=1)).violations[0].message == "2 of 2 are used or reserved, 0 free"
    book.release("vision", "rw-a")
    book.reserve("vision", "rw-b", request(gpu=1), NOW)


def test_observed_and_deleted_job_does_not_end_reservation() -> None:
    """A lagging watch can report an earlier Job now."""
    book = ledger()
    book.reserve("vision", "rw-a", request(gpu=2), NOW)
    book.set_observed("vision", "rw-a", ObservedUsage(request(gpu=2), own=request(gpu=2)))
    book.set_observed("vision", "rw-a", None)
    assert refusal(book, request(gpu=1)).violations[0].message == "2 of 2 are used or reserved, 0 free"


def test_request_over_quota_is_refused_and_changes_nothing() -> None:
    book = ledger()
    book.reserve("vision", "rw-a", request(gpu=1), NOW)
    before = book.accounts["vision"].reserved
    refusal(book, request(gpu=2))
    assert book.accounts["vision"].reserved == before
    book.reserve("vision", "rw-b", request(gpu=1), NOW)


def test_tenants_do_not_share_quota() -> None:
    book = ledger()
    book.reserve("vision", "rw-a", request(gpu=2), NOW)
    book.reserve("speech", "rw-a", request(gpu=2), NOW)


def test_second_reservation_of_a_job_adds_nothing() -> None:
    book = ledger()
    book.reserve("vision", "rw-a", request(gpu=2), NOW)
    book.reserve("vision", "rw-a", request(gpu=2), NOW)
    assert book.accounts["vision"].reserved == request(gpu=2)


def test_second_reservation_of_a_job_takes_the_maximum() -> None:
    """Either create may be the one that Kubernetes carries out."""
    book = ledger()
    book.reserve("vision", "rw-a", request(gpu=1, cpu=1000), NOW)
    book.reserve("vision", "rw-a", request(gpu=0, cpu=3000), NOW)
    assert book.accounts["vision"].reserved == request(gpu=1, cpu=3000)


def test_refused_second_reservation_keeps_the_first() -> None:
    book = ledger()
    book.reserve("vision", "rw-a", request(gpu=0), NOW)
    book.reserve("vision", "rw-b", request(gpu=1), NOW)
    with pytest.raises(QuotaExceeded) as caught:
        book.reserve("vision", "rw-a", request(gpu=2), NOW)
    assert [found.field for found in caught.value.violations] == ["resources.gpu"]
    assert book.accounts["vision"].reserved == request(gpu=0) + request(gpu=1)


def test_overdrawn_resource_does_not_refuse_a_job_without_it() -> None:
    book = ledger()
    book.set_observed("vision", "rw-a", ObservedUsage(request(gpu=7)))
    book.reserve("vision", "rw-b", request(gpu=0), NOW)
    assert refusal(book, request(gpu=1)).violations[0].message == "7 of 2 are used or reserved, 0 free"


def test_zero_usage_does_not_end_reservation() -> None:
    book = ledger()
    book.set_observed("vision", "rw-a", ObservedUsage(request(gpu=1)))
    book.reserve("vision", "rw-a", request(gpu=1), NOW)
    book.set_observed("vision", "rw-a", None)
    account = book.accounts["vision"]
    assert (account.used, account.reserved) == (ZERO, request(gpu=1))


def test_usage_of_terminating_pods_is_shown_separately_and_still_counts() -> None:
    book = ledger()
    book.set_observed("vision", "rw-a", ObservedUsage(request(gpu=2), request(gpu=2)))
    account = book.accounts["vision"]
    assert (account.used.gpu, account.terminating.gpu) == (2, 2)
    refusal(book, request(gpu=1))
    book.set_observed("vision", "rw-a", None)
    assert (account.used, account.terminating) == (ZERO, ZERO)


def test_refusal_has_a_violation_per_exceeded_resource() -> None:
    book = ledger()
    for number in range(5):
        book.set_observed("vision", f"rw-{number}", ObservedUsage(request(cpu=3000, memory=10 * GIB, disk=19 * GIB)))
    error = refusal(book, request(gpu=3, cpu=2000, memory=20 * GIB, disk=6 * GIB))
    assert [(found.field, found.observed, found.limit, found.message) for found in error.violations] == [
        ("resources.gpu", "3", "2", "0 of 2 are used or reserved, 2 free"),
        ("resources.cpu", "2", "16", "15 of 16 are used or reserved, 1 free"),
        ("resources.memory", "20Gi", "64Gi", "50Gi of 64Gi are used or reserved, 14Gi free"),
        ("resources.disk", "6Gi", "100Gi", "95Gi of 100Gi are used or reserved, 5Gi free"),
        ("jobs", "1", "5", "5 of 5 are used or reserved, 0 free"),
    ]
    assert all(found.code == "quota_exceeded" for found in error.violations)
    assert error.detail == (
        "tenant vision would exceed its quota of resources.gpu, resources.cpu, resources.memory, resources.disk, jobs"
    )


def test_quota_without_disk_does_not_limit_disk() -> None:
    book = Ledger({"vision": Quota.model_validate({"gpu": 1, "cpu": "1", "memory": "1Gi", "jobs": 1})})
    book.reserve("vision", "rw-a", request(disk=10**18), NOW)
    account = book.accounts["vision"]
    assert account.reserved.disk == 10**18
    assert account.limit_to_json() == {
        "gpu": 1, "cpu": "1", "memory": "1Gi", "disk": None, "jobs": 1, "gpu_types": {}, "usd_per_hour": None
    }  # fmt: skip


def test_gpus_of_a_type_are_limited_beside_all_gpus() -> None:
    book = ledger()
    book.reserve("vision", "rw-a", of_type("h100", 1), NOW)
    (violation,) = refusal(book, of_type("h100", 1)).violations
    assert (violation.field, violation.message) == ("resources.gpu", "1 of 1 h100 are used or reserved, 0 free")
    book.reserve("vision", "rw-b", of_type("a10g", 1), NOW)
    error = refusal(book, of_type("h100", 2))
    assert [found.message for found in error.violations] == [
        "2 of 2 are used or reserved, 0 free",
        "1 of 1 h100 are used or reserved, 0 free",
    ]
    assert error.detail == "tenant vision would exceed its quota of resources.gpu, resources.gpu of type h100"


def test_type_that_the_quota_does_not_name_is_limited_by_all_gpus_alone() -> None:
    book = ledger()
    book.reserve("vision", "rw-a", of_type("l4", 2), NOW)
    assert [found.message for found in refusal(book, of_type("l4", 1)).violations] == [
        "2 of 2 are used or reserved, 0 free"
    ]


def test_type_with_quota_0_is_refused() -> None:
    quota = Quota.model_validate({"gpu": 4, "gpu_types": {"h100": 0}, "cpu": "9", "memory": "9Gi", "jobs": 9})
    with pytest.raises(QuotaExceeded) as caught:
        Ledger({"vision": quota}).reserve("vision", "rw-a", of_type("h100", 1), NOW)
    assert [found.message for found in caught.value.violations] == ["the tenant's quota is 0 h100"]


def test_refusal_of_a_type_names_jobs_with_that_type() -> None:
    book = ledger()
    book.set_observed("vision", "rw-a10g", ObservedUsage(of_type("a10g", 1)))
    book.set_observed("vision", "rw-h100", ObservedUsage(of_type("h100", 1)))
    error = refusal(book, of_type("h100", 1))
    assert error.extra["held_by"] == ["rw-a10g", "rw-h100"]
    book.set_observed("vision", "rw-a10g", None)
    assert refusal(book, of_type("h100", 1)).extra["held_by"] == ["rw-h100"]


def test_hourly_prices_of_unfinished_jobs_are_limited() -> None:
    book = ledger()
    book.set_observed("vision", "rw-a", ObservedUsage(ResourceVector(jobs=1, usd_per_hour=15_500_000)))
    (violation,) = refusal(book, ResourceVector(jobs=1, usd_per_hour=4_500_001)).violations
    assert (violation.field, violation.observed, violation.limit) == ("usd_per_hour", "4.500001", "20")
    assert violation.message == "15.5 of 20 USD an hour are used or reserved, 4.5 free"
    book.reserve("vision", "rw-b", ResourceVector(jobs=1, usd_per_hour=4_500_000), NOW)


@pytest.mark.parametrize(
    ("held", "asked", "hint"),
    [
        (0, 3, "this exceeds the tenant's whole quota; ask a platform operator to raise it"),
        (1, 2, "ask for at most 1 now, or wait until a job that uses it finishes"),
        (2, 1, "wait until a job that uses it finishes, or cancel one"),
    ],
)
def test_hint_depends_on_free_quota(held: int, asked: int, hint: str) -> None:
    book = ledger()
    if held:
        book.set_observed("vision", "rw-a", ObservedUsage(request(gpu=held)))
    assert [found.hint for found in refusal(book, request(gpu=asked)).violations] == [hint]


def test_refusal_shows_used_reserved_requested_and_limit() -> None:
    book = ledger()
    book.set_observed("vision", "rw-a", ObservedUsage(request(gpu=1)))
    book.reserve("vision", "rw-b", request(gpu=1, cpu=500, disk=5 * GIB), NOW)
    extra = refusal(book, request(gpu=1)).extra
    more: dict[str, object] = {"gpu_types": {}, "usd_per_hour": "0"}
    limits = {"gpu_types": {"a10g": 2, "h100": 1}, "usd_per_hour": "20"}
    assert extra["quota"] == {
        "limit": {"gpu": 2, "cpu": "16", "memory": "64Gi", "disk": "100Gi", "jobs": 5, **limits},
        "used": {"gpu": 1, "cpu": "1", "memory": "1Gi", "disk": "0", "jobs": 1, **more},
        "reserved": {"gpu": 1, "cpu": "500m", "memory": "1Gi", "disk": "5Gi", "jobs": 1, **more},
        "requested": {"gpu": 1, "cpu": "1", "memory": "1Gi", "disk": "0", "jobs": 1, **more},
        "budget": None,
    }


def test_refusal_of_gpus_names_jobs_with_gpus() -> None:
    book = ledger()
    book.set_observed("vision", "rw-cpu", ObservedUsage(request()))
    book.set_observed("vision", "rw-gpu", ObservedUsage(request(gpu=2)))
    extra = refusal(book, request(gpu=1)).extra
    assert (extra["held_by"], extra["held_by_count"]) == (["rw-gpu"], 1)


def test_refusal_of_cpu_names_jobs_with_cpu() -> None:
    book = ledger()
    book.set_observed("vision", "rw-cpu", ObservedUsage(request(cpu=16_000)))
    extra = refusal(book, request(gpu=1)).extra
    assert extra["held_by"] == ["rw-cpu"]


def test_refusal_names_jobs_with_a_reservation() -> None:
    book = ledger()
    book.reserve("vision", "rw-in-flight", request(gpu=2), NOW)
    extra = refusal(book, request(gpu=1)).extra
    assert extra["held_by"] == ["rw-in-flight"]


def test_job_with_usage_and_reservation_is_named_once() -> None:
    """Deleted while its pod still ends, and submitted again under the same key."""
    book = ledger()
    book.set_observed("vision", "rw-again", ObservedUsage(request(gpu=1), request(gpu=1)))
    book.reserve("vision", "rw-again", request(gpu=1), NOW)
    extra = refusal(book, request(gpu=1)).extra
    assert (extra["held_by"], extra["held_by_count"]) == (["rw-again"], 1)


def test_refusal_counts_all_holders_and_names_fifty() -> None:
    book = Ledger({"vision": Quota.model_validate({"gpu": 60, "cpu": "99", "memory": "99Gi", "jobs": 99})})
    for number in range(60):
        book.set_observed("vision", f"rw-{number}", ObservedUsage(request(gpu=1)))
    extra: dict[str, Any] = refusal(book, request(gpu=1)).extra
    assert (len(extra["held_by"]), extra["held_by_count"]) == (50, 60)


AMOUNTS = st.builds(
    ResourceVector,
    st.integers(0, 3),
    st.sampled_from([0, 500, 4000, 17_000]),
    st.sampled_from([0, GIB, 40 * GIB]),
    st.just(1),
    st.sampled_from([0, GIB, 60 * GIB]),
    st.sampled_from([0, 1_000_000, 12_000_000]),
    st.just(0),
    st.sampled_from([(), (("a10g", 1),), (("h100", 1),), (("a10g", 1), ("h100", 1)), (("l4", 2),)]),
)
IDS = st.sampled_from(["rw-a", "rw-b", "rw-c", "rw-d", "rw-e", "rw-f"])
TENANTS = st.sampled_from(["vision", "speech"])


@given(st.lists(st.tuples(st.booleans(), IDS, AMOUNTS), max_size=40))
def test_reservations_never_exceed_the_limit(steps: list[tuple[bool, str, ResourceVector]]) -> None:
    book = ledger()
    account = book.accounts["vision"]
    for reserving, job_id, amounts in steps:
        if reserving:
            with suppress(QuotaExceeded):
                book.reserve("vision", job_id, amounts, NOW)
        else:
            book.release("vision", job_id)
        for row, limit in LIMITS.items():
            assert 0 <= row.amount(account.used + account.reserved) <= limit


class LedgerLaws(RuleBasedStateMachine):
    """Any order of reservations, releases and observed usage, compared with two plain dictionaries."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = ledger()
        self.reservations: dict[tuple[str, str], ResourceVector] = {}
        self.observed: dict[tuple[str, str], ObservedUsage] = {}

    @rule(tenant=TENANTS, job_id=IDS, asked=AMOUNTS)
    def reserve(self, tenant: str, job_id: str, asked: ResourceVector) -> None:
        after = self.reservations.get((tenant, job_id), ZERO).maximum(asked)
        taken = self._reserved(tenant, but=job_id) + self._used(tenant)
        short = [row for row, limit in LIMITS.items() if row.amount(asked) and row.amount(taken + after) > limit]
        if short:
            with pytest.raises(QuotaExceeded) as caught:
                self.ledger.reserve(tenant, job_id, asked, NOW)
            assert [found.field for found in caught.value.violations] == [row.field for row in short]
        else:
            self.ledger.reserve(tenant, job_id, asked, NOW)
            self.reservations[tenant, job_id] = after

    @rule(tenant=TENANTS, job_id=IDS)
    def release(self, tenant: str, job_id: str) -> None:
        self.ledger.release(tenant, job_id)
        self.reservations.pop((tenant, job_id), None)

    @rule(tenant=TENANTS, job_id=IDS, own=st.just(ZERO) | AMOUNTS, others=AMOUNTS, ending=st.booleans())
    def observe(self, tenant: str, job_id: str, own: ResourceVector, others: ResourceVector, ending: bool) -> None:
        usage = ObservedUsage(own + others, others if ending else ZERO, own)
        self.ledger.set_observed(tenant, job_id, usage)
        self.observed[tenant, job_id] = usage

    @rule(tenant=TENANTS, job_id=IDS)
    def observe_the_end(self, tenant: str, job_id: str) -> None:
        self.ledger.set_observed(tenant, job_id, None)
        self.observed.pop((tenant, job_id), None)

    @invariant()
    def sums_are_those_of_the_entries(self) -> None:
        ending = {key: usage.terminating for key, usage in self.observed.items()}
        for tenant, account in self.ledger.accounts.items():
            assert account.reserved == self._reserved(tenant)
            assert account.used == self._used(tenant)
            assert account.terminating == _sum(ending, tenant)

    def teardown(self) -> None:
        for tenant, job_id in self.reservations:
            self.ledger.release(tenant, job_id)
        for tenant, job_id in self.observed:
            self.ledger.set_observed(tenant, job_id, None)
        for account in self.ledger.accounts.values():
            assert account.used == account.reserved == account.terminating == ZERO
            assert not account.observed
            assert not account.reservations

    def _used(self, tenant: str) -> ResourceVector:
        return _sum({key: usage.amounts for key, usage in self.observed.items()}, tenant)

    def _reserved(self, tenant: str, but: str | None = None) -> ResourceVector:
        """Reservations that are not observed for the same Job."""
        reservations = {key: amounts for key, amounts in self.reservations.items() if key[1] != but}
        own = {key: usage.own for key, usage in self.observed.items() if key in reservations}
        either = {key: amounts.maximum(own.get(key, ZERO)) for key, amounts in reservations.items()}
        return _sum(either, tenant) - _sum(own, tenant)


def _sum(entries: dict[tuple[str, str], ResourceVector], tenant: str) -> ResourceVector:
    return sum((amounts for (owner, _), amounts in entries.items() if owner == tenant), ZERO)


TestLedgerLaws = LedgerLaws.TestCase
TestLedgerLaws.settings = settings(deadline=None, max_examples=40, stateful_step_count=25)
