"""A browser, the product, and the page between them."""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING

import httpx2
import pytest
from playwright.sync_api import ConsoleMessage, Error, expect, sync_playwright

from tests.browser.product import Product, Simulator
from tests.support.service import Home, Service, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Page

QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
EXPECTED = re.compile(r"net::ERR_|status of 400")
"""Complaints of the browser's that are not about the page."""

expect.set_options(timeout=20_000)


@pytest.fixture
def product(tmp_path: Path) -> Iterator[Product]:
    """Give the product with its simulator running; the service is a process, and the test's to start."""
    service = Service(Home.on_sqlite(tmp_path), free_port())
    simulator = Simulator(service.simulator_port, f"{service.url}/webhooks/whatsapp")
    simulator.start()
    with httpx2.Client(base_url=f"http://127.0.0.1:{simulator.port}") as client:
        yield Product(service, simulator, client)
    service.clean_up()
    simulator.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Give a browser."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.fail("These tests need Chromium (Debian: apt install chromium).")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=QUIET)
        yield launched
        launched.close()


@pytest.fixture
def page(browser: Browser, product: Product) -> Iterator[Page]:
    """Give a page that is not opened yet; the test fails when a script does, or when the browser has complaints."""
    complaints: list[str] = []

    def note(message: ConsoleMessage | Error) -> None:
        # That the simulator is gone, or refuses something, which tests bring about, is for the page to show.
        expected = EXPECTED.search(str(message))
        if (isinstance(message, Error) or message.type in {"error", "warning"}) and not expected:
            complaints.append(str(message))

    with browser.new_context(base_url=str(product.client.base_url)) as context:
        made = context.new_page()
        made.on("console", note)
        made.on("pageerror", note)
        yield made
    assert complaints == []
