"""Tests how the simulator rewrites commands and files of pods: mount paths and Service names."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.simulator.api.kinds import Kinds, builtin
from tests.simulator.api.objects import Objects
from tests.simulator.network.addresses import Addresses
from tests.simulator.network.services import Services
from tests.simulator.node.volumes import Paths


def test_whole_components_of_paths_are_replaced_once() -> None:
    paths = Paths(
        {"/tmp": Path("/tmp/x"), "/etc/awares": Path("/tmp/x/setup"), "/etc": Path("/tmp/x/etc")}
    )
    text = "--config=/etc/awares/setup.toml /etc/awares-old /tmp,/tmpfs /var/tmp /etc"
    assert paths.rewrite(text) == (
        "--config=/tmp/x/setup/setup.toml /tmp/x/etc/awares-old /tmp/x,/tmpfs /var/tmp /tmp/x/etc"
    )


@pytest.fixture
def services() -> Iterator[Services]:
    objects = Objects(Kinds(builtin()))
    kind = objects.kinds.of("v1", "Service")
    for name, port in (("store", 8333), ("store-two", 8333)):
        objects.create(
            kind,
            "default",
            {
                "metadata": {"name": name},
                "spec": {"selector": {"a": name}, "ports": [{"port": port}]},
            },
        )
    found = Services(objects, Addresses(), lambda pod, port: None)
    found.reconcile()
    yield found
    found.stop()


@pytest.mark.parametrize(
    "name", ["store", "store.default", "store.default.svc", "store.default.svc.cluster.local"]
)
def test_names_with_a_port_become_addresses(services: Services, name: str) -> None:
    address = services.address("default", "store", 8333)
    assert (
        services.rewrite(f"endpoint = 'http://{name}:8333/'", "default")
        == f"endpoint = 'http://{address}/'"
    )


def test_other_words_stay(services: Services) -> None:
    other = services.address("default", "store-two", 8333)
    assert (
        services.rewrite("store my-store:8333 store-two:8333 store.example.com:8333", "default")
        == f"store my-store:8333 {other} store.example.com:8333"
    )
    assert services.rewrite("store:8333", "elsewhere") == "store:8333"
    assert (
        services.rewrite("store.default.svc", "elsewhere")
        == services.address("default", "store", 8333).partition(":")[0]
    )
