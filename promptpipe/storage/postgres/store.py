"""The PostgreSQL back end, put together."""

from __future__ import annotations

import random
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog
import trio
from psycopg import DatabaseError, OperationalError, ProgrammingError, errors
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import dict_row

from promptpipe.model.errors import SettingsError, StoreUnavailableError
from promptpipe.ports.metrics import SILENT
from promptpipe.storage.migrations import require_none
from promptpipe.storage.postgres.database import PostgresDatabase
from promptpipe.storage.postgres.driver import Connection, Pool
from promptpipe.storage.postgres.errors import as_refusal, as_unavailable, in_one_line
from promptpipe.storage.postgres.migrations import find_missing, migrate
from promptpipe.storage.postgres.values import own_adapters
from promptpipe.storage.postgres.waking import Waking
from promptpipe.storage.transactions.measured import MeasuredDatabase
from promptpipe.storage.transactions.store import SqlStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from promptpipe.model.ids import IdSource, WorkerId
    from promptpipe.model.messages import InDoubtRules
    from promptpipe.ports.metrics import Metrics
    from promptpipe.ports.runners import Runners
    from promptpipe.storage.migrations import Migration

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 10.0
"""Seconds between two attempts to reach a server at the start: doubled each time, and half of it left to chance."""

PLANNING = "-c plan_cache_mode=force_generic_plan -c enable_seqscan=off -c jit=off"
"""Our statements have one good plan each, by their indexes, whatever their values and however full the tables are.

Planning them anew for each execution would take longer than most of them do; and what was planned while a table was
empty would read all of it for as long as the connection lasts.
"""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresConfig:
    """Where the database is, and how it is used.

    *url* is libpq's, with several hosts and TLS as it has them. No transaction takes longer than *timeout* seconds.
    *pooled* says that a pooler in transaction mode stands before the server: then nothing may live on a session.
    """

    url: str
    pool_size: int = 10
    timeout: float = 30.0
    pooled: bool = False

    def options(self) -> dict[str, Any]:
        """Return the parameters of each connection besides the URL, whose own are stronger.

        A server that vanished without a word is noticed within half a minute. Of several hosts, the one that takes
        writes is wanted.
        """
        said = conninfo_to_dict(self.url)
        defaults: dict[str, Any] = {
            "application_name": "promptpipe",
            "connect_timeout": 10,
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": 30_000,
        }
        if "," in str(said.get("host", "")):
            defaults["target_session_attrs"] = "read-write"
        chosen = {name: value for name, value in defaults.items() if name not in said}
        if not self.pooled:
            chosen["options"] = f"{PLANNING} {said.get('options') or ''}".rstrip()
        return chosen | {
            "autocommit": True,
            "row_factory": dict_row,
            "context": _Context(),
            "prepare_threshold": None if self.pooled else 5,
        }

    async def connect(self) -> Connection[dict[str, Any]]:
        """Return a new connection."""
        return await Connection.connect(self.url, **self.options())


class _Context:
    """Gives psycopg our adapters."""

    connection = None

    def __init__(self) -> None:
        self.adapters = own_adapters()


@asynccontextmanager
async def open_postgres_store(
    config: PostgresConfig,
    *,
    ids: IdSource,
    worker: WorkerId,
    rules: InDoubtRules,
    runners: Runners,
    chance: Callable[[], float] = random.random,  # noqa: S311  for pauses
    metrics: Metrics = SILENT,
    read_only: bool = False,
) -> AsyncIterator[SqlStore]:
    """Connect, bring the schema up to date, and give the store for as long as the context lasts.

    *worker* is the name under which this process leases work. *runners* are woken whenever a commit made some work due,
    here or, while the store's background runs, elsewhere; they take some of it along if they have room.

    A server that cannot be reached is waited for. Raise `SettingsError` when it refuses us for good, and `SchemaError`
    when the schema is newer than this program. What is *read_only* is not waited for, nor is its schema changed: raise
    `StoreUnavailableError`, and `SchemaError` when that is older than this program.
    """
    if read_only:
        require_none(await check_schema(config))
    else:
        await wait_reachable(config, migrate_postgres, chance)
    pool = Pool(config.url, size=config.pool_size, wait_seconds=config.timeout, **config.options())
    waking = Waking(config.connect, worker, runners.wake, chance)
    async with pool:
        database = PostgresDatabase(
            pool,
            ids,
            waking.committed,
            seconds=config.timeout,
            chance=chance,
            on_conflict=metrics.transaction_retried,
        )
        background = () if config.pooled else (waking.run,)
        yield SqlStore(MeasuredDatabase(database, metrics), worker, rules, runners, background)


async def wait_reachable(
    config: PostgresConfig, function: Callable[[PostgresConfig], Awaitable[object]], chance: Callable[[], float]
) -> None:
    """Call *function* until the server can be reached."""
    pause = FIRST_PAUSE
    while True:
        try:
            await function(config)
        except StoreUnavailableError as error:
            log.warning("the database cannot be reached yet", reason=str(error))
            await trio.sleep(pause * (1 + chance()) / 2)
            pause = min(2 * pause, LONGEST_PAUSE)
        else:
            return


async def migrate_postgres(config: PostgresConfig) -> list[Migration]:
    """Bring the schema up to date and return the migrations applied; raise as `check_schema`."""
    return await _with_connection(config, migrate)


async def check_schema(config: PostgresConfig) -> list[Migration]:
    """Return the migrations that are yet to be applied.

    Raise `SchemaError` when the schema is newer than this program, `SettingsError` when the server refuses us for good,
    and `StoreUnavailableError` when it cannot be reached.
    """
    return await _with_connection(config, find_missing)


async def _with_connection(
    config: PostgresConfig, function: Callable[[Connection[Any]], Awaitable[list[Migration]]]
) -> list[Migration]:
    try:
        async with await config.connect() as connection:
            return await function(connection)
    except OperationalError as error:
        raise as_refusal(error) or as_unavailable(error) or error from error
    except errors.InsufficientPrivilege as error:
        raise SettingsError(f"PROMPTPIPE_DATABASE_URL: {in_one_line(error)}") from error
    except ProgrammingError as error:
        if error.sqlstate is None:  # libpq's word on the URL
            raise SettingsError(f"PROMPTPIPE_DATABASE_URL: {in_one_line(error)}") from error
        raise
    except DatabaseError as error:
        raise as_unavailable(error) or error from error
