"""A job that kills every process it runs in: it ends, and its neighbours do not suffer."""

from __future__ import annotations

import signal
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from promptpipe.client import open_channel, v1
from promptpipe.runtime.clock import SystemClock
from tests.faults.cluster import open_cluster
from tests.faults.kinds import TALLY
from tests.faults.spawner import start_forked
from tests.support.eventually import eventually
from tests.support.postgres import as_url, drop_database, new_database
from tests.support.service import Home, open_service

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.service import Service

pytestmark = pytest.mark.slow

NEIGHBOURS = 30
MAX_ATTEMPTS = 3
SETTINGS = {"LEASE": "3", "WHATSAPP__SEND_TIMEOUT": "1", "JOB_CONCURRENCY": "8"}


async def enqueue(service: Service) -> str:
    """Enqueue the killer among its neighbours, all due at once in a moment, and return its id."""
    run_at = SystemClock().now() + timedelta(seconds=1)
    async with open_channel(f"127.0.0.1:{service.grpc_port}") as channel:
        jobs = v1.JobServiceStub(channel)
        for number in range(NEIGHBOURS):
            await jobs.enqueue_job(v1.EnqueueJobRequest(kind="tallied", run_at=run_at, dedupe_key=f"{number}"))
            if number == NEIGHBOURS // 2:
                killer = v1.EnqueueJobRequest(kind="deadly", run_at=run_at, max_attempts=MAX_ATTEMPTS, dedupe_key="k")
                answer = await jobs.enqueue_job(killer)
    assert answer.job is not None
    return answer.job.id


def ended(service: Service) -> bool:
    """Return whether no job is left but the marks that others have made."""
    return service.rows("SELECT count(*) FROM jobs WHERE queue <> ?", TALLY) == [(0,)]


def check(service: Service, killer: str) -> None:
    """Check that the killer has failed, with a word on each attempt that left one, and all others ran once."""
    query = "SELECT status, attempt, last_error FROM job_history WHERE id = ?"
    [(status, attempt, error)] = service.rows(query, killer)
    assert (status, attempt) == ("failed", MAX_ATTEMPTS)
    assert error.startswith("OutOfAttempts: its worker vanished")
    errors = service.rows("SELECT attempt, type FROM job_errors WHERE job_id = ? ORDER BY attempt", killer)
    assert errors == [(1, "RuntimeError"), (MAX_ATTEMPTS, "OutOfAttempts")]
    others = service.rows("SELECT status, count(*) FROM job_history WHERE id <> ? GROUP BY status", killer)
    assert others == [("done", NEIGHBOURS)]
    assert service.rows("SELECT count(*) FROM jobs WHERE queue = ?", TALLY) == [(NEIGHBOURS,)]


async def test_job_that_kills_its_process_ends_as_failed(tmp_path: Path) -> None:
    """Started again after each death, the service is rid of it when its attempts are used up."""
    async with open_service(Home.on_sqlite(tmp_path), **SETTINGS) as (service, _):
        start_forked(service, "--deadly")
        await service.wait_ready()
        killer = await enqueue(service)
        for _ in range(MAX_ATTEMPTS - 1):  # the first attempt failed with a word
            assert await service.wait_ended() == -signal.SIGKILL, service.log()
            start_forked(service, "--deadly")
        await eventually(lambda: ended(service))
        check(service, killer)
        assert await service.stop() == 0


async def test_job_that_kills_instances_takes_no_more_than_its_attempts(postgres_url: str, tmp_path: Path) -> None:
    """Nobody starts the dead again: the last instance is rid of it, and has done what the others could not."""
    url = new_database(postgres_url)
    async with open_cluster(tmp_path, as_url(url), instances=MAX_ATTEMPTS, **SETTINGS) as cluster:
        for instance in cluster.instances:
            start_forked(instance, "--deadly")
        for instance in cluster.instances:
            await instance.wait_ready()
        first = cluster.instances[0]
        killer = await enqueue(first)
        await eventually(lambda: ended(first), within=40.0)
        check(first, killer)
        alive = [instance for instance in cluster.instances if instance.returncode is None]
        assert len(alive) == 1
        assert await alive[0].stop() == 0
    drop_database(postgres_url, url)
