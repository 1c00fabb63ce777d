"""Asks an example question on an endpoint's web page, in headless Chromium."""

import shutil

import pytest

ANSWER_MS = 60_000


def ask_example(url: str, key: str) -> dict[str, tuple[str, str]]:
    """Ask the page's first example question with the API key `key`.

    Return two texts for each of the columns "auto" and "full": the answer, and the tokens used.
    """
    driver = pytest.importorskip("playwright.sync_api", reason="no playwright: `make` installs it")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium on the PATH: install it, such as by `apt install chromium`")
    with driver.sync_playwright() as playwright:
        options = ["--no-sandbox", "--no-proxy-server"]
        browser = playwright.chromium.launch(executable_path=chromium, args=options)
        page = browser.new_page()
        page.goto(url)
        page.fill("#key", key)
        page.keyboard.press("Enter")
        page.wait_for_selector("#key-form", state="hidden")
        page.click("#example-list li:first-child button")
        page.wait_for_selector("#result[aria-busy=false]", timeout=ANSWER_MS)
        texts = {
            column: (
                page.inner_text(f"#{column} .answer"),
                page.inner_text(f"#{column} .tokens"),
            )
            for column in ("auto", "full")
        }
        browser.close()
    return texts
