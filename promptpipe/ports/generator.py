"""What writes texts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from promptpipe.model.chat import ChatMessage, Generated, Tool


class TextGenerator(Protocol):
    """A language model."""

    async def generate(self, messages: Sequence[ChatMessage], tools: Sequence[Tool] = ()) -> Generated:
        """Return what the model answers to *messages*, of which it may ask for *tools*.

        It has been asked as often as makes sense when this raises `GenerationError`. No transaction is open meanwhile;
        canceling it ends the request. An answer costs money: whoever crashes before it is used pays for one more.
        """
        ...
