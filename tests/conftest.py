"""The order in which tests run, and the store that several test files share."""

import signal
from collections.abc import Iterator

import pytest

from awares_platform.config.store import StoreConfig
from awares_platform.store import ObjectStore
from awares_platform.store import seaweed as server

LONGEST_FIRST = ("test_trial", "test_sft", "test_grpo_faults", "test_grpo", "test_engine")
"""The files that take longest; every other file with slow tests comes after these."""


def pytest_configure() -> None:
    """Let Ctrl-C reach the processes that tests start.

    A shell starts a background command with SIGINT ignored, and its children inherit that.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the fast tests first, because they fail soonest. The longest file starts the slow ones.

    A worker of pytest-xdist takes one file at a time. If a long file came last, one worker would
    run it alone while the other has nothing left to do.
    """
    items.sort(key=_place)


def _place(item: pytest.Item) -> int:
    if "slow" not in item.keywords:
        return 0
    if item.path.stem in LONGEST_FIRST:
        return 1 + LONGEST_FIRST.index(item.path.stem)
    return 1 + len(LONGEST_FIRST)


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    """A store on a private SeaweedFS that the whole session shares; write below your own prefix.

    Its credentials are in the environment of this process and of those that a test starts.
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
