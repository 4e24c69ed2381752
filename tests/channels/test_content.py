"""What messages look like to the Cloud API, within its limits."""

from __future__ import annotations

import pytest

from promptpipe.channels.whatsapp.content import content
from promptpipe.model.messages import Choice, Choices, Text
from promptpipe.simulator.interactive import INTERACTIVE


def choices(*labels: str, body: str = "?") -> Choices:
    return Choices(body, tuple(Choice(f"id{n}", label) for n, label in enumerate(labels, 1)))


def test_text() -> None:
    """It is a text."""
    assert content(Text("hello")) == {"type": "text", "text": {"body": "hello"}}


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        (choices("Yes", "No"), "button"),
        (choices("a" * 20, "b", "c"), "button"),
        (choices("a" * 21, "b", "c"), "list"),
        (choices("a", "b", "c", "d"), "list"),
        (choices(*(f"{n}{'x' * 22}" for n in range(10))), "list"),
        (choices("Yes", body="x" * 1024), "button"),
    ],
)
def test_choices_that_fit_can_be_tapped(message: Choices, kind: str) -> None:
    """Up to three short ones are buttons, up to ten a list; the simulator takes them, with Meta's rules."""
    request = content(message)
    assert request["type"] == "interactive"
    interactive = request["interactive"]
    assert isinstance(interactive, dict)
    assert interactive["type"] == kind
    assert INTERACTIVE.validate_python(interactive).body.text == message.body
    tapped = str(interactive)
    assert all(choice.id in tapped and choice.label in tapped for choice in message.choices)


@pytest.mark.parametrize(
    "message",
    [
        choices("a" * 25, "b"),
        choices(*(f"{n}." for n in range(11))),
        choices("a", "a"),
        choices("a", "b", body="x" * 1025),
    ],
)
def test_others_are_numbered(message: Choices) -> None:
    """In a text, which a number answers."""
    assert content(message) == {"type": "text", "text": {"body": message.numbered}}
    assert message.numbered.startswith(f"{message.body}\n1. ")
    assert message.chosen(None, "2") == message.choices[1]
