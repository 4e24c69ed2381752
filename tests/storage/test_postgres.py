"""PostgreSQL as it comes: schemas old and new, servers that refuse, are slow, full, or in each other's way."""

from __future__ import annotations

import signal
import time
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, LiteralString

import psycopg
import pytest
import trio
from psycopg.conninfo import make_conninfo

from promptpipe.metrics import PrometheusMetrics
from promptpipe.model.errors import SchemaError, SettingsError, StoreUnavailableError
from promptpipe.model.ids import IdSource, JobId, WorkerId
from promptpipe.model.jobs import NewJob
from promptpipe.model.messages import InDoubtRules
from promptpipe.ports.metrics import SILENT
from promptpipe.storage.migrations import Migration
from promptpipe.storage.postgres import PostgresConfig, check_schema, migrate_postgres, open_postgres_store
from promptpipe.storage.postgres.migrations import known_migrations, migrate
from tests.support.clock import ManualClock
from tests.support.eventually import eventually
from tests.support.postgres import Server, drop_database, new_database, open_server
from tests.support.runners import PlayedRunners
from tests.support.scrape import counted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from promptpipe.ports.metrics import Metrics
    from promptpipe.ports.store import Store
    from tests.support.postgres import Programs

NAMES = [migration.name for migration in known_migrations()]


@pytest.fixture
def config(postgres_url: str) -> Iterator[PostgresConfig]:
    """Give a database in which nothing is yet."""
    url = new_database(postgres_url)
    yield PostgresConfig(url=url, pool_size=3)
    drop_database(postgres_url, url)


@pytest.fixture
def server(postgres_programs: Programs, postgres_folder: Path, tmp_path: Path) -> Iterator[Server]:
    """Give a server that the test may stop."""
    with open_server(postgres_programs, postgres_folder / tmp_path.name, durable=False) as server:
        yield server


@asynccontextmanager
async def opened(config: PostgresConfig, metrics: Metrics = SILENT) -> AsyncIterator[Store]:
    ids = IdSource(ManualClock().now, lambda bits: time.monotonic_ns() % (1 << bits))
    worker = WorkerId("worker")
    async with open_postgres_store(
        config,
        ids=ids,
        worker=worker,
        rules=InDoubtRules(),
        runners=PlayedRunners(),
        chance=lambda: 0.1,
        metrics=metrics,
    ) as store:
        yield store


async def enqueue(store: Store, name: str = "a") -> None:
    await store.jobs.enqueue(NewJob(id=JobId(name), kind="k", run_at=ManualClock().now()))


def execute(config: PostgresConfig, sql: LiteralString) -> list[tuple[object, ...]]:
    """Do something behind the store's back."""
    with psycopg.connect(config.url, autocommit=True) as connection:
        cursor = connection.execute(sql)
        return cursor.fetchall() if cursor.description else []


# ---------------------------------------------------------------- schemas


async def test_instances_that_start_at_once_migrate_once(config: PostgresConfig) -> None:
    """Ten wait for each other; one does it, in one transaction."""
    applied: list[str] = []

    async def start() -> None:
        applied.extend(migration.name for migration in await migrate_postgres(config))

    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(start)
    assert applied == NAMES
    assert execute(config, "SELECT name FROM schema_migrations ORDER BY number") == [(name,) for name in NAMES]


async def test_check_tells_what_is_missing_and_changes_nothing(config: PostgresConfig) -> None:
    """All of it on an empty database; nothing once it is migrated."""
    assert [migration.name for migration in await check_schema(config)] == NAMES
    assert execute(config, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == [(0,)]
    await migrate_postgres(config)
    assert await check_schema(config) == []


async def test_older_schema_is_upgraded(config: PostgresConfig) -> None:
    """What is there stays; what is missing comes."""
    async with await config.connect() as connection:
        await migrate(connection, known_migrations()[:1])
    execute(config, "INSERT INTO channels VALUES ('whatsapp', now(), 'kept')")
    assert [migration.name for migration in await check_schema(config)] == NAMES[1:]
    async with opened(config) as store:
        await enqueue(store)
    assert execute(config, "SELECT reason FROM channels") == [("kept",)]


async def test_newer_schema_is_refused(config: PostgresConfig) -> None:
    """By name, and nothing is touched."""
    await migrate_postgres(config)
    execute(config, "INSERT INTO schema_migrations VALUES (9000, '9000_future.sql', 'x', now())")
    for refused in (check_schema, migrate_postgres):
        with pytest.raises(SchemaError, match=r"9000_future\.sql.*newer PromptPipe"):
            await refused(config)


async def test_changed_migration_is_refused(config: PostgresConfig) -> None:
    """What was applied under this name was something else."""
    await migrate_postgres(config)
    execute(config, "UPDATE schema_migrations SET checksum = 'x' WHERE number = 1")
    with pytest.raises(SchemaError, match=r"0001_initial\.sql was changed"):
        await migrate_postgres(config)


async def test_migration_that_fails_leaves_nothing(config: PostgresConfig) -> None:
    """All that is missing is one transaction."""
    broken = [*known_migrations(), Migration(9000, "9000_broken.sql", "CREATE TABLE half (); SELECT 1 / 0;")]
    async with await config.connect() as connection:
        with pytest.raises(psycopg.errors.DivisionByZero):
            await migrate(connection, broken)
    assert execute(config, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == [(0,)]


# ---------------------------------------------------------------- servers that refuse


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"dbname": "nobody_made_this"}, "does not exist"),
        ({"user": "nobody"}, "does not exist"),
        ({"user": "with_password", "password": "wrong"}, "password authentication failed"),
        ({"sslmode": "require"}, "does not support SSL"),
    ],
)
async def test_server_that_refuses_for_good_is_not_asked_again(
    config: PostgresConfig, local_url: str, change: dict[str, str], reason: str
) -> None:
    """The reason is the server's, and the setting is named."""
    with psycopg.connect(local_url, autocommit=True) as connection, connection.transaction():
        if not connection.execute("SELECT 1 FROM pg_roles WHERE rolname = 'with_password'").fetchall():
            connection.execute("CREATE ROLE with_password LOGIN PASSWORD 'right'")
    url = psycopg.conninfo.make_conninfo(local_url, **change)
    with trio.fail_after(20):
        with pytest.raises(SettingsError, match=f"PROMPTPIPE_DATABASE_URL: .*{reason}"):
            async with opened(replace(config, url=url)):
                pass


