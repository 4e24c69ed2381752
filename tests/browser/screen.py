"""The page as a person uses it, and what a service may put on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from playwright.sync_api import expect

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

GRACE = "+447911123456"
YES_NO = {
    "type": "button",
    "header": {"type": "text", "text": "Evening"},
    "body": {"text": "Did you stretch?"},
    "footer": {"text": "One tap is enough"},
    "action": {"buttons": [{"type": "reply", "reply": {"id": title, "title": title}} for title in ("Yes", "Not yet")]},
}
TIMES = {
    "type": "list",
    "body": {"text": "When tomorrow?"},
    "action": {
        "button": "Pick a time",
        "sections": [
            {"title": "Early", "rows": [{"id": "7", "title": "At seven", "description": "Before the day begins"}]},
            {"title": "Late", "rows": [{"id": "20", "title": "At eight"}]},
        ],
    },
}


def bubbles(page: Page) -> Locator:
    return page.get_by_role("log").get_by_role("listitem")


def composer(page: Page) -> Locator:
    return page.get_by_role("textbox", name="Message", exact=True)


def say(page: Page, text: str) -> None:
    """Write into whatever has the focus, which is to be the composer, and send it."""
    expect(composer(page)).to_be_focused()
    page.keyboard.type(text)
    page.keyboard.press("Enter")


def opened(page: Page, **size: int) -> Page:
    """Open the page and wait until it is connected."""
    if size:
        page.set_viewport_size({"width": size["width"], "height": size["height"]})
    page.goto("/")
    expect(page.get_by_role("status")).to_have_text("Connected")
    return page
