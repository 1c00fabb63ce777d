"""Fixtures of the end-to-end tests."""

import pytest

from tests.crds import crd_directory
from tests.simulator.api.kinds import Kinds, builtin, custom


@pytest.fixture(scope="session")
def kinds() -> Kinds:
    return Kinds([*builtin(), *custom(crd_directory())])
