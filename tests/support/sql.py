"""One way to write a query for both back ends."""

from __future__ import annotations


def as_psycopg(sql: str) -> bytes:
    """Return a query whose values are `?` as psycopg has them; as bytes it need not be a literal."""
    return sql.replace("%", "%%").replace("?", "%s").encode()
