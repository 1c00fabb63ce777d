"""Tests that the endpoint limits the pixels of all images that are decoded at once."""

import asyncio

import pytest
from starlette.requests import ClientDisconnect

from awares_platform.serve.admission import Admission
from awares_platform.serve.errors import RequestError
from awares_platform.serve.routes import HeldStream

CHAT = "/v1/chat/completions"


def test_requests_enter_in_order_while_they_fit():
    async def play() -> list[str]:
        admission, said = Admission(10), []

        async def request(name: str, pixels: int, seconds: float) -> None:
            await admission.enter(pixels)
            assert admission.held <= 10
            said.append(name)
            await asyncio.sleep(seconds)
            admission.leave(pixels)

        works = [request("a", 6, 0.05), request("b", 5, 0.05), request("c", 1, 0.05)]
        await asyncio.gather(*works, request("d", 10, 0))
        assert admission.held == 0
        return said

    assert asyncio.run(play()) == ["a", "b", "c", "d"]


def test_a_request_that_leaves_the_queue_keeps_nothing():
    async def play() -> None:
        admission = Admission(10)
        await admission.enter(8)
        first, second = (asyncio.create_task(admission.enter(size)) for size in (9, 2))
        await asyncio.sleep(0)
        assert not second.done(), "a small request must not overtake a large one for ever"
        first.cancel()
        await asyncio.wait({first, second})
        assert first.cancelled() and admission.held == 10
        third = asyncio.create_task(admission.enter(3))
        await asyncio.sleep(0)
        admission.leave(8)
        third.cancel()
        await asyncio.wait({third})
        assert admission.held == 2

    asyncio.run(play())


def test_what_can_never_fit_is_refused():
    with pytest.raises(RequestError, match="11 pixels together; send at most 10") as refused:
        asyncio.run(Admission(10).enter(11))
    assert refused.value.status == 413


def test_an_image_for_the_page_counts_as_well(client_for, crop_loop, png):
    client = client_for()
    assert client.post("/low-view", content=png).status_code == 200
    crop_loop._admission = Admission(112 * 112 - 1)
    reply = client.post("/low-view", content=png)
    assert (reply.status_code, reply.json()["error"]["code"]) == (413, "too_many_pixels")
    assert crop_loop.pixels == 0


@pytest.mark.parametrize("stream", [False, True])
def test_every_end_of_a_request_gives_its_pixels_back(
    client_for, crop_loop, engine, chat_body, stream
):
    client = client_for()
    for script, status in ((["7"], 200), ([RuntimeError("broken")], 500)):
        engine.script = script
        reply = client.post(CHAT, json=chat_body(stream=stream))
        assert reply.status_code == (200 if stream else status)
        assert crop_loop.pixels == 0
    broken = chat_body(image=b"\x89PNG\r\n\x1a\n" + b"0" * 100)
    assert client.post(CHAT, json=broken).status_code == 400
    assert client.post(CHAT, json=chat_body("q" * 4000)).status_code == 400
    assert crop_loop.pixels == 0


def test_a_stream_whose_client_has_left_gives_its_pixels_back():
    released = []

    async def events():
        yield b"data: 1\n\n"

    async def receive():
        return {"type": "http.disconnect"}

    async def send(message):
        raise OSError("the client has left")

    stream = HeldStream(events(), lambda: released.append(1))
    with pytest.raises(ClientDisconnect):
        asyncio.run(stream({"type": "http", "asgi": {"spec_version": "2.4"}}, receive, send))
    assert released == [1]
