"""DBOS: a queue without limits, and workflows that do nothing. It polls, and enqueues one by one."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from dbos import DBOS, DBOSClient

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator

    from bench.peers.peer import Handled

OPTIONS: Any = {"workflow_name": "noop", "queue_name": "q", "app_version": "1"}


@dataclass(frozen=True)
class Dbos:
    """`bench.peers.peer.Peer` of DBOS."""

    polling_seconds: float
    producers: int = 8
    pool: int = 20

    name: ClassVar[str] = "DBOS"
    packages: ClassVar[tuple[str, ...]] = ("dbos", "sqlalchemy")
    number: ClassVar[int] = 1_000
    unfinished: ClassVar[str] = (
        "SELECT count(*) FROM dbos.workflow_status WHERE status IN ('ENQUEUED', 'PENDING') AND queue_name = 'q'"
    )

    def _configure(self, url: str, handled: Callable[[str | None], None] | None = None) -> None:
        DBOS(
            config={
                "name": "bench",
                "system_database_url": _sqlalchemy(url),
                "sys_db_pool_size": self.pool,
                "log_level": "ERROR",
                "application_version": "1",
                "run_admin_server": False,
            }
        )

        @DBOS.workflow(name="noop")
        async def noop(payload: str | None = None) -> None:
            if handled is not None:
                handled(payload)

    def set_up(self, url: str) -> None:
        self._configure(url)
        DBOS.launch()
        DBOS.register_queue("q", polling_interval_sec=self.polling_seconds)
        DBOS.destroy()

    def enqueue(self, url: str, number: int) -> None:
        client = DBOSClient(system_database_url=_sqlalchemy(url))
        with ThreadPoolExecutor(self.producers) as pool:
            list(pool.map(lambda _: client.enqueue(OPTIONS), range(number)))
        client.destroy()

    @contextlib.contextmanager
    def enqueuing(self, url: str) -> Iterator[Callable[[str], Any]]:
        client = DBOSClient(system_database_url=_sqlalchemy(url))
        yield lambda payload: client.enqueue(OPTIONS, payload)
        client.destroy()

    def work(self, url: str, handled: Handled, go: Callable[[], None], stop: threading.Event) -> None:
        self._configure(url, handled)
        go()
        DBOS.launch()
        stop.wait()
        DBOS.destroy(workflow_completion_timeout_sec=2)


def _sqlalchemy(url: str) -> str:
    return url.replace("postgresql://", "postgresql+psycopg://")
