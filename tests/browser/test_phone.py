"""The simulator's page: a newcomer's first minute, and what may happen in it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from tests.browser.product import ADA
from tests.browser.screen import GRACE, TIMES, YES_NO, bubbles, composer, opened, say
from tests.support.script import INTAKE, OPENING

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from playwright.sync_api import Page

    from tests.browser.product import Product

pytestmark = pytest.mark.slow

GREETING = OPENING[1][1]
QUESTIONS = [text for who, text in INTAKE if who == "service"]


def turned(page: Page) -> AbstractContextManager[object]:
    """Wait, when left, until a knob that was turned inside is in force, or refused."""
    return page.expect_response(lambda answer: answer.request.method == "PUT")


# ---------------------------------------------------------------- conversations


def test_newcomers_first_minute(page: Page, product: Product) -> None:
    """Open it, type, press Enter: the coach answers, and the ticks turn to read."""
    product.service.start()
    opened(page)
    expect(page).to_have_title("PromptPipe simulator")
    expect(page.get_by_text("Say hi.")).to_be_visible()
    expect(page.get_by_role("heading", name="Ada’s phone")).to_be_visible()
    say(page, "hi")
    expect(bubbles(page)).to_have_count(3)
    expect(bubbles(page).nth(0)).to_have_class(re.compile("mine"))
    expect(bubbles(page).nth(0)).to_contain_text("You: hi")
    expect(bubbles(page).nth(1)).to_contain_text(f"Service: {GREETING}")
    expect(page.get_by_text("Say hi.")).to_be_hidden()
    for nth in (1, 2):
        expect(bubbles(page).nth(nth).get_by_title("read")).to_have_text("read")
    expect(bubbles(page).nth(0).locator(".tick")).to_have_count(0)
    say(page, "stretch")
    expect(bubbles(page).last).to_contain_text(QUESTIONS[1])


def test_service_is_killed_while_one_goes_on_typing(page: Page, product: Product) -> None:
    """What was typed meanwhile is answered, in order, once the service is there again."""
    product.service.start()
    opened(page)
    say(page, "hi")
    expect(bubbles(page)).to_have_count(3)
    product.service.clean_up()  # kill -9
    for text in ("stretch", "my back"):
        say(page, text)
    expect(bubbles(page)).to_have_count(5)
    product.service.start()
    expect(bubbles(page)).to_have_count(7)
    assert [bubble["text"] for bubble in product.on_phone()][-2:] == QUESTIONS[1:3]


def test_statuses_show_as_ticks(page: Page, product: Product) -> None:
    """Each by its sign, its colour and its word; a tick changes in place."""
    opened(page)
    looks = {}
    for statuses in ([], ["delivered"], ["read"], ["failed"]):
        product.turn(statuses=statuses, status_delay=0)
        product.send_text("hello")
        status = statuses[0] if statuses else "sent"
        tick = bubbles(page).last.get_by_title(status)
        expect(tick).to_have_text(status)
        looks[status] = tick.evaluate(
            "tick => [tick.querySelector('use').getAttribute('href'), getComputedStyle(tick).color]"
        )
    signs = {status: sign for status, (sign, _) in looks.items()}
    assert signs == {"sent": "#one-tick", "delivered": "#two-ticks", "read": "#two-ticks", "failed": "#mark"}
    assert looks["sent"][1] == looks["delivered"][1] != looks["read"][1]

    product.turn(statuses=["delivered", "read"], status_delay=0.5)
    product.send_text("slowly")
    slow = bubbles(page).filter(has_text="slowly")
    slow.evaluate("bubble => { bubble.dataset.same = 'yes'; }")
    expect(slow.get_by_title("read")).to_be_visible()
    expect(slow).to_have_attribute("data-same", "yes")


def test_text_is_never_markup(page: Page, product: Product) -> None:
    """Whoever wrote it. Lines are kept, and *bold* and _italic_ are what they are on WhatsApp."""
    opened(page)
    markup = "<b>x</b><img src=x onerror=alert(1)>"
    product.send_text(f"{markup}\nsecond line\n2*3*4 *bold* snake_case_name _it's italic_ 👋")
    said = bubbles(page).last.locator(".text")
    expect(said).to_have_text(re.compile(re.escape(markup)))
    assert said.inner_text().split("\n")[1:] == ["second line", "2*3*4 bold snake_case_name it's italic 👋"]
    assert said.evaluate("said => [...said.children].map(child => child.outerHTML)") == [
        "<strong>bold</strong>",
        "<em>it's italic</em>",
    ]
    page.keyboard.type(markup)
    page.keyboard.press("Shift+Enter")
    say(page, "and more")
    expect(bubbles(page).last.locator(".text")).to_have_text(f"{markup}\nand more")
    assert product.on_phone()[-1]["text"] == f"{markup}\nand more"


def test_text_that_is_refused_is_kept(page: Page, product: Product) -> None:
    """With the simulator's reason; shortened, it is sent, and the reason goes."""
    opened(page)
    composer(page).fill("x" * 4097)
    page.keyboard.press("Enter")
    refusal = page.get_by_role("alert").filter(has_text="Not sent. text: String should have at most 4096 characters")
    expect(refusal).to_be_visible()
    expect(composer(page)).to_have_value("x" * 4097)
    page.keyboard.press("Backspace")
    page.keyboard.press("Enter")
    expect(bubbles(page)).to_have_count(1)
    expect(refusal).to_have_count(0)
    assert product.on_phone()[0]["text"] == "x" * 4096


