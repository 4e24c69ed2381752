"""People who write all the time, and what they are to be answered."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING

import httpx2
import trio

from tests.support.people import text_webhook

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from promptpipe.simulator.meta_stand_in import MetaStandIn

    Post = Callable[[bytes], Awaitable[int]]
    """Posts a signed webhook and returns the HTTP status."""

NOT_ANSWERED = 0
"""In place of an HTTP status."""

REPEAT_SECONDS = 0.2
"""After this long at most, Meta repeats what was not acknowledged."""


@dataclass(kw_only=True)
class Load:
    """People who keep writing, whatever the service does; Meta repeats what was not acknowledged.

    Each person's messages are numbered, and the next one is written when the one before was acknowledged, after up to
    *pause* seconds. They stop after *each*, or when they are told to. A share of what was acknowledged is *repeated*
    all the same.
    """

    post: Post
    people: int
    each: int | None = None
    pause: float = 0.0
    repeated: float = 0.0
    within: float = 60.0
    """How long a message may take to be acknowledged, in seconds."""

    written: Counter[str] = field(default_factory=Counter)
    """How many messages of each person were acknowledged, by their number."""
    answers: Counter[int] = field(default_factory=Counter)
    """How often the service has answered with each HTTP status."""
    stopped: bool = False
    chance: random.Random = field(default_factory=lambda: random.Random(20260302))

    @property
    def acknowledged(self) -> int:
        """How many messages were, in all."""
        return self.written.total()

    def stop(self) -> None:
        """Write nothing new."""
        self.stopped = True

    async def run(self) -> None:
        """Write, and return when the last message was acknowledged."""
        async with trio.open_nursery() as nursery:
            for person in range(self.people):
                nursery.start_soon(self._write, f"+1650555{person:04}")

    async def _write(self, sender: str) -> None:
        for number in range(self.each) if self.each is not None else count():
            if self.stopped:
                return
            body = text_webhook(str(number), f"wamid.{sender}.{number}", sender)
            with trio.fail_after(self.within):
                await self._deliver(body)
            self.written[sender] += 1
            if self.chance.random() < self.repeated:
                await self._acknowledged(body)
            await trio.sleep(self.pause * self.chance.random())

    async def _deliver(self, body: bytes) -> None:
        while True:
            if await self._acknowledged(body):
                return
            await trio.sleep(REPEAT_SECONDS * self.chance.random())

    async def _acknowledged(self, body: bytes) -> bool:
        try:
            status = await self.post(body)
        except httpx2.TransportError:
            status = NOT_ANSWERED
        self.answers[status] += 1
        return status == 200

    def check_answers(self, stand_in: MetaStandIn) -> None:
        """Check that each person got an answer to each message, once, in order."""
        heard = {number: [text for _, text in phone.transcript()] for number, phone in stand_in.world.phones.items()}
        expected = {number: [f"echo: {n}" for n in range(said)] for number, said in self.written.items()}
        wrong = {number: heard.get(number) for number in expected if heard.get(number) != expected[number]}
        assert wrong == {}, wrong
        assert heard.keys() == expected.keys()
