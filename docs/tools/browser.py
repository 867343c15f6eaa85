"""Opens a page of this project in a headless browser, for tests, pictures and measurements."""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def find_missing() -> str:
    """Return what is missing to open a page, with advice, or an empty string."""
    try:
        import playwright  # noqa: F401
    except ImportError:
        return "Playwright is missing: pip install -e '.[dev]'"
    if not _chromium():
        return (
            f"no Chromium on the PATH ({', '.join(NAMES)}), nor named by CHROMIUM: install it, e.g. Debian's chromium"
        )
    return ""


def _chromium() -> str | None:
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


@contextmanager
def browser() -> Iterator[Any]:
    """Yield a Playwright browser, headless Chromium."""
    from playwright.sync_api import sync_playwright

    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=_chromium(), args=arguments)
        try:
            yield chromium
        finally:
            chromium.close()


def open_page(chromium: Any, file: Path, width: int = 1280, height: int = 800) -> tuple[Any, list[str]]:
    """Open a file in a new window.

    Args:
        chromium: The browser from `browser`.
        file: The page.
        width: Width of the window in pixels.
        height: Height of the window in pixels.

    Returns:
        The Playwright page, and a list to which each error and warning of its console is added.
    """
    page = chromium.new_page(viewport={"width": width, "height": height})
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text) if message.type in {"error", "warning"} else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(file.absolute().as_uri())
    return page, said


def wait_until(page: Any, expression: str, seconds: float = 20) -> None:
    """Wait until a JavaScript expression holds on a page.

    Playwright's own wait evaluates text on the page, which the page's policy forbids.

    Args:
        page: Playwright page.
        expression: The expression.
        seconds: Maximum seconds to wait.

    Raises:
        TimeoutError: If it does not hold by then.
    """
    end = time.monotonic() + seconds
    while not page.evaluate(expression):
        if time.monotonic() > end:
            raise TimeoutError(f"{page.url}: not within {seconds} s: {expression}")
        page.wait_for_timeout(10)


SHOWN = "document.body.dataset.shown === location.hash.slice(1)"
"""Holds if the page of the predict scripts has drawn the requested image."""