async def test_malformed_url_is_a_settings_error() -> None:
    """Libpq says what is wrong with it."""
    with pytest.raises(SettingsError, match="PROMPTPIPE_DATABASE_URL"):
        async with opened(PostgresConfig(url="postgresql://127.0.0.1:1/x?no_such_option=1")):
            pass


async def test_server_that_is_not_there_yet_is_waited_for(server: Server) -> None:
    """However long; the service starts when it comes."""
    server.stop()
    begun = False

    async def start() -> None:
        nonlocal begun
        async with opened(PostgresConfig(url=server.url)) as store:
            await enqueue(store)
            begun = True

    async with trio.open_nursery() as nursery:
        nursery.start_soon(start)
        with trio.move_on_after(1.5):  # enough for two attempts in vain
            await eventually(lambda: begun)
        server.start()
    assert begun


# ---------------------------------------------------------------- weather


async def test_restart_of_the_server_is_survived(server: Server) -> None:
    """Calls fail with a word for it while it is away, and work again once it is back."""
    async with opened(PostgresConfig(url=server.url)) as store:
        await enqueue(store)
        server.stop()
        with pytest.raises(StoreUnavailableError):
            await store.probe()
        server.start()
        await store.probe()
        assert (await store.jobs.get(JobId("a"))).kind == "k"


FAILING: LiteralString = """
CREATE SEQUENCE failures;
CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF nextval('failures') <= {times} THEN RAISE EXCEPTION 'on purpose' USING ERRCODE = '{code}'; END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER failing BEFORE INSERT ON jobs FOR EACH ROW EXECUTE FUNCTION fail();
"""
"""Makes the first inserts fail: a sequence counts on though its transaction is rolled back."""


def let_inserts_fail(config: PostgresConfig, code: str, times: int) -> None:
    execute(config, FAILING.replace("{code}", code).replace("{times}", str(times)))


@pytest.mark.parametrize(
    ("settings", "mode", "scans"),
    [
        ({}, "force_generic_plan", "off"),
        ({"pooled": True}, "auto", "on"),
        ({"options": "-c plan_cache_mode=auto -c search_path=public"}, "auto", "off"),
    ],
)
async def test_plans_are_those_that_were_looked_at(
    config: PostgresConfig, settings: dict[str, Any], mode: str, scans: str
) -> None:
    """Unless the connection is somebody else's too, or as far as the operator says otherwise."""
    url = make_conninfo(config.url, options=settings.get("options"))
    names = "current_setting('plan_cache_mode') AS mode, current_setting('enable_seqscan') AS scans"
    async with await replace(config, url=url, pooled="pooled" in settings).connect() as connection:
        [row] = await (await connection.execute(f"SELECT {names}")).fetchall()
    assert row == {"mode": mode, "scans": scans}


@pytest.mark.parametrize("code", ["40001", "40P01"])
async def test_victims_of_others_are_tried_again(config: PostgresConfig, code: str) -> None:
    """Serialization failures and deadlocks are the store's own business."""
    metrics = PrometheusMetrics([])
    async with opened(config, metrics) as store:
        let_inserts_fail(config, code, 3)
        await enqueue(store)
        assert execute(config, "SELECT last_value FROM failures") == [(4,)]
    assert counted(metrics)["store_retries_total"] == 3


async def test_who_is_a_victim_every_time_is_told(config: PostgresConfig) -> None:
    """A bounded number of times."""
    async with opened(config) as store:
        let_inserts_fail(config, "40001", 1000)
        with pytest.raises(StoreUnavailableError, match="others were in the way 8 times"):
            await enqueue(store)


