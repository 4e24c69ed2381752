"""Mailboxes as they should be, for the model of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from promptpipe.model.events import Replied, TimerFired
from tests.support.lanes import ModelLane

if TYPE_CHECKING:
    from promptpipe.model.events import StoredEvent

MAX_ATTEMPTS = 3
"""Of each event, for poison to show itself within a story."""


@dataclass
class ModelEvent:
    """An event as it should be; its name tells it from all others."""

    name: str
    key: str | None = None
    attempt: int = 0
    blocked: float = 0.0


@dataclass
class Mailbox(ModelLane):
    """A mailbox, and what became of what was in it."""

    depth: int = 1
    version: int = 1
    events: list[ModelEvent] = field(default_factory=list)
    aside: list[ModelEvent] = field(default_factory=list)
    handled: list[str] = field(default_factory=list)

    def find(self, name: str) -> ModelEvent | None:
        return next((event for event in self.events if event.name == name), None)

    def put(self, event: ModelEvent, now: float) -> None:
        self.events.append(event)
        self.append(now)

    def set_aside(self) -> None:
        self.aside.append(self.events.pop(0))

    def hand_out(self) -> ModelEvent | None:
        while self.events:
            if self.events[0].attempt < MAX_ATTEMPTS:
                self.events[0].attempt += 1
                return self.events[0]
            self.set_aside()
        self.release(None)
        return None

    @property
    def behind(self) -> list[str]:
        """What is handed out behind the head."""
        return [event.name for event in self.events[1 : self.depth]]

    def let_go(self, due: float) -> None:
        self.release(due if self.events else None)

    def take_back(self, now: float) -> None:
        if self.events:
            self.events[0].attempt = max(0, self.events[0].attempt - 1)
        self.let_go(now)


def name_of(stored: StoredEvent) -> str:
    match stored.event:
        case Replied(text=name):
            return name
        case TimerFired(job_id=name):
            return name
        case other:
            raise AssertionError(other)
