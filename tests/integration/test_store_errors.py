"""Tests that errors about an unusable store name the store, and tell the user what to do."""

import datetime
import pickle
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from botocore import auth

from awares.errors import ConfigError
from awares_platform.config.store import StoreConfig
from awares_platform.store import ObjectStore, multipart, s3_errors
from awares_platform.store.errors import AccessDenied, MissingBucket, StoreUnavailable

pytestmark = pytest.mark.integration


def changed(store: ObjectStore, **changes: object) -> ObjectStore:
    """Return a copy of `store` with the settings in `changes`."""
    return ObjectStore(store.config.model_copy(update=changes))


def operations(store: ObjectStore, path: Path) -> list[Callable[[], object]]:
    """Return callables that each run one operation of `store`. The upload reads `path`."""
    return [
        store.check,
        lambda: store.put("key", b"x"),
        lambda: store.put("key", b"x", if_none_match=True),
        lambda: store.get("key"),
        lambda: store.get_range("key", 0, 1),
        lambda: store.exists("key"),
        lambda: [*store.list()],
        lambda: store.delete_prefix("key"),
        lambda: store.upload_file(path, "key"),
        lambda: store.download_file("key", path.with_name("copy")),
    ]


def test_a_missing_bucket_is_not_reported_as_a_missing_object(
    store: ObjectStore, tmp_path: Path
) -> None:
    nowhere = changed(store, url="s3://nowhere/x")
    (tmp_path / "file").write_bytes(b"x" * (multipart.PART_BYTES + 1))
    for operation in operations(nowhere, tmp_path / "file"):
        with pytest.raises(
            MissingBucket,
            match="s3://nowhere/x.* has no bucket 'nowhere'; create it, or correct store.url",
        ):
            operation()


def test_wrong_credentials_are_named(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    (tmp_path / "file").write_bytes(b"x")
    for operation in operations(changed(store), tmp_path / "file"):
        variables = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        with pytest.raises(
            AccessDenied, match=f"{store.config.url}.* denies access .* check {variables}"
        ):
            operation()


def test_absent_credentials_are_named(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(
        AccessDenied, match="no credentials .* set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    ):
        changed(store).check()


@pytest.mark.parametrize(("hours", "side"), [(1, "ahead of"), (-1, "behind")])
def test_a_wrong_clock_is_named(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hours: int, side: str
) -> None:
    """The test moves the clock of the client alone, and tries each operation of the store."""
    seconds, today = time.time, auth.get_current_datetime
    monkeypatch.setattr(
        auth, "get_current_datetime", lambda: today() + datetime.timedelta(hours=hours)
    )
    monkeypatch.setattr(s3_errors.time, "time", lambda: seconds() + 3600 * hours)
    (tmp_path / "file").write_bytes(b"x")
    wrong = rf"the clock of this machine is 3,[56]\d\d s {side} that of http://127.*denies access"
    for operation in operations(changed(store), tmp_path / "file"):
        with pytest.raises(AccessDenied, match=f"{wrong} .*; synchronise this clock with NTP"):
            operation()


def test_a_store_that_is_down_fails_within_the_budget(store: ObjectStore) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        down = changed(
            store, endpoint=f"http://127.0.0.1:{unused.getsockname()[1]}", retry_budget_s=1.0
        )
        started = time.monotonic()
        with pytest.raises(
            StoreUnavailable,
            match=r"/key: http://127.0.0.1:\d+ unavailable for .* of 1 s.*store.endpoint",
        ):
            down.get("key")
        assert 0.9 < time.monotonic() - started < 5


def test_a_hurried_call_ends_earlier_and_does_not_advise_a_larger_budget(
    store: ObjectStore,
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        down = changed(store, endpoint=f"http://127.0.0.1:{unused.getsockname()[1]}")
        hurried = pickle.loads(pickle.dumps(down.hurried(0.5).hurried(60.0)))
        started = time.monotonic()
        with pytest.raises(StoreUnavailable) as error:
            hurried.get("key")
        assert time.monotonic() - started < down.config.retry_budget_s / 2
    assert " unavailable for 0.5 s (" in str(error.value)
    assert str(error.value).endswith("check store.endpoint and that the server runs")
    assert hurried.config == down.config


def test_the_local_store_needs_a_session() -> None:
    with pytest.raises(ConfigError, match="runtime.session"):
        ObjectStore.from_config(StoreConfig(endpoint="local"))
