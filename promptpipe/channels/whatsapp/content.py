"""What messages say, in the shape of the Cloud API and within its limits.

The limits are those of Meta's reference: a text of 4,096 characters, an interactive body of 1,024; three buttons with
titles of 20; a list of ten rows with titles of 24.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from promptpipe.model.messages import Choices, Text

if TYPE_CHECKING:
    from promptpipe.model.messages import Choice, Content

MAX_BODY = 1024
MAX_BUTTONS = 3
MAX_BUTTON_TITLE = 20
MAX_ROWS = 10
MAX_ROW_TITLE = 24
OPEN_LIST = "Choose"


def content(message: Content) -> dict[str, object]:
    """Return the part of a request that says *message*: choices as buttons or a list if they fit, else numbered."""
    match message:
        case Text(body=body):
            return _text(body)
        case Choices(body=body, choices=choices):
            action = _action(choices) if len(body) <= MAX_BODY else None
            if action is None:
                return _text(message.numbered)
            kind = "button" if "buttons" in action else "list"
            return {"type": "interactive", "interactive": {"type": kind, "body": {"text": body}, "action": action}}


def _text(body: str) -> dict[str, object]:
    return {"type": "text", "text": {"body": body}}


def _action(choices: tuple[Choice, ...]) -> dict[str, object] | None:
    """Return what can be tapped; None when the choices do not fit."""
    longest = max(len(choice.label) for choice in choices)
    if len({choice.label for choice in choices}) < len(choices):
        return None  # buttons' titles must differ, and so should rows'
    if len(choices) <= MAX_BUTTONS and longest <= MAX_BUTTON_TITLE:
        replies = [{"type": "reply", "reply": {"id": choice.id, "title": choice.label}} for choice in choices]
        return {"buttons": replies}
    if len(choices) <= MAX_ROWS and longest <= MAX_ROW_TITLE:
        rows = [{"id": choice.id, "title": choice.label} for choice in choices]
        return {"button": OPEN_LIST, "sections": [{"rows": rows}]}
    return None
