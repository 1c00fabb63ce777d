"""Tests the doctor's checks of a store that works, and of stores with different faults."""

import itertools
from collections.abc import Callable
from functools import partial

import pytest

from awares_platform.cli.doctor import storage
from awares_platform.cli.doctor.examine import examine
from awares_platform.cli.doctor.finding import Finding
from awares_platform.store import ObjectStore
from tests.integration.fault import Call, Stall, Status
from tests.integration.fault_proxy import proxy

pytestmark = pytest.mark.integration


def checked(check: Callable[[ObjectStore], list[Finding]], store: ObjectStore) -> Finding:
    [found] = examine("store", partial(check, store), 10.0, storage.REMEDY)
    return found


def test_a_sound_store_passes_and_is_left_clean(store: ObjectStore) -> None:
    visited = storage.patient(store.config, "probes/doctor-1")
    checks = (storage.round_trip, storage.conditional_writes, storage.rates)
    found = [checked(check, visited) for check in checks]
    assert [one.status for one in found[:2]] == ["pass", "pass"]
    assert found[2].metrics.keys() == {
        "put_mb_per_s",
        "get_mb_per_s",
        "requests_per_s",
        "request_p50_s",
        "lists_per_s",
        "conditional_puts_per_s",
    }
    assert 0 < found[2].metrics["lists_per_s"] < 10_000 and " lists/s, " in found[2].found
    store.put("probes/doctor-2/other", b"another visit")
    assert [*store.list("probes/doctor-1/")]
    [cleaned] = storage.clean(store.config, "probes/doctor-1")
    assert cleaned.status == "pass"
    assert [info.key for info in store.list()] == ["probes/doctor-2/other"]


def test_a_store_that_refuses_conditional_writes_fails(store: ObjectStore) -> None:
    with proxy(store, retry_budget_s=1.0) as faults:
        faults.on("*/HEAD", "PUT", fault=Status(501, "NotImplemented"))
        found = checked(storage.conditional_writes, faults.store)
    assert (found.status, found.remedy) == ("fail", storage.REMEDY)
    assert "refused the call" in found.found and "NotImplemented" in found.found


@pytest.mark.parametrize("ignored", ["If-None-Match", "If-Match", "If-None-Match and If-Match"])
def test_a_store_that_ignores_conditions_fails(store: ObjectStore, ignored: str) -> None:
    """The test makes the real store look as if it ignored the conditions of writes."""
    count = itertools.count(1)

    # The store must refuse the doctor's third and fourth write. Before such a write, this function
    # changes the object so that the condition is true and the store accepts the write.
    def accept() -> None:
        number = next(count)
        if number == 3 and "If-None-Match" in ignored:
            store.delete("HEAD")
        if number == 4 and "If-Match" in ignored.split(" and "):
            store.put("HEAD", b"1")

    with proxy(store, retry_budget_s=1.0) as faults:
        faults.on("*/HEAD", "PUT", fault=Call(accept))
        found = checked(storage.conditional_writes, faults.store)
    assert (found.status, found.remedy) == ("fail", storage.TWO_WRITERS)
    assert found.found == f"the store ignores {ignored}"


def test_a_store_that_hangs_is_a_failure_within_the_limit(store: ObjectStore) -> None:
    with proxy(store, retry_budget_s=30.0) as faults:
        faults.on("*", "PUT", fault=Stall())
        work = partial(storage.round_trip, faults.store)
        [found] = examine("store", work, 1.0, storage.REMEDY)
        faults.clear()
    assert (found.status, found.found) == ("fail", "no result within 1 s")


def test_a_store_that_does_not_delete_fails(store: ObjectStore) -> None:
    """The test writes the object again after each deletion, as if the store had not deleted it."""
    with proxy(store, retry_budget_s=1.0) as faults:
        back = Call(lambda: store.put("round-trip", b"again"), "after")
        faults.on("*", "DELETE", fault=back)
        found = checked(storage.round_trip, faults.store)
    assert found.status == "fail" and "still there after its deletion" in found.found


def test_denied_deletions_fail(store: ObjectStore) -> None:
    with proxy(store, retry_budget_s=1.0) as faults:
        faults.on("*", "DELETE", fault=Status(403, "AccessDenied"))
        found = checked(storage.round_trip, faults.store)
    assert found.status == "fail" and "AccessDenied" in found.found
