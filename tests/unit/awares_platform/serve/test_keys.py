"""Tests the API keys: their file, their rotation, their limits and the access log."""

import asyncio
import json
import logging
import stat
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from limits.storage import memory

from awares.errors import ConfigError
from awares_platform.serve.allowance import Allowances, Counts, Refusal
from awares_platform.serve.errors import RequestError
from awares_platform.serve.gate import Gate
from awares_platform.serve.keys import ApiKey, Keyring, KeysFile, hashed, new_key

CHAT = "/v1/chat/completions"


def entry(key: str, name: str = "team-a", **limits: int) -> ApiKey:
    return ApiKey(name=name, sha256=hashed(key), **limits)


def written(path: Path, *keys: ApiKey) -> Path:
    KeysFile(keys=keys).write(path)
    return path


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


class Clock:
    """A clock that stands still until a test moves it."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Replace the clock that the limits of keys read, and return the new one."""
    ticking = Clock()
    standing = SimpleNamespace(time=ticking)
    monkeypatch.setattr("awares_platform.serve.allowance.time", standing)
    monkeypatch.setattr(memory, "time", standing)
    return ticking


def test_a_key_is_written_as_its_hash_for_the_owner_only(tmp_path: Path) -> None:
    key = new_key()
    path = written(tmp_path / "keys.json", entry(key))
    assert key not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert KeysFile.read(path).keys == (entry(key),)
    assert [file.name for file in tmp_path.iterdir()] == ["keys.json"]


@given(st.text(max_size=60))
def test_no_other_header_opens(header: str) -> None:
    ring = Keyring(token="a token")
    if header.strip().lower() == "bearer a token":
        return
    with pytest.raises(RequestError) as refused:
        ring.caller(header)
    assert refused.value.status == 401


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("", "Invalid JSON"),
        ('{"keys": [{"name": "a"}]}', "keys[0].sha256: Field required"),
        ('{"keys": [{"name": "a", "sha256": "aw-plain-key"}]}', "keys[0].sha256: String should"),
        ('{"keys": [{"name": "a b", "sha256": "%s"}]}' % ("0" * 64), "keys[0].name"),
        (
            '{"keys": [{"name": "a", "sha256": "%s", "requests_per_minute": 0}]}' % ("0" * 64),
            "keys[0].requests_per_minute: Input should be greater than or equal to 1",
        ),
        ('{"keys": [{"name": "a", "sha256": "%s", "x": 1}]}' % ("0" * 64), "keys[0].x: Extra"),
    ],
)
def test_an_unusable_file_is_refused_by_its_field(tmp_path: Path, content: str, fault: str) -> None:
    path = tmp_path / "keys.json"
    path.write_text(content)
    with pytest.raises(ConfigError) as refused:
        Keyring(path=path)
    assert f"serve.keys_file {path}: {fault}" in str(refused.value)
    assert "aw-plain-key" not in str(refused.value)


def test_a_missing_file_is_refused_with_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"No such file.*awares keys add"):
        Keyring(path=tmp_path / "absent.json")


def test_entries_must_agree() -> None:
    with pytest.raises(ValueError, match="two entries have the same sha256"):
        KeysFile(keys=(entry("one"), entry("one", "team-b")))
    with pytest.raises(ValueError, match="'team-a' have different limits"):
        KeysFile(keys=(entry("one"), entry("two", requests_per_minute=3)))


