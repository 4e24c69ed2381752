"""An OpenAI-compatible endpoint on loopback, whose model says what a test has it say."""

from __future__ import annotations

import json
from collections import deque
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from promptpipe.genai import GenAiConfig, OpenAiGenerator
from promptpipe.ports.metrics import SILENT
from tests.support.peer import Peer, http, open_peer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from promptpipe.ports.metrics import Metrics

KEY = "sk-not-to-be-seen"


@dataclass
class Model:
    """Answers in turn with *answers* (a whole response, or None for silence), then with the *last* one for ever."""

    answers: deque[bytes | None] = field(default_factory=deque)
    last: bytes | None = None
    peer: Peer = field(init=False)

    def __post_init__(self) -> None:
        self.last = said("I see.")

    def answer(self, request: bytes) -> bytes | None:
        del request
        return self.answers.popleft() if self.answers else self.last

    @property
    def asked(self) -> list[dict[str, Any]]:
        """The bodies of the requests that came."""
        return [json.loads(request.partition(b"\r\n\r\n")[2]) for request in self.peer.requests]


def said(text: object, *calls: tuple[str, object], **more: object) -> bytes:
    """Return a response in which the model says something, and wants tools used: names, and what it wrote for each."""
    wishes = [
        {"id": f"call_{n}", "type": "function", "function": {"name": name, "arguments": arguments}}
        for n, (name, arguments) in enumerate(calls)
    ]
    message = {"role": "assistant", "content": text, **({"tool_calls": wishes} if wishes else {})}
    return completion({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], **more})


def completion(body: object) -> bytes:
    """Return a response with a body that is JSON."""
    return http("200 OK", json.dumps(body).encode(), Content_Type="application/json")


@asynccontextmanager
async def open_model(*answers: bytes | None) -> AsyncIterator[Model]:
    """Give a model on loopback."""
    model = Model(deque(answers))
    async with open_peer(model.answer) as peer:
        model.peer = peer
        yield model


@asynccontextmanager
async def open_generator(model: Model, metrics: Metrics = SILENT, **options: Any) -> AsyncIterator[OpenAiGenerator]:
    """Give a generator that asks *model*."""
    values = {"api_key": KEY, "base_url": f"{model.peer.url}/v1", "model": "parrot", **options}
    async with OpenAiGenerator.opened(GenAiConfig(**values), metrics) as generator:
        yield generator
