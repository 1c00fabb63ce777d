"""Provides the fixture `kinds`, which all end-to-end tests share."""

import pytest

from tests.crds import crd_directory
from tests.simulator.api.kinds import Kinds, builtin, custom


@pytest.fixture(scope="session")
def kinds() -> Kinds:
    return Kinds([*builtin(), *custom(crd_directory())])
