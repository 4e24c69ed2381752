"""Transactions that are counted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from promptpipe.model.errors import StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from promptpipe.ports.metrics import Metrics
    from promptpipe.storage.transactions.transaction import Database, Last, Transaction

T = TypeVar("T")


class MeasuredDatabase:
    """`Database` that tells *metrics* what is asked of another."""

    def __init__(self, database: Database, metrics: Metrics) -> None:
        self._database = database
        self._metrics = metrics

    async def write(self, function: Callable[[Transaction], Coroutine[Any, Any, T | Last[T]]]) -> T:
        """See `Database.write`."""
        self._metrics.transaction("write")
        try:
            return await self._database.write(function)
        except StoreUnavailableError:
            self._metrics.store_unavailable()
            raise

    async def read(self, function: Callable[[Transaction], Coroutine[Any, Any, T]]) -> T:
        """See `Database.read`."""
        self._metrics.transaction("read")
        try:
            return await self._database.read(function)
        except StoreUnavailableError:
            self._metrics.store_unavailable()
            raise
