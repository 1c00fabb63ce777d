"""Fixtures that several test files share, and a time by which the last slow test has begun."""

import time
from collections.abc import Iterator

import pytest

from awares_platform.config.store import StoreConfig
from awares_platform.store import ObjectStore
from awares_platform.store import seaweed as server

LONGEST = {"test_trial_helm3": 2, "test_sft": 3, "test_trial": 4}
STARTED = pytest.StashKey[float]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--minutes",
        type=float,
        help="skip, and say so, what is marked slow and not begun after so many minutes",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[STARTED] = time.monotonic()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is quick runs first: it fails soonest, and is never what no time was left for. The longest lanes come last."""
    items.sort(key=lambda item: LONGEST.get(item.path.stem, 1) if "slow" in item.keywords else 0)


def pytest_runtest_setup(item: pytest.Item) -> None:
    minutes = item.config.getoption("--minutes")
    if (
        minutes is not None
        and "slow" in item.keywords
        and time.monotonic() - item.config.stash[STARTED] > 60 * minutes
    ):
        pytest.skip(
            f"no time left: the {minutes:g} minutes of --minutes are over; run this file by itself"
        )


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    """A store on a private SeaweedFS, shared by the whole session: write below a prefix of your own.

    Its credentials are in the environment, for this process and those that a test starts.
    """
    with (
        pytest.MonkeyPatch.context() as environment,
        server.serve(tmp_path_factory.mktemp("seaweed"), "awares") as running,
    ):
        environment.setenv("AWS_ACCESS_KEY_ID", running.access_key)
        environment.setenv("AWS_SECRET_ACCESS_KEY", running.secret_key)
        yield ObjectStore.from_config(
            StoreConfig(url="s3://awares/tests", endpoint=running.endpoint, retry_budget_s=10)
        )
