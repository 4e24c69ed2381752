"""Statements that are executed again and again: what psycopg's cursors do for one, without a cursor for each time.

A cursor looks up anew how each value is written and each column read, which is half of what a small statement costs.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, cast

from psycopg import ProgrammingError
from psycopg._cursor_base import BaseCursor
from psycopg._preparing import Prepare
from psycopg._queries import PostgresQuery
from psycopg.adapt import Transformer
from psycopg.pq import Format

if TYPE_CHECKING:
    from collections.abc import Mapping

    from psycopg.abc import PQGen
    from psycopg.pq.abc import PGresult

    from promptpipe.storage.postgres.driver.connection import Connection


class Statement:
    """A statement as one connection knows it: translated, with what its values are written and its rows read by."""

    def __init__(self, connection: Connection[Any], sql: str, values: Mapping[str, object]) -> None:
        self.transformer = Transformer(connection)
        self.query = PostgresQuery(self.transformer)
        self.query.convert(sql, values)
        self._names: tuple[str, ...] = ()

    def rows(self, result: PGresult) -> list[dict[str, Any]]:
        """Return the rows of one of its results, each by the columns' names."""
        if result.nfields != len(self._names):
            self._names = tuple(cast("bytes", result.fname(n)).decode() for n in range(result.nfields))
        names = self._names
        self.transformer.set_pgresult(result)
        rows = self.transformer.load_rows(0, result.ntuples, lambda values: dict(zip(names, values, strict=True)))
        self.transformer.set_pgresult(None)
        return rows


class Answer:
    """What comes back for a statement in a pipeline, which takes it for the cursor that has sent it."""

    __slots__ = ("_conn", "_result", "_statement")

    def __init__(self, connection: Connection[Any], statement: Statement) -> None:
        self._conn = connection
        self._statement = statement
        self._result: PGresult | None = None

    async def rows(self) -> list[dict[str, Any]]:
        """Return the rows once they are there; raise what the statement failed with, unless it was raised before."""
        if self._result is None:
            await self._conn.fetch_answers()
        if self._result is None:
            raise RuntimeError("the statement failed, which was said elsewhere")
        return self._statement.rows(self._result)

    def send_gen(self, values: Mapping[str, object], *, begin: bool) -> PQGen[None]:
        """Send the statement with these values; what is sent stays in the pipeline until somebody waits for it.

        With *begin* the transaction that is to begin with it does.
        """
        connection, query, pgconn = self._conn, self._statement.query, self._conn.pgconn
        pipeline, prepared = connection._pipeline, connection._prepared  # noqa: SLF001  (private names: see `internals`)
        if pipeline is None:
            raise ProgrammingError("a statement like this is for a pipeline")
        if begin:
            yield from connection._start_query()  # noqa: SLF001
        query.dump(values)
        state, name = prepared.get(query)
        if state is Prepare.NO:
            send = partial(pgconn.send_query_params, query.query, query.params, param_types=query.types)
        else:
            send = partial(pgconn.send_query_prepared, name, query.params)
        if state is Prepare.SHOULD:
            pipeline.command_queue.append(partial(pgconn.send_prepare, name, query.query, param_types=query.types))
            pipeline.result_queue.append(None)
        pipeline.command_queue.append(partial(send, param_formats=query.formats, result_format=Format.BINARY))
        key = prepared.maybe_add_to_cache(query, state, name)
        pipeline.result_queue.append((cast("Any", self), None if key is None else (key, state, name)))
        yield from pipeline._communicate_gen()  # noqa: SLF001
        yield from prepared.maintain_gen(connection)

    # What follows is what a pipeline asks of a cursor.

    _check_results = BaseCursor._check_results  # noqa: SLF001
    _raise_for_result = BaseCursor._raise_for_result  # noqa: SLF001

    def _set_results(self, results: list[PGresult]) -> None:
        self._result = results[0]

    @property
    def _encoding(self) -> str:
        return self._conn.pgconn._encoding  # noqa: SLF001