def test_keys_change_without_a_restart(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, clock = written(tmp_path / "keys.json", entry("old")), Clock()
    ring = Keyring(path=path, clock=clock)
    assert ring.caller("Bearer old") == entry("old")
    written(path, entry("old"), entry("new"))
    clock.now += 2
    assert ring.caller("bearer new") == entry("new") and ring.caller("Bearer old")
    written(path, entry("new"))
    clock.now += 2
    with pytest.raises(RequestError):
        ring.caller("Bearer old")
    path.write_text("{")
    clock.now += 2
    assert ring.caller("Bearer new") == entry("new")
    assert "goes on with the keys" in caplog.text
    path.unlink()
    clock.now += 2
    assert ring.caller("Bearer new") == entry("new")


def test_a_link_that_points_to_another_file_is_noticed(tmp_path: Path) -> None:
    """Check a link, because Kubernetes updates a mounted Secret by changing a link's target."""
    (tmp_path / "one").mkdir(), (tmp_path / "two").mkdir()
    written(tmp_path / "one" / "keys.json", entry("old"))
    written(tmp_path / "two" / "keys.json", entry("new"))
    link, clock = tmp_path / "data", Clock()
    link.symlink_to("one")
    ring = Keyring(path=link / "keys.json", clock=clock)
    link.unlink()
    link.symlink_to("two")
    clock.now += 2
    assert ring.caller("Bearer new") == entry("new")


def admit(counts: Allowances, *arguments: Any) -> Refusal | None:
    return asyncio.run(counts.admit(*arguments))


def test_requests_of_the_last_minute_are_limited(clock: Clock) -> None:
    counts = Allowances()
    for _ in range(2):
        assert admit(counts, "a", 2, None) is None
        clock.now += 10
    refusal = admit(counts, "a", 2, None)
    assert refusal == Refusal("rate_limit_exceeded", "key a may send 2 requests a minute", 40)
    assert admit(counts, "b", 2, None) is None
    clock.now += 41
    assert admit(counts, "a", 2, None) is None
    assert admit(counts, "a", 2, None) is not None


def test_visual_tokens_of_a_day_are_limited(clock: Clock) -> None:
    counts = Allowances()
    assert admit(counts, "a", None, 100) is None
    asyncio.run(counts.spend("a", 60))
    assert admit(counts, "a", None, 100) is None
    asyncio.run(counts.spend("a", 60))
    refusal = admit(counts, "a", None, 100)
    assert refusal is not None and refusal.code == "insufficient_quota"
    assert refusal.retry_after_s == 24 * 60 * 60
    clock.now += 24 * 60 * 60
    assert admit(counts, "a", None, 100) is None


def local(shared: Allowances) -> Counts:
    """Return the `Counts` object of a replica, which calls `shared` directly, without Ray."""
    methods = {name: SimpleNamespace(remote=getattr(shared, name)) for name in ("admit", "spend")}
    return Counts(SimpleNamespace(**methods))


def test_a_key_over_its_limits_gets_429_and_the_time_to_wait(
    client_for, engine, chat_body, tmp_path
) -> None:
    engine.script = ["7"] * 8
    rate = entry("rate", "rate", requests_per_minute=1)
    day = entry("day", "day", visual_tokens_per_day=5)
    ring = Keyring(path=written(tmp_path / "keys.json", rate, day, entry("free", "free")))
    counts = local(Allowances())
    # Two replicas share the counts.
    clients = [client_for(gate=Gate(ring, counts)) for _ in range(2)]

    def ask(client: int, key: str):
        return clients[client].post(CHAT, json=chat_body(), headers=bearer(key))

    assert ask(0, "rate").status_code == 200
    second = ask(1, "rate")
    assert (second.status_code, second.headers["retry-after"]) == (429, "60")
    assert second.json()["error"]["code"] == "rate_limit_exceeded"
    assert "rate may send 1 requests a minute" in second.json()["error"]["message"]
    # Each answer takes 4 visual tokens, and two answers exceed the limit of 5.
    assert [ask(index % 2, "day").status_code for index in range(3)] == [200, 200, 429]
    assert ask(0, "day").json()["error"]["code"] == "insufficient_quota"
    assert ask(0, "free").status_code == 200


def test_a_stream_spends_tokens(client_for, engine, chat_body, tmp_path) -> None:
    engine.script = ["7"] * 2
    path = written(tmp_path / "keys.json", entry("day", visual_tokens_per_day=1))
    client = client_for(gate=Gate(Keyring(path=path), local(Allowances())))
    statuses = [
        client.post(CHAT, json=chat_body(stream=True), headers=bearer("day")).status_code
        for _ in range(2)
    ]
    assert statuses == [200, 429]


def test_counts_that_are_not_reachable_stop_nobody(caplog: pytest.LogCaptureFixture) -> None:
    async def broken(*arguments: object) -> None:
        raise RuntimeError("the actor is dead")

    async def hangs(*arguments: object) -> None:
        await asyncio.sleep(60)

    for method in (broken, hangs):
        handle = SimpleNamespace(admit=SimpleNamespace(remote=method))
        started = time.monotonic()
        assert asyncio.run(Counts(handle).admit(entry("k", requests_per_minute=1))) is None
        assert time.monotonic() - started < 30
    assert caplog.text.count("not reachable") == 2


def test_the_access_log_names_the_key_and_holds_no_secret(
    client_for, engine, chat_body, tmp_path, caplog
) -> None:
    engine.script = ["7"]
    path = written(tmp_path / "keys.json", entry("aw-secret"))
    client = client_for(gate=Gate(Keyring(path=path)))
    with caplog.at_level(logging.INFO, logger="ray.serve.awares_access"):
        client.post(CHAT, json=chat_body(question="private?"), headers=bearer("aw-secret"))
        client.post(CHAT, json=chat_body(), headers=bearer("wrong"))
    first, second = (record for record in caplog.records if record.message.startswith("chat "))
    assert (first.key_name, first.status, first.visual_tokens, first.full_tokens) == (
        "team-a",
        200,
        4,
        16,
    )
    assert "key_name=team-a status=200 code=ok" in first.message
    assert (second.key_name, second.status, second.code) == ("-", 401, "unauthorized")
    for secret in ("aw-secret", "private", "wrong", "base64"):
        assert secret not in json.dumps([vars(first), vars(second)], default=str)
