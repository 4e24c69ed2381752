"""Transactions on PostgreSQL: begun anew when others were in the way, and in a bounded time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import trio
from psycopg import DatabaseError

from promptpipe.model.errors import StoreUnavailableError
from promptpipe.storage.postgres.errors import AGAIN, as_invalid, as_unavailable, is_stuck
from promptpipe.storage.postgres.transaction import PostgresTransaction
from promptpipe.storage.transactions.transaction import Last

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from promptpipe.model.ids import IdSource
    from promptpipe.model.leases import Work
    from promptpipe.storage.postgres.driver import Connection, Pool
    from promptpipe.storage.transactions.transaction import Transaction

    Function = Callable[[Transaction], Coroutine[Any, Any, "T | Last[T]"]]

T = TypeVar("T")

PAUSES = (0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8)
"""Seconds before a transaction is begun anew, at most; chance decides how much of them."""

_SNAPSHOT = "ISOLATION LEVEL REPEATABLE READ, READ ONLY"
_EACH_STATEMENT = "ISOLATION LEVEL READ COMMITTED, READ WRITE"


class PostgresDatabase:
    """`transactions.Database` on a pool of connections. No transaction takes longer than *seconds*."""

    def __init__(
        self,
        pool: Pool,
        ids: IdSource,
        on_commit: Callable[[Work], None],
        *,
        seconds: float,
        chance: Callable[[], float],
        on_conflict: Callable[[], None] = lambda: None,
    ) -> None:
        self._pool = pool
        self._ids = ids
        self._on_commit = on_commit
        self._seconds = seconds
        self._chance = chance
        self._on_conflict = on_conflict

    async def write(self, function: Function[T]) -> T:
        """Run *function* in one durable transaction, anew when another was in its way. Then wake whom it woke."""
        result, woken = await self._again(function, _EACH_STATEMENT)
        for work in woken:
            self._on_commit(work)
        return result

    async def read(self, function: Function[T]) -> T:
        """Run *function* on one snapshot."""
        result, _ = await self._again(function, _SNAPSHOT)
        return result

    async def _again(self, function: Function[T], mode: str) -> tuple[T, set[Work]]:
        for pause in PAUSES:
            try:
                return await self._run(function, mode)
            except AGAIN as error:
                conflict: Exception = error
                self._on_conflict()
                await trio.sleep(pause * self._chance())  # noqa: ASYNC120  canceled, it had no effect
        raise StoreUnavailableError(f"PostgreSQL: others were in the way {len(PAUSES)} times: {conflict}") from conflict

    async def _run(self, function: Function[T], mode: str) -> tuple[T, set[Work]]:
        try:
            with trio.fail_after(self._seconds):
                async with self._pool.connection() as connection:
                    try:
                        return await self._on(connection, function, mode)
                    except DatabaseError as error:
                        if is_stuck(error):
                            connection.abandon()
                        raise
        except trio.TooSlowError as error:
            raise StoreUnavailableError(f"PostgreSQL: no answer within {self._seconds} s") from error
        except DatabaseError as error:
            if isinstance(error, AGAIN):
                raise
            raise as_unavailable(error) or as_invalid(error) or error from error

    async def _on(self, connection: Connection[Any], function: Function[T], mode: str) -> tuple[T, set[Work]]:
        async with connection.pipeline() as pipeline, connection.transaction(mode=mode):
            transaction = PostgresTransaction(connection, pipeline, self._ids)
            result = await function(transaction)
        # All results have come with that of COMMIT.
        return (await result.result() if isinstance(result, Last) else result), transaction.woken
