"""Tests the metrics that the endpoint reports for each HTTP request.

Fake counters and histograms record every call.
"""

from collections import Counter as Tally

import pytest

from awares_platform.runtime import prometheus
from awares_platform.serve.http_errors import outcome

CHAT = "/v1/chat/completions"


class Ledger(Tally[tuple[str, str]]):
    """The reported values by metric name and tag values.

    The value of a counter is its sum. The value of a histogram is its number of observations.
    """


@pytest.fixture
def ledger(monkeypatch: pytest.MonkeyPatch) -> Ledger:
    kept = Ledger()

    class FakeCounter:
        def __init__(self, name: str, description: str, tag_keys: tuple[str, ...] = ()) -> None:
            self.name, self.tag_keys = name, tag_keys

        def inc(self, value: float, tags: dict[str, str] | None = None) -> None:
            assert value > 0 and set(tags or {}) == set(self.tag_keys)
            kept[self.name, " ".join((tags or {}).values())] += value

    class FakeHistogram:
        def __init__(
            self, name: str, description: str, boundaries: list[float], tag_keys: tuple[str, ...]
        ) -> None:
            self.name = name
            assert boundaries == sorted(boundaries)

        def observe(self, value: float, tags: dict[str, str]) -> None:
            assert 0 <= value < 60
            kept[self.name, tags["status"]] += 1

    monkeypatch.setattr(prometheus, "connected", lambda: True)
    monkeypatch.setattr("ray.serve.metrics.Counter", FakeCounter)
    monkeypatch.setattr("ray.serve.metrics.Histogram", FakeHistogram)
    return kept


def test_answers_count_tokens_and_crops(client_for, engine, chat_body, ledger):
    engine.script = ["7", "GET_CROPS: ['0', '8']", "42"]
    client = client_for()
    for _ in range(2):
        assert client.post(CHAT, json=chat_body()).status_code == 200
    texts = sum(len(one.token_ids) - len(one.images) for one in engine.requests)
    assert ledger == {
        ("awares_serve_prompt_tokens", ""): texts + 4 + 4 + (4 + 4 + 8),
        ("awares_serve_cached_tokens", ""): 3 * 10,
        ("awares_serve_requests", "200 ok"): 2,
        ("awares_serve_latency_seconds", "200"): 2,
        ("awares_serve_answers", "answer"): 2,
        ("awares_serve_visual_tokens", ""): 4 + (4 + 4 + 8),
        ("awares_serve_full_tokens", ""): 16 + 16,
        ("awares_serve_crops", "0"): 1,
        ("awares_serve_crops", "8"): 1,
    }


def test_refusals_and_failures_are_counted_by_code(client_for, engine, chat_body, ledger):
    engine.script = [RuntimeError("CUDA error")]
    client = client_for(token="secret", max_request_bytes=100_000)
    headers = {"authorization": "Bearer secret"}
    client.post(CHAT, json=chat_body())
    client.post(CHAT, json=chat_body(model="other"), headers=headers)
    client.post(CHAT, json=chat_body(image=b"no picture"), headers=headers)
    client.post(CHAT, content=b"x" * 100_001, headers=headers)
    client.post(CHAT, json=chat_body(), headers=headers)
    requests = {
        tags: count for (name, tags), count in ledger.items() if name == "awares_serve_requests"
    }
    assert requests == {
        "401 unauthorized": 1,
        "404 model_not_found": 1,
        "400 invalid_image": 1,
        "413 request_too_large": 1,
        "500 engine_error": 1,
    }


def test_health_checks_are_not_requests(client_for, ledger):
    client_for().get("/healthz")
    assert ledger == {}


def test_a_client_that_left_is_no_error_of_ours():
    import asyncio

    from starlette.requests import ClientDisconnect

    assert outcome(asyncio.CancelledError()) == outcome(ClientDisconnect()) == (499, "client_gone")
    assert outcome(KeyError("bug")) == (500, "internal_error")
