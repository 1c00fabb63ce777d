"""Fixtures that several test files share."""

from collections.abc import Iterator

import pytest

from awares_platform import seaweed as server
from awares_platform.config.store import StoreConfig
from awares_platform.store import ObjectStore


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    """A store on a private SeaweedFS, shared by the whole session: write below a prefix of your own.

    Its credentials are in the environment, for this process and those that a test starts.
    """
    with pytest.MonkeyPatch.context() as environment, server.serve(tmp_path_factory.mktemp("seaweed"), "awares") as running:
        environment.setenv("AWS_ACCESS_KEY_ID", running.access_key)
        environment.setenv("AWS_SECRET_ACCESS_KEY", running.secret_key)
        yield ObjectStore.from_config(StoreConfig(url="s3://awares/tests", endpoint=running.endpoint, retry_budget_s=10))
