"""The cache of prepared statements: psycopg's own, which forgets those that were never prepared."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg._preparing import Key, Prepare, PrepareManager

if TYPE_CHECKING:
    from psycopg._queries import PostgresQuery


class PreparedStatements(PrepareManager):
    """Knows which statements the server has prepared for a connection.

    In a pipeline, a statement is noted as prepared when that is sent. psycopg looks at the result only if the statement
    was not known at all before. If it was merely counted, and the pipeline fails before it (or is canceled), it stays
    noted, and every later use fails ("prepared statement does not exist"; psycopg 3.3.9). Here the result is looked at
    always.
    """

    def maybe_add_to_cache(self, query: PostgresQuery, prep: Prepare, name: bytes) -> Key | None:
        """Note the use of *query*; return its key if the result is to be looked at."""
        key = super().maybe_add_to_cache(query, prep, name)
        return self.key(query) if prep is Prepare.SHOULD else key
