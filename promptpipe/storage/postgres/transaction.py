"""A transaction on PostgreSQL: statements travel in a pipeline, and only a result that is needed is waited for."""

from __future__ import annotations

import hashlib
import re
from contextlib import asynccontextmanager, suppress
from importlib.resources import files
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from psycopg import Error

from promptpipe.storage.postgres.errors import is_permanent
from promptpipe.storage.statements import load_statements
from promptpipe.storage.transactions.transaction import Last, Transaction

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
    from datetime import datetime

    from psycopg import AsyncPipeline

    from promptpipe.model.ids import IdSource
    from promptpipe.model.leases import Work
    from promptpipe.storage.postgres.driver import Connection
    from promptpipe.storage.postgres.driver.asking import Answer
    from promptpipe.storage.transactions.transaction import Row

T = TypeVar("T")

STATEMENTS = load_statements(files("promptpipe.storage.postgres").joinpath("queries"))


def as_psycopg(sql: str) -> str:
    """Return a statement with its values (`:name`) as psycopg has them; `::type` is a cast."""
    return re.sub(r"(?<!:):([a-z]\w*)", r"%(\1)s", sql.replace("%", "%%"))


_TRANSLATED = {name: as_psycopg(sql) for name, sql in STATEMENTS.items()}


class PostgresTransaction(Transaction):
    """See `Transaction`."""

    contended: ClassVar[bool] = True

    def __init__(self, connection: Connection[dict[str, Any]], pipeline: AsyncPipeline, ids: IdSource) -> None:
        super().__init__(ids)
        self._connection = connection
        self._pipeline = pipeline
        self._begun = False
        self._now: datetime | None = None

    async def _ask(self, sql: str, values: Mapping[str, object]) -> Answer:
        self._begun = True
        return await self._connection.ask(sql, values)

    async def run(self, statement: str, /, **values: object) -> None:
        """See `Transaction.run`."""
        await self._ask(_TRANSLATED[statement], values)

    async def count(self, statement: str, /, **values: object) -> int:
        """See `Transaction.count`; the statement returns a row for each that it changed."""
        return len(await self.all(statement, **values))

    async def all(self, statement: str, /, **values: object) -> Sequence[Row]:
        """See `Transaction.all`."""
        return await (await self._ask(_TRANSLATED[statement], values)).rows()

    async def several(self, *statements: tuple[str, Mapping[str, object]]) -> list[Sequence[Row]]:
        """See `Transaction.several`. They travel together."""
        answers = [await self._ask(_TRANSLATED[name], values) for name, values in statements]
        return [await answer.rows() for answer in answers]

    async def last(
        self, *statements: tuple[str, Mapping[str, object]], then: Callable[[list[Sequence[Row]]], T]
    ) -> Last[T]:
        """See `Transaction.last`."""
        answers = [
            await self._connection.ask(_TRANSLATED[name], values, begin=self._begun) for name, values in statements
        ]

        async def rows() -> list[Sequence[Row]]:
            return [await answer.rows() for answer in answers]

        return Last(rows, then)

    async def now(self) -> datetime:
        """See `Transaction.now`."""
        if self._now is None:
            [row] = await (await self._ask("SELECT promptpipe_now() AS now", {})).rows()
            self._now = row["now"]
        return self._now

    @asynccontextmanager
    async def savepoint(self) -> AsyncIterator[None]:
        """See `Transaction.savepoint`. What was only sent has taken place when this is left."""
        await self._ask("SAVEPOINT part", {})
        try:
            yield
            await self._pipeline.sync()
        except Exception:
            # Canceled in here, the whole transaction is rolled back.
            with suppress(Error):
                await self._pipeline.sync()  # noqa: ASYNC120  after an error nothing else is taken before this
            await self._ask("ROLLBACK TO SAVEPOINT part", {})  # noqa: ASYNC120
            raise
        await self._ask("RELEASE SAVEPOINT part", {})

    def is_permanent(self, error: Exception) -> bool:
        """See `Transaction.is_permanent`."""
        return is_permanent(error)

    async def lock_lanes(self, lanes: Collection[tuple[Work, str]]) -> None:
        """See `Transaction.lock_lanes`."""
        if lanes:
            wanted = [(work.value, key) for work, key in lanes]
            await self.run("lock_lanes", kinds=[kind for kind, _ in wanted], keys=[key for _, key in wanted])

    def lock_of(self, queue: str) -> list[tuple[str, Mapping[str, object]]]:
        """See `Transaction.lock_of`. A statement of its own: that which counts must not have begun to look."""
        return [("lock_limited_queue", {"queue": queue})]

    async def lock_names(self, names: Collection[str]) -> None:
        """See `Transaction.lock_names`. Two names that share a number are locked together, which does no harm."""
        if names:
            numbers = {
                int.from_bytes(hashlib.blake2b(name.encode(errors="replace"), digest_size=8).digest(), signed=True)
                for name in names
            }
            await self.run("lock_names", names=sorted(numbers))
