"""A readable text for every type of message."""

from __future__ import annotations

from typing import TYPE_CHECKING

from promptpipe.model.text import as_text

if TYPE_CHECKING:
    from collections.abc import Mapping

NOT_CONVERSATIONAL = frozenset({"reaction", "edit", "revoke", "system", "unsupported"})
"""Types that ask for no answer and enroll nobody."""


def readable(type_: str, message: Mapping[str, object]) -> str:
    """Return what a person would read of a message; never empty but for an empty text message."""
    content = _part(message, type_)
    match type_:
        case "text":
            text = as_text(content, "body") or ""
        case "button":
            text = as_text(content, "text") or as_text(content, "payload") or "[button]"
        case "interactive":
            text = _chosen(content)
        case _:
            text = _labelled(type_, *_parts(type_, content, message))
    return text


def _parts(type_: str, content: Mapping[str, object], message: Mapping[str, object]) -> list[str | None]:
    """Return what there is to read in a message that is no text."""
    match type_:
        case "contacts":
            return _contact_names(message.get("contacts"))
        case "location":
            return [as_text(content, "name"), as_text(content, "address"), _coordinates(content)]
        case "reaction":
            return [as_text(content, "emoji") or "removed"]
    return [as_text(content, key) for key in ("caption", "filename", "text", "body")]


def choice_id(message: Mapping[str, object]) -> str | None:
    """Return the id of the button or list row that was chosen; a template's button has its payload."""
    interactive = _part(message, "interactive")
    for kind in ("button_reply", "list_reply"):
        if kind in interactive:
            return as_text(_part(interactive, kind), "id")
    return as_text(_part(message, "button"), "payload")


def _chosen(interactive: Mapping[str, object]) -> str:
    for kind in ("button_reply", "list_reply"):
        title = as_text(_part(interactive, kind), "title")
        if title:
            return title
    form = _part(interactive, "nfm_reply")
    return as_text(form, "body") or _labelled(as_text(interactive, "type") or "interactive")


def _labelled(label: str, *parts: str | None) -> str:
    text = ", ".join(part for part in parts if part)
    return f"[{label}] {text}".rstrip()


def _coordinates(location: Mapping[str, object]) -> str | None:
    latitude, longitude = location.get("latitude"), location.get("longitude")
    return None if latitude is None or longitude is None else f"{latitude}, {longitude}"


def _contact_names(contacts: object) -> list[str | None]:
    people = contacts if isinstance(contacts, list) else []
    return [as_text(_part(person, "name"), "formatted_name") for person in people if isinstance(person, dict)]


def _part(data: Mapping[str, object], key: str) -> Mapping[str, object]:
    value = data.get(key)
    return value if isinstance(value, dict) else {}
