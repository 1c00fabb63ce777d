"""Sets the order of the tests, and starts the store that several test files share."""

import os
import signal
from collections.abc import Iterator

import hypothesis
import pytest

from awares_platform.config.store import StoreConfig
from awares_platform.store import ObjectStore
from awares_platform.store import seaweed as server

LONGEST_FIRST = (
    "test_trial",
    "test_sft",
    "test_grpo_faults",
    "test_own_data",
    "test_laptop",
    "test_grpo",
    "test_engine",
)
"""The test files with the longest slow tests, in the order in which they start.

Fast tests start before them. Slow tests of all other files start after them.
"""


# On a busy machine, a correct test can exceed Hypothesis's time limit for one example. This profile
# has no limit.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


_THIS_MACHINE = "localhost,127.0.0.1,127.0.0.2,::1"


def pytest_configure() -> None:
    """Make the tests independent of the shell that starts them."""
    # The user's AWS variables could send S3 requests to other servers.
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]
    # Requests to the tests' servers bypass the user's proxies.
    for name in ("no_proxy", "NO_PROXY"):
        os.environ[name] = ",".join(filter(None, [os.environ.get(name), _THIS_MACHINE]))
    # Some shells make background commands ignore SIGINT. Child processes would ignore SIGINT too.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the fast tests first, then the slow tests, starting with the longest file.

    A worker of pytest-xdist runs a whole file. If the longest file came last, the other workers
    would be idle.
    """
    items.sort(key=_place)


def _place(item: pytest.Item) -> int:
    if "slow" not in item.keywords:
        return 0
    if item.path.stem in LONGEST_FIRST:
        return 1 + LONGEST_FIRST.index(item.path.stem)
    return 1 + len(LONGEST_FIRST)


@pytest.fixture(scope="session")
def seaweed_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreConfig]:
    """Run a SeaweedFS server for this test process, and yield the settings of a client.

    The server's credentials are in this process's environment, which child processes inherit.
    """
    with (
        pytest.MonkeyPatch.context() as environment,
        server.serve(tmp_path_factory.mktemp("seaweed"), "awares") as running,
    ):
        environment.setenv("AWS_ACCESS_KEY_ID", running.access_key)
        environment.setenv("AWS_SECRET_ACCESS_KEY", running.secret_key)
        yield StoreConfig(url="s3://awares/tests", endpoint=running.endpoint, retry_budget_s=10)


@pytest.fixture(scope="module")
def seaweed(seaweed_server: StoreConfig, request: pytest.FixtureRequest) -> ObjectStore:
    """Return a client of the server that `seaweed_server` runs.

    The tests of one file share a prefix, so they must use different names for their runs and keys.
    """
    url = f"{seaweed_server.url}/{request.path.stem}"
    return ObjectStore.from_config(seaweed_server.model_copy(update={"url": url}))