# ---------------------------------------------------------------- choices


def test_button_answers_the_message_that_it_belongs_to(page: Page, product: Product) -> None:
    """Pressed, it is said, with a quotation."""
    opened(page)
    asked = product.send(type="interactive", interactive=YES_NO)
    for text in ("Evening", "Did you stretch?", "One tap is enough"):
        expect(bubbles(page).last.get_by_text(text, exact=True)).to_be_visible()
    page.get_by_role("button", name="Not yet").click()
    expect(bubbles(page)).to_have_count(2)
    expect(bubbles(page).last.get_by_role("blockquote")).to_have_text("Did you stretch?")
    expect(bubbles(page).last).to_contain_text("Not yet")
    said = product.on_phone()[-1]
    assert (said["mine"], said["text"], said["reply_to"]) == (True, "Not yet", asked)


def test_list_is_opened_and_chosen_from_by_keyboard(page: Page, product: Product) -> None:
    """Escape closes it; choosing closes it too, and is said."""
    opened(page)
    asked = product.send(type="interactive", interactive=TIMES)
    opener, row = page.get_by_text("Pick a time"), page.get_by_role("button", name="At seven Before the day begins")
    expect(opener).to_be_visible()
    expect(row).to_be_hidden()
    page.keyboard.press("Shift+Tab")
    expect(opener).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(row).to_be_focused()
    page.keyboard.press("Escape")
    expect(row).to_be_hidden()
    expect(opener).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(row).to_be_hidden()
    expect(bubbles(page)).to_have_count(2)
    expect(bubbles(page).last.locator(".text")).to_have_text("At seven")
    assert (product.on_phone()[-1]["text"], product.on_phone()[-1]["reply_to"]) == ("At seven", asked)


# ---------------------------------------------------------------- people


def test_each_person_has_a_phone_of_their_own(page: Page, product: Product) -> None:
    """With their messages, their draft, and a count of what they have not read."""
    opened(page)
    say(page, "I am Ada")
    expect(bubbles(page)).to_have_count(1)
    page.keyboard.type("an unfinished")
    product.client.post("/api/people", json={"number": GRACE, "name": "Grace"})
    page.get_by_role("button", name="Grace").click()
    expect(page.get_by_role("heading", name="Grace’s phone")).to_be_visible()
    expect(page.get_by_text("Say hi.")).to_be_visible()
    expect(composer(page)).to_have_value("")

    product.send_text("for Ada alone")
    product.send_text("for Grace", to=GRACE)
    expect(bubbles(page).last).to_contain_text("for Grace")
    expect(bubbles(page)).to_have_count(1)
    ada = page.get_by_role("button", name="Ada")
    expect(ada).to_contain_text("1 new")
    ada.click()
    expect(bubbles(page)).to_have_count(2)
    expect(ada).to_have_attribute("aria-current", "true")
    expect(ada).not_to_contain_text("new")
    expect(composer(page)).to_have_value("an unfinished")
    page.reload()
    expect(page.get_by_role("heading", name="Ada’s phone")).to_be_visible()


