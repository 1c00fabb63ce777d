"""Fixtures of the end-to-end tests."""

import pytest

from tests.simulator.api.kinds import Kinds, builtin, crd_directory, custom


@pytest.fixture(scope="session")
def kinds() -> Kinds:
    return Kinds([*builtin(), *custom(crd_directory())])
