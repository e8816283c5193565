"""The quota ledger: sums, limits, and refusals that name the holders."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from runway.admission.quota import Ledger, ObservedUsage
from runway.errors import QuotaExceeded
from runway.jobs.resources import ZERO, ResourceVector, vector_of
from runway.jobs.spec import Resources
from runway.policy import Quota

GIB = 1 << 30
LIMIT = Quota.model_validate({"gpu": 2, "cpu": "16", "memory": "64Gi", "jobs": 5})
NAMES = list(ResourceVector.__struct_fields__)


def ledger() -> Ledger:
    return Ledger({"vision": LIMIT, "speech": LIMIT})


def request(gpu: int = 0, cpu: int = 1000, memory: int = GIB) -> ResourceVector:
    return ResourceVector(gpu, cpu, memory, 1)


def refusal(book: Ledger, asked: ResourceVector) -> QuotaExceeded:
    with pytest.raises(QuotaExceeded) as caught:
        book.reserve("vision", "rw-new", asked)
    return caught.value


def test_vector_of_job_has_its_resources_and_one_job() -> None:
    assert vector_of(Resources(500, GIB, 2, "a10g")) == ResourceVector(gpu=2, cpu=500, memory=GIB, jobs=1)


def test_job_observed_before_create_response_counts_once() -> None:
    book = ledger()
    book.reserve("vision", "rw-a", request(gpu=2))
    account = book.accounts["vision"]
    assert (account.reserved.gpu, account.used.gpu) == (2, 0)
    book.set_observed("vision", "rw-a", ObservedUsage(request(gpu=2), own=request(gpu=2)))
    assert (account.reserved, account.used.gpu) == (ZERO, 2)
    book.release("vision", "rw-a")
    assert (account.reserved, account.used.gpu) == (ZERO, 2)


def test_second_create_is_refused_if_it_no_longer_fits() -> None:
    """The first create made the Job after all; that was deleted, its pod still ends, and the key is submitted again."""
    book = ledger()
    book.reserve("vision", "rw-new", request(gpu=2))
    book.set_observed("vision", "rw-new", ObservedUsage(request(gpu=2)))
    assert refusal(book, request(gpu=2)).violations[0].message == "2 of 2 are used or reserved, 0 free"
    assert book.accounts["vision"].reserved == request(gpu=2)


def test_pods_of_earlier_job_do_not_reduce_reservation() -> None:
    book = ledger()
    book.reserve("vision", "rw-a", request(gpu=1))
    book.set_observed("vision", "rw-a", ObservedUsage(request(gpu=1)))
    assert refusal(book, request(gpu=1)).violations[0].message == "2 of 2 are used or reserved, 0 free"
    book.release("vision", "rw-a")
    book.reserve("vision", "rw-b", request(gpu=1))


def test_observed_and_deleted_job_does_not_end_reservation() -> None:
    """A lagging watch can report an earlier Job now."""
    book = ledger()
    book.reserve("vision", "rw-a", request(gpu=2))
    book.set_observed("vision", "rw-a", ObservedUsage(request(gpu=2), own=request(gpu=2)))
    book.set_observed("vision", "rw-a", None)
    assert refusal(book, request(gpu=1)).violations[0].message == "2 of 2 are used or reserved, 0 free"


def test_request_over_quota_is_refused_and_changes_nothing() -> None:
    book = ledger()
    book.reserve("vision", "rw-a", request(gpu=1))
    before = book.accounts["vision"].reserved
    refusal(book, request(gpu=2))
    assert book.accounts["vision"].reserved == before
    book.reserve("vision", "rw-b", request(gpu=1))


def test_tenants_do_not_share_quota() -> None:
    book = ledger()
    book.reserve("vision", "rw-a", request(gpu=2))
    book.reserve("speech", "rw-a", request(gpu=2))


def test_second_reservation_of_a_job_adds_nothing() -> None:
    book = ledger()
    book.reserve("vision", "rw-a", request(gpu=2))
    book.reserve("vision", "rw-a", request(gpu=2))
    assert book.accounts["vision"].reserved == request(gpu=2)


def test_second_reservation_of_a_job_takes_the_maximum() -> None:
    """Either create may be the one that Kubernetes carries out."""
    book = ledger()
    book.reserve("vision", "rw-a", request(gpu=1, cpu=1000))
    book.reserve("vision", "rw-a", request(gpu=0, cpu=3000))
    assert book.accounts["vision"].reserved == request(gpu=1, cpu=3000)


def test_refused_second_reservation_keeps_the_first() -> None:
    book = ledger()
    book.reserve("vision", "rw-a", request(gpu=0))
    book.reserve("vision", "rw-b", request(gpu=1))
    with pytest.raises(QuotaExceeded) as caught:
        book.reserve("vision", "rw-a", request(gpu=2))
    assert [found.field for found in caught.value.violations] == ["resources.gpu"]
    assert book.accounts["vision"].reserved == request(gpu=0) + request(gpu=1)


def test_overdrawn_resource_does_not_refuse_a_job_without_it() -> None:
    book = ledger()
    book.set_observed("vision", "rw-a", ObservedUsage(request(gpu=7)))
    book.reserve("vision", "rw-b", request(gpu=0))
    assert refusal(book, request(gpu=1)).violations[0].message == "7 of 2 are used or reserved, 0 free"


def test_zero_usage_does_not_end_reservation() -> None:
    book = ledger()
    book.set_observed("vision", "rw-a", ObservedUsage(request(gpu=1)))
    book.reserve("vision", "rw-a", request(gpu=1))
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
        book.set_observed("vision", f"rw-{number}", ObservedUsage(request(cpu=3000, memory=10 * GIB)))
    error = refusal(book, request(gpu=3, cpu=2000, memory=20 * GIB))
    assert [(found.field, found.observed, found.limit, found.message) for found in error.violations] == [
        ("resources.gpu", "3", "2", "0 of 2 are used or reserved, 2 free"),
        ("resources.cpu", "2", "16", "15 of 16 are used or reserved, 1 free"),
        ("resources.memory", "20Gi", "64Gi", "50Gi of 64Gi are used or reserved, 14Gi free"),
        ("jobs", "1", "5", "5 of 5 are used or reserved, 0 free"),
    ]
    assert all(found.code == "quota_exceeded" for found in error.violations)
    assert (
        error.detail == "tenant vision would exceed its quota of resources.gpu, resources.cpu, resources.memory, jobs"
    )


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
    book.reserve("vision", "rw-b", request(gpu=1, cpu=500))
    extra = refusal(book, request(gpu=1)).extra
    assert extra["quota"] == {
        "limit": {"gpu": 2, "cpu": "16", "memory": "64Gi", "jobs": 5},
        "used": {"gpu": 1, "cpu": "1", "memory": "1Gi", "jobs": 1},
        "reserved": {"gpu": 1, "cpu": "500m", "memory": "1Gi", "jobs": 1},
        "requested": {"gpu": 1, "cpu": "1", "memory": "1Gi", "jobs": 1},
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
    book.reserve("vision", "rw-in-flight", request(gpu=2))
    extra = refusal(book, request(gpu=1)).extra
    assert extra["held_by"] == ["rw-in-flight"]


def test_job_with_usage_and_reservation_is_named_once() -> None:
    """Deleted while its pod still ends, and submitted again under the same key."""
    book = ledger()
    book.set_observed("vision", "rw-again", ObservedUsage(request(gpu=1), request(gpu=1)))
    book.reserve("vision", "rw-again", request(gpu=1))
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
                book.reserve("vision", job_id, amounts)
        else:
            book.release("vision", job_id)
        for name in NAMES:
            assert 0 <= getattr(account.used + account.reserved, name) <= getattr(account.limit, name)


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
        taken, limit = self._reserved(tenant, but=job_id) + self._used(tenant), self.ledger.accounts[tenant].limit
        short = {
            name
            for name in NAMES
            if getattr(asked, name) and getattr(taken, name) + getattr(after, name) > getattr(limit, name)
        }
        if short:
            with pytest.raises(QuotaExceeded) as caught:
                self.ledger.reserve(tenant, job_id, asked)
            assert {found.field.removeprefix("resources.") for found in caught.value.violations} == short
        else:
            self.ledger.reserve(tenant, job_id, asked)
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