@pytest.mark.parametrize("code", ["53100", "53200", "58030", "57014"])
async def test_full_and_failing_disks_are_weather(config: PostgresConfig, code: str) -> None:
    """Out of disk, out of memory, an I/O error, a canceled statement: nothing is stored, and it may work later."""
    async with opened(config) as store:
        let_inserts_fail(config, code, 1)
        with pytest.raises(StoreUnavailableError):
            await enqueue(store)
        assert execute(config, "SELECT count(*) FROM jobs") == [(0,)]
        await enqueue(store)


async def test_too_many_connections_are_weather(server: Server) -> None:
    """The server has none left for us; when it has, we go on."""
    async with opened(PostgresConfig(url=server.url)) as store:
        with psycopg.connect(server.url, autocommit=True) as admin:
            admin.execute("CREATE ROLE ordinary LOGIN")
            admin.execute("GRANT ALL ON ALL TABLES IN SCHEMA public TO ordinary")
            admin.execute("GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO ordinary")
        await store.probe()
        ordinary = psycopg.conninfo.make_conninfo(server.url, user="ordinary")
        with psycopg.connect(server.url, autocommit=True) as admin:
            admin.execute("ALTER ROLE ordinary CONNECTION LIMIT 0")
        with pytest.raises(StoreUnavailableError, match="too many connections"):
            await check_schema(PostgresConfig(url=ordinary))
        with psycopg.connect(server.url, autocommit=True) as admin:
            admin.execute("ALTER ROLE ordinary CONNECTION LIMIT 5")
        assert await check_schema(PostgresConfig(url=ordinary)) == []


async def test_slow_database_is_weather_after_the_timeout(config: PostgresConfig) -> None:
    """Whoever waits is told; nothing of the transaction remains, in the server neither."""
    async with opened(replace(config, timeout=0.3)) as store:
        await store.probe()
        with psycopg.connect(config.url) as other:
            other.execute("LOCK TABLE jobs")
            with pytest.raises(StoreUnavailableError, match=r"no answer within 0\.3 s"):
                await enqueue(store)
            waiting = other.execute("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'").fetchall()
            assert waiting == [(0,)]
        await enqueue(store)


async def test_busy_pool_is_weather_after_the_timeout(config: PostgresConfig) -> None:
    """All connections wait for somebody; the one who comes then is told in time."""
    async with opened(replace(config, timeout=0.5, pool_size=2)) as store:
        with psycopg.connect(config.url) as other:
            other.execute("LOCK TABLE jobs")
            failed = 0

            async def wait() -> None:
                nonlocal failed
                with pytest.raises(StoreUnavailableError):
                    await enqueue(store)
                failed += 1

            async with trio.open_nursery() as nursery:
                for _ in range(5):
                    nursery.start_soon(wait)
            assert failed == 5
        await enqueue(store)


async def test_statements_prepared_before_a_migration_are_given_up(config: PostgresConfig) -> None:
    """Another instance may add a column at any time."""
    async with opened(replace(config, pool_size=2)) as store:
        await enqueue(store)
        for _ in range(10):  # enough for psycopg to prepare it
            await store.jobs.get(JobId("a"))
        execute(config, "ALTER TABLE jobs ADD COLUMN from_the_future text")
        assert (await store.jobs.get(JobId("a"))).kind == "k"
        for _ in range(10):
            await store.jobs.cancel(JobId("a"))
        execute(config, "ALTER TABLE job_history ADD COLUMN from_the_future text")
        assert (await store.jobs.cancel(JobId("a"))).kind == "k"


async def test_read_only_server_is_weather_and_its_connection_is_given_up(config: PostgresConfig) -> None:
    """A primary that has become a standby refuses writes; the next attempt connects anew."""
    async with opened(replace(config, pool_size=1)) as store:
        await store.probe()
        [(before,)] = execute(config, "SELECT max(pid) FROM pg_stat_activity WHERE application_name = 'promptpipe'")
        let_inserts_fail(config, "25006", 1)
        with pytest.raises(StoreUnavailableError):
            await enqueue(store)
        await enqueue(store)
        [(after,)] = execute(config, "SELECT max(pid) FROM pg_stat_activity WHERE application_name = 'promptpipe'")
        assert before != after


@pytest.mark.slow
async def test_commits_that_wait_for_a_standby_are_weather(server: Server) -> None:
    """Nobody is told that it has happened, nobody sees it, and a probe fails too."""
    config = PostgresConfig(url=server.url, timeout=0.3)
    await migrate_postgres(config)
    server.settings |= {"synchronous_commit": "on", "synchronous_standby_names": "*"}
    server.restart(signal.SIGINT)
    async with opened(config) as store:
        with pytest.raises(StoreUnavailableError):
            await enqueue(store)
        with pytest.raises(StoreUnavailableError):
            await store.probe()
        assert execute(config, "SELECT count(*) FROM jobs") == [(0,)]
