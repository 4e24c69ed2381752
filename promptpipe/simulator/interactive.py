"""Messages with choices: reply buttons and lists, in Meta's shape and within Meta's limits.

The limits are those of the Cloud API's reference. Fields that are not named here are let through unread.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator

MAX_ROWS = 10
"""Of a whole list, over all its sections."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True)


class Header(_Part):
    """A header; of Meta's kinds, text alone."""

    type: Literal["text"]
    text: Annotated[str, Field(min_length=1, max_length=60)]


class Body(_Part):
    """What the message says."""

    text: Annotated[str, Field(min_length=1, max_length=1024)]


class Footer(_Part):
    """Small print."""

    text: Annotated[str, Field(min_length=1, max_length=60)]


class Reply(_Part):
    """What pressing a button answers."""

    id: Annotated[str, Field(min_length=1, max_length=256)]
    title: Annotated[str, Field(min_length=1, max_length=20)]


class Button(_Part):
    """A button."""

    type: Literal["reply"]
    reply: Reply


class Row(_Part):
    """A row of a list."""

    id: Annotated[str, Field(min_length=1, max_length=200)]
    title: Annotated[str, Field(min_length=1, max_length=24)]
    description: Annotated[str, Field(max_length=72)] | None = None


class Section(_Part):
    """Rows under a title."""

    title: Annotated[str, Field(max_length=24)] | None = None
    rows: Annotated[list[Row], Field(min_length=1)]


class ButtonAction(_Part):
    """The buttons of a message."""

    buttons: Annotated[list[Button], Field(min_length=1, max_length=3)]

    @model_validator(mode="after")
    def _check(self) -> ButtonAction:
        _check_unique("button ids", [button.reply.id for button in self.buttons])
        _check_unique("button titles", [button.reply.title for button in self.buttons])
        return self


class ListAction(_Part):
    """The list of a message, and the label of the button that opens it."""

    button: Annotated[str, Field(min_length=1, max_length=20)]
    sections: Annotated[list[Section], Field(min_length=1)]

    @model_validator(mode="after")
    def _check(self) -> ListAction:
        ids = [row.id for section in self.sections for row in section.rows]
        _check_unique("row ids", ids)
        if len(ids) > MAX_ROWS:
            raise ValueError(f"at most {MAX_ROWS} rows in all")
        if len(self.sections) > 1 and not all(section.title for section in self.sections):
            raise ValueError("with more than one section, each needs a title")
        return self


class _Message(_Part):
    header: Header | None = None
    body: Body
    footer: Footer | None = None

    def readable(self, choices: list[str]) -> str:
        """Return all there is to read, the choices in brackets."""
        texts = [part.text for part in (self.header, self.body, self.footer) if part is not None]
        return "\n".join([*texts, " ".join(f"[{choice}]" for choice in choices)])


class ButtonMessage(_Message):
    """A message with buttons."""

    type: Literal["button"]
    action: ButtonAction

    def __str__(self) -> str:
        return self.readable([button.reply.title for button in self.action.buttons])


class ListMessage(_Message):
    """A message with a list to choose from."""

    type: Literal["list"]
    action: ListAction

    def __str__(self) -> str:
        return self.readable([row.title for section in self.action.sections for row in section.rows])


Interactive = ButtonMessage | ListMessage
INTERACTIVE: TypeAdapter[Interactive] = TypeAdapter(Annotated[Interactive, Field(discriminator="type")])


def _check_unique(what: str, values: list[str]) -> None:
    if len(set(values)) < len(values):
        raise ValueError(f"{what} must differ from each other")
