"""The people, their phones, and what was sent to them. No I/O."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from promptpipe.model.messages import MessageStatus
from promptpipe.model.participants import e164

if TYPE_CHECKING:
    from datetime import datetime

    from promptpipe.simulator.interactive import Interactive


@dataclass(frozen=True, slots=True, kw_only=True)
class Bubble:
    """A message on a phone. *mine* is one the person wrote; *change* orders what changed on this phone.

    *interactive* holds the choices that come with *text*; *reply_to* is the id of the bubble that this one answers.
    """

    id: str
    mine: bool
    text: str
    at: datetime
    change: int
    status: MessageStatus | None = None
    interactive: Interactive | None = None
    reply_to: str | None = None

    def as_json(self) -> dict[str, object]:
        """Return it as the API shows it."""
        return {
            "id": self.id,
            "mine": self.mine,
            "text": self.text,
            "at": self.at.isoformat(),
            "status": None if self.status is None else self.status.value,
            "interactive": None if self.interactive is None else self.interactive.model_dump(),
            "reply_to": self.reply_to,
        }


@dataclass(slots=True)
class Phone:
    """One person's phone: their bubbles in order of arrival."""

    number: str
    name: str
    bubbles: dict[str, Bubble] = field(default_factory=dict)
    changes: int = 0

    @property
    def wa_id(self) -> str:
        """The number as WhatsApp writes it."""
        return self.number.removeprefix("+")

    @property
    def received(self) -> int:
        """How many messages have arrived."""
        return sum(not bubble.mine for bubble in self.bubbles.values())

    def bubble(self, id_: str) -> Bubble:
        """Return a bubble; raise `ValueError` when there is none with this id."""
        if id_ not in self.bubbles:
            raise ValueError(f"no message {id_!r} is on this phone")
        return self.bubbles[id_]

    def show(
        self,
        id_: str,
        text: str,
        at: datetime,
        *,
        mine: bool,
        interactive: Interactive | None = None,
        reply_to: str | None = None,
    ) -> None:
        """Add a bubble."""
        self.changes += 1
        self.bubbles[id_] = Bubble(
            id=id_,
            mine=mine,
            text=text,
            at=at,
            change=self.changes,
            status=None if mine else MessageStatus.SENT,
            interactive=interactive,
            reply_to=reply_to,
        )

    def tick(self, id_: str, status: MessageStatus) -> None:
        """Move a bubble's status forward."""
        bubble = self.bubbles[id_]
        if bubble.status is not None and status.rank > bubble.status.rank:
            self.changes += 1
            self.bubbles[id_] = replace(bubble, status=status, change=self.changes)

    def changed_since(self, change: int) -> list[Bubble]:
        """Return the bubbles that are new or changed after *change*, in order of arrival."""
        return [bubble for bubble in self.bubbles.values() if bubble.change > change]

    def transcript(self) -> list[tuple[str, str]]:
        """Return who said what, in order of arrival."""
        return [("person" if bubble.mine else "service", bubble.text) for bubble in self.bubbles.values()]


@dataclass(frozen=True, slots=True)
class Request:
    """A send request that arrived, and what became of it."""

    at: datetime
    to: str
    text: str
    reference: str | None
    outcome: str

    def as_json(self) -> dict[str, object]:
        """Return it as the API shows it."""
        return {
            "at": self.at.isoformat(),
            "to": self.to,
            "text": self.text,
            "biz_opaque_callback_data": self.reference,
            "outcome": self.outcome,
        }


@dataclass(slots=True)
class World:
    """Everybody, and every request. *id* tells one run of the simulator from the next."""

    id: str = field(default_factory=lambda: secrets.token_urlsafe(8))
    phones: dict[str, Phone] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)

    def phone(self, number: str, name: str | None = None) -> Phone:
        """Return the phone with *number*, made if need be; raise `ValueError` for what is no number."""
        canonical = e164(number)
        if canonical is None:
            raise ValueError(f"{number!r} is not a phone number")
        phone = self.phones.setdefault(canonical, Phone(canonical, name or canonical))
        if name:
            phone.name = name
        return phone
