"""psycopg 3 on Trio: connections and a pool, without asyncio and without threads.

It knows nothing of the rest of promptpipe. What psycopg documents of its async connections and cursors holds here
too: `Connection` is a `psycopg.AsyncConnection`, and errors are those of `psycopg.errors`. What is different is that
waiting, connecting and canceling belong to Trio: a cancel scope around a query cancels it in the server (see
`Connection`).

Two threads remain, both Trio's: host names are looked up in one, and with a libpq older than 17 (only the pure Python
implementation can meet one) so are cancel requests sent.

psycopg has no public interface for this, so the driver replaces private parts of one exact version, and refuses to be
imported with any other (`internals`).
"""

from promptpipe.storage.postgres.driver.internals import check_psycopg

check_psycopg()

from psycopg.conninfo import make_conninfo  # noqa: E402  nothing that may be missing is imported before the check

from promptpipe.storage.postgres.driver.connection import Connection  # noqa: E402
from promptpipe.storage.postgres.driver.errors import PoolClosedError, PoolTimeoutError  # noqa: E402
from promptpipe.storage.postgres.driver.pool import Pool, PoolStatistics  # noqa: E402

__all__ = ["Connection", "Pool", "PoolClosedError", "PoolStatistics", "PoolTimeoutError", "make_conninfo"]
