"""A headless Chromium for the tests of pages, or a reason to skip them."""

import contextlib
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """Yields a browser of Playwright; skips the test without Playwright or without a Chromium on PATH."""
    sync_api = pytest.importorskip("playwright.sync_api")
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("there is no Chromium on PATH")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(ARGUMENTS))
        try:
            yield browser
        finally:
            browser.close()


def opened(browser: Any, file: Path, **options: Any) -> tuple[Any, list[str], float]:
    """Returns (the page of a file, what its console, dialogs and requests say, seconds to load it)."""
    context = browser.new_context(**options)
    page = context.new_page()
    heard: list[str] = []
    page.on("console", lambda message: heard.append(message.text))
    page.on("pageerror", lambda error: heard.append(str(error)))
    page.on(
        "request", lambda request: heard.extend([] if request.url.startswith(("file:", "data:")) else [request.url])
    )
    page.on("dialog", lambda dialog: heard.append(dialog.message))
    seconds: list[float] = []
    while len(seconds) < 3 and (not seconds or min(seconds) > 2):  # the machine may be busy with something else
        began = time.monotonic()
        page.goto(file.as_uri())
        page.wait_for_function("document.readyState === 'complete'")
        seconds.append(time.monotonic() - began)
    return page, heard, min(seconds)
