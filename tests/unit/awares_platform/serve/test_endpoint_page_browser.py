"""Tests the endpoint's web page in headless Chromium, with a scripted engine."""

import asyncio
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import uvicorn
from starlette.responses import PlainTextResponse

from awares_platform.config.serve import ServeConfig
from awares_platform.serve.gate import Gate
from awares_platform.serve.keys import Keyring
from awares_platform.serve.routes import Routes, create_app

driver = pytest.importorskip("playwright.sync_api", reason="no playwright: install the extra dev")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None,
    reason="no chromium on the PATH: install it, such as by `apt install chromium`",
)
REQUEST = "GET_CROPS: ['0', '8']"
WAIT_MS = 15_000
PASTE = """(name) => {
  const canvas = Object.assign(document.createElement("canvas"), { width: 112, height: 112 });
  canvas.getContext("2d").fillRect(0, 0, 56, 56);
  return new Promise((resolve) => canvas.toBlob((blob) => {
    const clipboardData = new DataTransfer();
    clipboardData.items.add(new File([blob], name, { type: "image/png" }));
    const target = name === "dropped.png"
      ? new DragEvent("drop", { dataTransfer: clipboardData, bubbles: true, cancelable: true })
      : new ClipboardEvent("paste", { clipboardData, bubbles: true, cancelable: true });
    document.body.dispatchEvent(target);
    resolve();
  }));
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator:
    with driver.sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--no-proxy-server"]
        )
        yield started
        started.close()


@pytest.fixture
def address(crop_loop) -> Iterator[Callable[..., str]]:
    """Yield a function that serves the application on a free port, and returns its address."""
    running: list[tuple[uvicorn.Server, threading.Thread]] = []

    async def healthy() -> None:
        pass

    def serve(token: str | None = None, wrap: Callable = lambda app: app) -> str:
        app = wrap(create_app(Routes(crop_loop, ServeConfig(), Gate(Keyring(token)), healthy)))
        server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        while not server.started:
            assert thread.is_alive(), "the server has not started"
            time.sleep(0.01)
        running.append((server, thread))
        return f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"

    yield serve
    for server, thread in running:
        server.should_exit = True
        thread.join(10)


@pytest.fixture
def tab(browser) -> Iterator[Callable]:
    """Yield a function that opens an address in a new tab.

    The test fails if a script raises an error. Without `errors=True`, the test also fails if the
    console shows an error.
    """
    contexts, said = [], []

    def visit(url: str, width: int = 1200, scheme: str = "light", errors: bool = False):
        context = browser.new_context(
            viewport={"width": width, "height": 800}, color_scheme=scheme, reduced_motion="reduce"
        )
        contexts.append(context)
        shown = context.new_page()
        shown.set_default_timeout(WAIT_MS)
        if not errors:
            shown.on("console", lambda one: one.type == "error" and said.append(one.text))
        shown.on("pageerror", lambda error: said.append(str(error)))
        shown.goto(url)
        shown.wait_for_selector("#model:not(:empty), #key-form:not([hidden])")
        return shown

    yield visit
    for context in contexts:
        context.close()
    assert said == []


@pytest.fixture
def scene(tmp_path: Path, png: bytes) -> Path:
    path = tmp_path / "scene.png"
    path.write_bytes(png)
    return path


def ask(shown, scene: Path, question: str = "Which digit?") -> None:
    shown.set_input_files("#file", scene)
    shown.wait_for_selector("#preview:not([hidden])")
    shown.fill("#question", question)
    shown.click("#ask")


def finished(shown) -> None:
    shown.wait_for_selector("#result[aria-busy=false]")


def text(shown, selector: str) -> str:
    return shown.locator(selector).inner_text()


def test_crops_appear_before_the_answer_and_full_resolution_beside_it(
    address, tab, engine, scene, monkeypatch
):
    engine.script = [REQUEST, "42", "43"]
    answer, original = threading.Event(), type(engine).__call__

    async def gated(self, request):
        while len(self.requests) == 1 and not answer.is_set():
            await asyncio.sleep(0.01)
        return await original(self, request)

    monkeypatch.setattr(type(engine), "__call__", gated)
    shown = tab(address())
    ask(shown, scene)
    shown.wait_for_selector("#auto .crop >> nth=1")
    assert text(shown, "#auto .answer") == "Looking closer: top left, right"
    assert "closer look: top left, right" in shown.locator("#status").text_content()
    assert shown.locator("#auto .stage > img").evaluate("it => it.naturalWidth") == 56
    stage = shown.locator("#auto .stage").bounding_box()
    right = shown.locator("#auto .crop >> nth=1").bounding_box()
    assert abs(right["width"] / stage["width"] - 0.5) < 0.01
    assert abs((right["x"] - stage["x"]) / stage["width"] - 0.5) < 0.01

    answer.set()
    finished(shown)
    assert text(shown, "#auto .answer") == "42"
    assert text(shown, "#auto .tokens") == "16 visual tokens 100 % of 16"
    assert text(shown, "#full .answer") == "43"
    assert shown.locator("#full .stage > img").evaluate("it => it.naturalWidth") == 112
    assert text(shown, "#verdict") == "Another answer at 100 % of the visual tokens."


def test_an_example_is_asked_by_one_click_and_the_history_brings_it_back(
    address, tab, engine, scene
):
    engine.script = ["red", "red", "7"]
    shown = tab(address())
    shown.click("#example-list li:nth-child(4) button")
    finished(shown)
    assert "color" in text(shown, "#asked")
    assert text(shown, "#verdict").startswith("The same answer at ")
    assert not shown.locator("#history").is_visible()
    shown.uncheck("#compare")
    ask(shown, scene, "Which digit?")
    shown.wait_for_selector("#auto .answer:text-is('7')")
    finished(shown)
    assert not shown.locator("#full").is_visible()
    rows = shown.locator("#history-list button")
    assert rows.count() == 2
    rows.nth(1).click()
    assert text(shown, "#auto .answer") == "red" and text(shown, "#full .answer") == "red"
    assert rows.nth(1).get_attribute("aria-current") == "true"


def test_the_keyboard_suffices(address, tab, engine, scene):
    engine.script = ["7", "7"]
    shown = tab(address())
    shown.wait_for_selector("#example-list li:nth-child(6)")
    order = []
    for _ in range(5):
        shown.keyboard.press("Tab")
        order.append(shown.evaluate("document.activeElement.id"))
    assert order == ["file", "question", "ask", "compare", ""]
    shown.keyboard.press("Enter")
    finished(shown)
    assert text(shown, "#auto .answer") == "7"


def test_enter_asks_and_shift_enter_does_not(address, tab, engine, scene):
    engine.script = ["7", "7"]
    shown = tab(address())
    shown.set_input_files("#file", scene)
    shown.wait_for_selector("#preview:not([hidden])")
    shown.type("#question", "two")
    shown.keyboard.press("Shift+Enter")
    shown.keyboard.type("lines")
    shown.keyboard.press("Enter")
    finished(shown)
    assert text(shown, "#asked") == "two\nlines"


@pytest.mark.parametrize("name", ["pasted.png", "dropped.png"])
def test_an_image_is_pasted_or_dropped(address, tab, name):
    shown = tab(address())
    shown.evaluate(PASTE, name)
    shown.wait_for_selector("#preview:not([hidden])")
    assert text(shown, "#drop-title") == name


def test_a_screen_reader_finds_names_and_roles(address, tab, engine, scene):
    engine.script = [REQUEST, "7", "7"]
    shown = tab(address())
    ask(shown, scene)
    finished(shown)
    tree = shown.locator("body").aria_snapshot()
    for line in (
        '- heading "Ask about an image" [level=1]',
        '- textbox "Question"',
        '- button "Ask"',
        '- checkbox "Compare with full resolution" [checked]',
        '- region "Which digit?"',
        '- article "With crops"',
        '- img "The small view of the image, with the crops top left, right"',
        '- img "The image at full resolution"',
        '- status: "Full resolution: 7. 16 visual tokens of 16."',
    ):
        assert line in tree, tree


def test_texts_never_become_elements(address, tab, engine, scene):
    hostile = "<img src=x onerror=alert(1)><b>7</b>"
    engine.script = [hostile, hostile]
    shown = tab(address())
    ask(shown, scene, hostile)
    finished(shown)
    for selector in ("#asked", "#auto .answer", "#full .answer"):
        assert text(shown, selector) == hostile
        assert shown.locator(f"{selector} *").count() == 0


def test_a_key_is_asked_for_and_stays_out_of_every_address(address, tab, engine, scene):
    engine.script = ["7", "7"]
    shown = tab(address(token="se cret"), errors=True)
    asked: list[str] = []
    shown.on("request", lambda request: asked.append(request.url))
    assert shown.locator("#key").evaluate("it => it === document.activeElement")
    shown.fill("#key", "wrong")
    shown.keyboard.press("Enter")
    shown.wait_for_selector("#key-note:text('refuses this key')")
    shown.fill("#key", "se cret")
    shown.keyboard.press("Enter")
    shown.wait_for_selector("#key-form", state="hidden")
    ask(shown, scene)
    finished(shown)
    assert text(shown, "#auto .answer") == "7"
    assert shown.locator("#auto .stage > img").evaluate("it => it.naturalWidth") == 56
    assert not any("cret" in url for url in (*asked, shown.url))


def test_the_page_waits_for_a_busy_endpoint(address, tab):
    busy = {"/v1/models": 2, "/examples": 2, "/examples/3.png": 1}
    open_requests, most = 0, 0

    def wrap(app):
        async def limited(scope, receive, send):
            nonlocal open_requests, most
            if scope["type"] == "http" and busy.get(scope["path"]):
                busy[scope["path"]] -= 1
                reply = PlainTextResponse("busy", 503, {"retry-after": "0.1"})
                return await reply(scope, receive, send)
            pictures = scope.get("path", "").startswith("/examples/")
            open_requests += pictures
            most = max(most, open_requests)
            await app(scope, receive, send)
            open_requests -= pictures

        return limited

    shown = tab(address(wrap=wrap), errors=True)
    shown.wait_for_selector("#example-list li:nth-child(6)")
    assert text(shown, "#model") == "model awares"
    assert not shown.locator("#problem").is_visible() and most == 1


def test_an_error_is_said_and_the_next_question_works(address, tab, engine, scene):
    engine.script = [RuntimeError("dead"), "7", "7"]
    shown = tab(address())
    shown.click("#ask")
    assert text(shown, "#problem") == "Choose an image first."
    shown.uncheck("#compare")
    ask(shown, scene)
    finished(shown)
    assert "could not finish this answer" in text(shown, "#auto .answer")
    shown.click("#ask")
    shown.wait_for_selector("#auto .answer:text-is('7')")
    assert not shown.locator("#problem").is_visible()


def test_stop_ends_a_question_in_progress(address, tab, engine, scene, monkeypatch):
    cancelled = threading.Event()

    async def slow(self, request):
        try:
            await asyncio.sleep(60)
        finally:
            cancelled.set()

    shown = tab(address())
    with monkeypatch.context() as patched:
        patched.setattr(type(engine), "__call__", slow)
        ask(shown, scene)
        shown.wait_for_selector("#auto .answer:text-is('Looking at the small view')")
        shown.click("#stop")
        finished(shown)
        assert text(shown, "#auto .answer") == "Stopped"
        assert cancelled.wait(10), "the endpoint goes on although the client has left"
    engine.script = ["7", "7"]
    shown.click("#ask")
    finished(shown)
    assert text(shown, "#full .answer") == "7"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_one_column_in_both_schemes(address, tab, engine, scene, scheme):
    engine.script = [REQUEST, "7", "7"]
    shown = tab(address(), width=320, scheme=scheme)
    ask(shown, scene, "a" * 200)
    finished(shown)
    assert shown.evaluate("document.documentElement.scrollWidth") == 320
    first, second = (shown.locator(it).bounding_box() for it in ("#auto", "#full"))
    assert first["x"] == second["x"] and second["y"] > first["y"] + first["height"]
    ground = shown.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(20, 22, 26)") is (scheme == "dark")
