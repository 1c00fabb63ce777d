"""Reads an object through the fault proxy, and lists the HTTP statuses of requests."""

from tests.integration.fault_rules import Faults

BODY = bytes(range(256)) * 4
"""The content of the object "key", which the fixture `faults` stores."""


def raw_get(faults: Faults, **request: str) -> bytes:
    """Read the object "key" through the proxy with boto3, without the retries of ObjectStore."""
    return faults.store.client.get_object(**faults.store.address("key"), **request)["Body"].read()


def statuses(faults: Faults, method: str) -> list[int]:
    """Return the HTTP statuses of all requests with the given method, in order of arrival."""
    return [request.status for request in faults.requests if request.method == method]
