"""The simulator's page on every screen: long, narrow, dark, without a mouse, read aloud."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import pytest
from playwright.sync_api import expect

from tests.browser.screen import GRACE, TIMES, YES_NO, bubbles, composer, opened, say

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from tests.browser.product import Product

pytestmark = pytest.mark.slow


def test_long_conversation_stays_where_it_is_read(page: Page, product: Product) -> None:
    """It follows only who is at its end; who reads further up is told that there is more."""
    product.turn(statuses=[])
    for number in range(300):
        product.send_text(f"message {number}")
    opened(page)
    log, jump = page.get_by_role("log"), page.get_by_role("button", name="New messages")
    expect(bubbles(page)).to_have_count(300)
    expect(bubbles(page).last).to_be_in_viewport()
    product.send_text("followed")
    expect(bubbles(page).last).to_be_in_viewport()
    expect(jump).to_be_hidden()

    log.evaluate("log => { log.scrollTop = 500; }")
    product.send_text("waiting below")
    expect(jump).to_be_visible()
    assert log.evaluate("log => log.scrollTop") == 500
    jump.click()
    expect(bubbles(page).last).to_be_in_viewport()
    expect(bubbles(page).last).to_contain_text("waiting below")
    expect(jump).to_be_hidden()


@pytest.mark.parametrize(("width", "height"), [(320, 580), (390, 780), (844, 390), (820, 600), (1280, 720)])
def test_nothing_overflows(page: Page, product: Product, width: int, height: int) -> None:
    """Whatever is said, no page is wider than its screen, and the composer is on it."""
    opened(page, width=width, height=height)
    product.client.post("/api/people", json={"number": GRACE, "name": "Grace " * 30})
    for text in ("x" * 4096, "word " * 800, "\n".join("lines")):
        product.send_text(text)
    product.send(type="interactive", interactive=YES_NO)
    product.send(type="interactive", interactive=TIMES)
    expect(bubbles(page)).to_have_count(5)
    page.get_by_text("Pick a time").click()
    composer(page).fill("a line\n" * 40)
    expect(composer(page)).to_be_in_viewport(ratio=1)
    wider = "[document.documentElement, log, people, weather].filter(e => e.scrollWidth > e.clientWidth).map(e => e.id)"
    assert page.evaluate(wider) == []
    assert page.evaluate("document.documentElement.scrollHeight") == height


def test_narrow_page_is_used_by_keyboard_alone(page: Page, product: Product) -> None:
    """Drawers open, take the focus, close by Escape, and give it back; while one is open, the rest is out of reach."""
    opened(page, width=390, height=780)
    people, weather = (page.get_by_role("button", name=name, exact=True) for name in ("People", "Weather"))
    expect(page.get_by_label("Answers take")).to_be_hidden()
    for _ in range(3):
        page.keyboard.press("Shift+Tab")  # the conversation, the weather, the people
    expect(people).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Close people")).to_be_focused()
    expect(people).to_have_attribute("aria-expanded", "true")
    assert page.get_by_role("main").evaluate("main => main.inert")
    page.keyboard.press("Escape")
    expect(people).to_be_focused()
    expect(people).to_have_attribute("aria-expanded", "false")
    expect(page.get_by_label("Number")).to_be_hidden()

    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Ada")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.type(GRACE)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name=GRACE)).to_be_visible()
    expect(page.get_by_label("Number")).to_be_hidden()
    say(page, "hello from a phone")
    expect(bubbles(page)).to_have_count(1)

    for _ in range(2):
        page.keyboard.press("Shift+Tab")
    expect(weather).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Shift+Tab")
    expect(page.get_by_role("button", name="Calm weather")).to_be_focused()
    page.keyboard.press("Escape")
    expect(weather).to_be_focused()


CONTRASTS = """() => {
  const parts = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = (channel) => (channel <= 0.04045 ? channel / 12.92 : ((channel + 0.055) / 1.055) ** 2.4);
  const luminance = ([r, g, b]) => 0.2126 * light(r / 255) + 0.7152 * light(g / 255) + 0.0722 * light(b / 255);
  const behind = (element) => {
    const color = parts(getComputedStyle(element).backgroundColor);
    return color[3] === 0 ? behind(element.parentElement) : color;
  };
  const found = [];
  for (const element of document.querySelectorAll("body *")) {
    const isText = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if ((isText || element.matches("svg, input")) && element.checkVisibility()) {
      const both = [parts(getComputedStyle(element).color), behind(element)].map(luminance);
      found.push([(Math.max(...both) + 0.05) / (Math.min(...both) + 0.05), element.outerHTML.slice(0, 90)]);
    }
  }
  return found;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everything_can_be_read(page: Page, product: Product, scheme: Literal["light", "dark"]) -> None:
    """Contrast of 4.5 to 1 at least, by day and by night."""
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    opened(page)
    for statuses in (["sent"], ["read"], ["failed"]):
        product.turn(statuses=statuses, status_delay=0)
        product.send(type="interactive", interactive=YES_NO)
        expect(bubbles(page).last.get_by_title(statuses[0])).to_be_visible()
    page.get_by_role("button", name="Not yet").last.click()
    expect(bubbles(page).last.get_by_role("blockquote")).to_be_visible()
    page.get_by_label("Number").fill("12")
    page.get_by_role("button", name="Add").click()
    expect(page.get_by_role("alert").filter(has_text="phone number")).to_be_visible()
    contrasts = page.evaluate(CONTRASTS)
    assert len(contrasts) > 50
    assert [found for found in contrasts if found[0] < 4.5] == []


def test_page_reads_well_aloud(page: Page, product: Product) -> None:
    """Landmarks and controls have names, headings are in order, and a status is not read out again and again."""
    opened(page)
    product.send(type="interactive", interactive=YES_NO)
    expect(bubbles(page)).to_have_count(1)
    for role, name in (("navigation", "People"), ("main", "Ada’s phone"), ("complementary", "Weather")):
        expect(page.get_by_role(role, name=name)).to_be_visible()  # type: ignore[arg-type]
    log = page.get_by_role("log", name="Conversation")
    expect(log).to_have_attribute("aria-live", "polite")
    expect(log).to_have_attribute("aria-relevant", "additions")
    unnamed = "[...document.querySelectorAll('button, input, textarea')].filter(e => !e.ariaLabel && !e.labels.length"
    assert page.evaluate(f"{unnamed} && !e.textContent.trim()).length") == 0
    levels = page.evaluate("[...document.querySelectorAll('h1, h2, h3')].map(h => +h.tagName[1])")
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
