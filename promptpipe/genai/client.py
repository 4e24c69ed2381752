"""`ports.generator.TextGenerator` by the `openai` client, for any endpoint that has its chat completions."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Literal

import httpx2
import openai
import trio

from promptpipe.genai.transport import BoundedTransport, give_up
from promptpipe.genai.wire import as_generated, as_messages, as_tools, usage_of
from promptpipe.model.errors import GenerationError
from promptpipe.ports.metrics import SILENT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from promptpipe.model.chat import ChatMessage, Generated, Tool
    from promptpipe.ports.metrics import Metrics

MAX_ANSWER = 1024 * 1024
"""Bytes of an answer; a long text is a few thousand."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GenAiConfig:
    """Which model is asked, and how.

    *timeout* (seconds) is for one request. After a failure that may pass there are up to *retries* more, after pauses
    that double, or as long as the server says (at most a minute). At most *concurrency* requests are on their way.
    *temperature* and *max_tokens* are left to the endpoint where they are None.
    """

    api_key: str
    base_url: str
    model: str
    temperature: float | None = None
    max_tokens: int | None = None
    timeout: float = 30.0
    retries: int = 2
    concurrency: int = 20

    def __repr__(self) -> str:
        """Name the model, not the key."""
        return f"GenAiConfig(base_url={self.base_url!r}, model={self.model!r})"


class OpenAiGenerator:
    """See `TextGenerator`. Open it with `opened`."""

    def __init__(self, config: GenAiConfig, client: openai.AsyncOpenAI, metrics: Metrics = SILENT) -> None:
        self._config = config
        self._client = client
        self._metrics = metrics
        self._turns = trio.Semaphore(config.concurrency)
        # The client's own limits are for each piece of an answer.
        self._longest = (config.retries + 1) * 2 * config.timeout
        options = {"temperature": config.temperature, "max_tokens": config.max_tokens}
        self._options: dict[str, Any] = {name: value for name, value in options.items() if value is not None}

    @classmethod
    @asynccontextmanager
    async def opened(cls, config: GenAiConfig, metrics: Metrics = SILENT) -> AsyncIterator[OpenAiGenerator]:
        """Give a generator whose connections are closed with the context."""
        limits = httpx2.Limits(max_connections=config.concurrency, max_keepalive_connections=config.concurrency)
        http = httpx2.AsyncClient(
            transport=BoundedTransport(httpx2.AsyncHTTPTransport(limits=limits), MAX_ANSWER),
            timeout=httpx2.Timeout(config.timeout),
            follow_redirects=False,
        )
        client = openai.AsyncOpenAI(
            api_key=config.api_key,
            base_url=config.base_url,
            max_retries=config.retries,
            http_client=http,
            timeout=httpx2.Timeout(config.timeout),
        )
        async with client:
            yield cls(config, client, metrics)

    async def generate(self, messages: Sequence[ChatMessage], tools: Sequence[Tool] = ()) -> Generated:
        """See `TextGenerator.generate`. What an error says of the endpoint's answer is its kind and status alone."""
        async with self._turns:
            began = trio.current_time()
            result: Literal["answered", "failed"] = "failed"
            completion: Any = None
            try:
                completion = await self._ask(messages, tools)
                generated = as_generated(completion)
                result = "answered"
                return generated
            finally:
                self._metrics.generated(result, trio.current_time() - began, *usage_of(completion))

    async def _ask(self, messages: Sequence[ChatMessage], tools: Sequence[Tool]) -> object:
        options = {**self._options, "tools": as_tools(tools)} if tools else self._options
        with trio.move_on_after(self._longest) as scope:
            token = give_up.set(scope.cancel)
            try:
                completion = await self._complete(messages, options)
            except GenerationError:
                if not scope.cancel_called:
                    raise
            finally:
                give_up.reset(token)
            if not scope.cancel_called:  # else it lacks its end, which came too late to be waited for
                return completion
        raise GenerationError("the model's endpoint answered without end")

    async def _complete(self, messages: Sequence[ChatMessage], options: dict[str, Any]) -> object:
        try:
            return await self._client.chat.completions.create(
                model=self._config.model, messages=as_messages(messages), **options
            )
        except openai.APIStatusError as error:
            status = HTTPStatus(error.status_code).phrase if error.status_code in set(HTTPStatus) else ""
            raise GenerationError(f"the model's endpoint answered {error.status_code} {status}".rstrip()) from None
        except (openai.APIError, httpx2.HTTPError) as error:
            raise GenerationError(f"the model's endpoint gave no answer: {type(error).__name__}") from None
        except ValueError:
            raise GenerationError("the model's endpoint answered with something that is not JSON") from None
