"""Meta's side: takes send requests, shows them on phones, and tells the service what people do."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import trio

from promptpipe.model.messages import MessageStatus
from promptpipe.simulator import meta
from promptpipe.simulator.faults import Faults
from promptpipe.simulator.world import Request, World

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from promptpipe.ports.clock import Clock
    from promptpipe.simulator.webhooks import Webhooks
    from promptpipe.simulator.world import Phone

Payload = dict[str, object]

_TICKS = {
    "sent": MessageStatus.SENT,
    "delivered": MessageStatus.DELIVERED,
    "read": MessageStatus.READ,
    "failed": MessageStatus.FAILED,
}


class LostAnswerError(Exception):
    """The request was acted upon, and its answer is not to arrive."""


class BlankAnswerError(Exception):
    """The request was acted upon, and its answer is to say nothing of it."""


class MetaStandIn:
    """The people, and the way to them and back."""

    def __init__(self, webhooks: Webhooks, nursery: trio.Nursery, clock: Clock, random: Callable[[], float]) -> None:
        self.world = World()
        self.faults = Faults()
        self._webhooks = webhooks
        self._nursery = nursery
        self._clock = clock
        self._random = random
        self._changed = trio.Event()
        self._spoken: dict[str, trio.MemorySendChannel[Payload]] = {}

    async def take(self, request: Mapping[str, object]) -> dict[str, object]:
        """Take a send request and return the answer; raise `RefusedError`, or what else the faults have in store."""
        faults = self.faults
        await trio.sleep(faults.latency)
        outgoing = meta.checked(request)
        if faults.errors.happens(self._random):
            self._note(outgoing, f"error {faults.error_code}")
            raise meta.refusal_of(faults.error_code)
        try:
            phone = self.world.phone(outgoing.recipient)
        except ValueError as error:
            self._note(outgoing, "error 131026")
            raise meta.refusal_of(131026) from error
        message_id = meta.new_wamid()
        self._note(outgoing, "accepted")
        phone.show(message_id, outgoing.text, self._clock.now(), mine=False, interactive=outgoing.interactive)
        self._has_changed()
        self._nursery.start_soon(self._live_through, phone, message_id, outgoing.callback_data)
        if faults.lost_answers.happens(self._random):
            raise LostAnswerError
        if faults.blank_errors.happens(self._random):
            raise BlankAnswerError
        return meta.accepted(outgoing.recipient, phone, message_id)

    def say(self, phone: Phone, content: Mapping[str, object], text: str, reply_to: str | None = None) -> str:
        """Let a person send something, and return its id; raise `ValueError` when it answers what is not there.

        The service is told until it has taken it; what one person sends arrives in the order in which they sent it.
        """
        answered = None if reply_to is None else phone.bubble(reply_to)
        message_id = meta.new_wamid()
        now = self._clock.now()
        phone.show(message_id, text, now, mine=True, reply_to=reply_to)
        self._has_changed()
        if phone.number not in self._spoken:
            self._spoken[phone.number], said = trio.open_memory_channel[Payload](math.inf)
            self._nursery.start_soon(self._deliver_in_order, said)
        message = meta.message_from(phone, message_id, now, content, answered)
        self._spoken[phone.number].send_nowait(meta.message_webhook(phone, message))
        return message_id

    async def wait_changed(self, phone: Phone, since: int, seconds: float) -> None:
        """Wait until something on *phone* has changed after *since*, at most *seconds*.

        A reader who has seen more than there is has seen another simulator's phone, and is not kept waiting.
        """
        with trio.move_on_after(seconds):
            while phone.changes == since:
                await self._changed.wait()

    async def _deliver_in_order(self, said: trio.MemoryReceiveChannel[Payload]) -> None:
        async for payload in said:
            await self._webhooks.deliver(payload, self.faults)

    async def _live_through(self, phone: Phone, message_id: str, callback_data: str | None) -> None:
        """Let a message go through its statuses, and tell the service of each."""
        for status in self.faults.statuses:
            await trio.sleep(self.faults.status_delay)
            phone.tick(message_id, _TICKS[status])
            self._has_changed()
            if self.faults.lost_statuses.happens(self._random):
                continue
            payload = meta.status_webhook(phone, message_id, status, self._clock.now(), callback_data)
            self._nursery.start_soon(self._webhooks.deliver, payload, self.faults)

    def _note(self, outgoing: meta.Outgoing, outcome: str) -> None:
        self.world.requests.append(
            Request(self._clock.now(), outgoing.recipient, outgoing.text, outgoing.callback_data, outcome)
        )

    def _has_changed(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