def test_person_is_added_on_the_page(page: Page, product: Product) -> None:
    """However the number is written; what is none is refused with a reason."""
    opened(page)
    number, add = page.get_by_label("Number"), page.get_by_role("button", name="Add")
    number.fill("12")
    add.click()
    expect(page.get_by_role("alert").filter(has_text="'12' is not a phone number")).to_be_visible()
    number.fill("+44 7911 123456")
    page.get_by_label("Name").fill("Grace")
    add.click()
    expect(page.get_by_role("heading", name="Grace’s phone")).to_be_visible()
    expect(page.get_by_role("alert").filter(has_text="not a phone number")).to_have_count(0)
    say(page, "hello")
    expect(bubbles(page)).to_have_count(1)
    assert [bubble["text"] for bubble in product.on_phone(GRACE)] == ["hello"]


# ---------------------------------------------------------------- weather


def test_knobs_turn_the_weather_and_show_it(page: Page, product: Product) -> None:
    """Set here, in force there; set elsewhere, shown here; calm turns everything back."""
    calm = product.faults()
    opened(page)
    with turned(page):
        page.get_by_label("Never told, percent").fill("12.5")
        page.keyboard.press("Enter")
    with turned(page):
        page.get_by_label("Refused", exact=True).press("End")
    expect(page.get_by_label("Refused, percent")).to_have_value("100")
    with turned(page):
        page.get_by_label("Answers take").fill("0.25")
        page.keyboard.press("Tab")
    with turned(page):
        page.get_by_label("read").uncheck()
    assert product.faults() == calm | {
        "lost_statuses": {"share": 0.125, "times": None},
        "errors": {"share": 1.0, "times": None},
        "latency": 0.25,
        "statuses": ["sent", "delivered"],
    }

    composer(page).focus()
    product.turn(duplicates={"share": 0.4}, disorder={"share": 1, "times": 0})
    expect(page.get_by_label("Come twice", exact=True)).to_have_value("40")
    expect(page.get_by_label("Come out of order, percent")).to_have_value("0")
    expect(page.get_by_label("read")).to_be_checked()

    page.get_by_label("Come twice, percent").fill("140")
    page.get_by_label("Come twice, percent").press("Enter")
    refusal = page.get_by_role("alert").filter(has_text="duplicates.share: Input should be less than or equal to 1")
    expect(refusal).to_be_visible()
    assert product.faults()["duplicates"]["share"] == 0.4

    page.get_by_role("button", name="Calm weather").click()
    expect(page.get_by_label("Come twice, percent")).to_have_value("0")
    expect(refusal).to_have_count(0)
    assert product.faults() == calm


def test_lost_statuses_are_seen_on_the_phone_and_not_by_the_service(page: Page, product: Product) -> None:
    """The knob does what it says."""
    product.service.start()
    opened(page)
    with turned(page):
        page.get_by_label("Never told", exact=True).press("End")
    composer(page).focus()
    say(page, "hi")
    expect(bubbles(page).nth(2).get_by_title("read")).to_be_visible()
    # That the first was sent is recorded before the second leaves.
    [(status,)] = product.service.rows("SELECT status FROM outbox_messages ORDER BY id LIMIT 1")
    assert status == "sent"


# ---------------------------------------------------------------- losing the simulator


def test_simulator_is_started_again(page: Page, product: Product) -> None:
    """The page says that it is gone, keeps what could not be sent, comes back by itself, and shows what is true now."""
    opened(page)
    say(page, "before")
    expect(bubbles(page)).to_have_count(1)
    product.simulator.stop()
    expect(page.get_by_role("status")).to_have_text("Not connected, trying again …")
    say(page, "one")
    expect(page.get_by_role("alert").filter(has_text="Not sent. The simulator does not answer.")).to_be_visible()
    expect(composer(page)).to_have_value("one")

    product.simulator.start()
    expect(page.get_by_role("status")).to_have_text("Connected")
    expect(page.get_by_text("Say hi.")).to_be_visible()
    expect(bubbles(page)).to_have_count(0)
    say(page, " two")
    expect(bubbles(page)).to_have_count(1)
    expect(bubbles(page).last).to_contain_text("one two")
    expect(page.get_by_role("alert").filter(has_text="Not sent")).to_have_count(0)
    [ada] = product.client.get("/api/people").json()
    assert (ada["number"], ada["name"]) == (ADA, "Ada")
