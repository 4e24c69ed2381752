"""Answers of a bounded length: whoever answers without end must not fill the memory."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING

import httpx2

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

give_up: ContextVar[Callable[[], object]] = ContextVar("give_up")
"""What cancels a request whose answer is too long. Canceled, a stream is closed cleanly; left, it is not."""


class BoundedTransport(httpx2.AsyncBaseTransport):
    """Passes requests on to *inner*; those whose answers have more than *limit* bytes are given up."""

    def __init__(self, inner: httpx2.AsyncBaseTransport, limit: int) -> None:
        self._inner = inner
        self._limit = limit

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """See `httpx2.AsyncBaseTransport.handle_async_request`."""
        response = await self._inner.handle_async_request(request)
        stream = response.stream
        assert isinstance(stream, httpx2.AsyncByteStream)  # noqa: S101  that of an asynchronous transport
        response.stream = _Bounded(stream, self._limit, give_up.get())
        return response

    async def aclose(self) -> None:
        """Close *inner*."""
        await self._inner.aclose()


class _Bounded(httpx2.AsyncByteStream):
    def __init__(self, inner: httpx2.AsyncByteStream, limit: int, give_up: Callable[[], object]) -> None:
        self._inner = inner
        self._left = limit
        self._give_up = give_up

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._inner:
            self._left -= len(chunk)
            if self._left < 0:
                self._give_up()
            else:
                yield chunk

    async def aclose(self) -> None:
        await self._inner.aclose()
