"""Tests that no job starts on a store that ignores the conditions of writes."""

import hashlib
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from awares_platform.config import PlatformConfig
from awares_platform.config.run import RunConfig
from awares_platform.curate import job as curate
from awares_platform.runtime.job_lease import hold, require_held, run_lease
from awares_platform.store.errors import StoreError
from tests.unit.awares_platform.store.answering_server import (
    Answer,
    Asked,
    answering,
    client_of,
    error,
)

KEY = run_lease("mini", "grpo")


class Server:
    """A small S3 server that ignores the conditional headers named in `ignored`."""

    def __init__(self, ignored: tuple[str, ...] = ()) -> None:
        self.ignored, self.objects = ignored, {}

    def answer(self, asked: Asked) -> Answer:
        name = urlsplit(asked.path).path
        if asked.method == "DELETE":
            self.objects.pop(name, None)
            return Answer(204)
        if asked.method == "PUT":
            if not self._is_met(asked, name):
                return Answer(412, error("PreconditionFailed"))
            self.objects[name] = asked.body
        if name not in self.objects:
            return Answer(404, error("NoSuchKey"))
        body = self.objects[name] if asked.method == "GET" else b""
        return Answer(200, body, (("etag", self._etag(name)),))

    def _etag(self, name: str) -> str:
        digest = hashlib.md5(self.objects.get(name, b"")).hexdigest()
        return f'"{digest}"'

    def _is_met(self, asked: Asked, name: str) -> bool:
        new, old = asked.headers["if-none-match"], asked.headers["if-match"]
        absent = new is None or "If-None-Match" in self.ignored or name not in self.objects
        same = old is None or "If-Match" in self.ignored or old == self._etag(name)
        return absent and same


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret")


def test_a_sound_store_is_accepted() -> None:
    sound = Server()
    with answering(sound.answer) as server:
        store = client_of(server)
        with hold(store, KEY, "grpo") as claim:
            require_held(store, claim)
        assert sound.objects == {}


@pytest.mark.parametrize(
    "ignored", [("If-None-Match",), ("If-Match",), ("If-None-Match", "If-Match")]
)
def test_a_store_that_ignores_conditions_is_refused(ignored: tuple[str, ...]) -> None:
    careless = Server(ignored)
    with answering(careless.answer) as server:
        refusal = (
            rf"s3://awares/x/runs/mini/grpo: http://.* ignores {' and '.join(ignored)}, so two "
            "jobs could overwrite each other's results; use an S3 server with conditional writes"
        )
        with pytest.raises(StoreError, match=refusal), hold(client_of(server), KEY, "grpo"):
            pytest.fail("the job runs")
        assert careless.objects == {}


def test_a_check_that_fails_leaves_no_lease() -> None:
    broken = Server()

    def answer(asked: Asked) -> Answer:
        if asked.headers["if-match"]:
            return Answer(400, error("InvalidRequest"))
        return broken.answer(asked)

    with answering(answer) as server:
        with pytest.raises(StoreError), hold(client_of(server), KEY, "grpo"):
            pytest.fail("the job runs")
    assert broken.objects == {}


def test_a_job_refuses_such_a_store_before_it_starts_anything(tmp_path: Path) -> None:
    with answering(Server(("If-None-Match",)).answer) as server:
        store = client_of(server).config
        config = PlatformConfig(store=store, run=RunConfig(directory=tmp_path))
        with pytest.raises(StoreError, match="ignores If-None-Match"):
            curate.run(config)
    assert not list(tmp_path.iterdir())
