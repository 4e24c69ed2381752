"""A way to reach people, and to hear from them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from promptpipe.model.inbound import InboundBatch
    from promptpipe.model.messages import Departure, SendOrder, SendResult


class Channel(Protocol):
    """A messaging provider, both ways."""

    @property
    def name(self) -> str:
        """The channel's name, as stored with every message and address."""
        ...

    @property
    def send_timeout(self) -> float:
        """The longest that `send` takes, in seconds."""
        ...

    async def send(self, order: SendOrder, departure: Departure) -> SendResult:
        """Send one message once, and say what became of it; never raise for the provider's or the network's sake.

        Note the *departure* right before the first byte leaves. Canceled after that, the outcome is unknown.
        """
        ...

    def handshake(self, query: Mapping[str, str]) -> str:
        """Return the answer to the provider's verification request; raise `VerificationError` otherwise."""
        ...

    def receive(self, headers: Mapping[str, str], body: bytes) -> InboundBatch:
        """Return the updates in a webhook request, whatever their shape.

        *headers* has lower-case names. Raise `SignatureError` when *body* was not signed by the provider, and
        `MalformedBodyError` when it is not a JSON object.
        """
        ...
