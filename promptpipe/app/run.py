"""From the start to the end of the service."""

from __future__ import annotations

import gc
from functools import partial
from typing import TYPE_CHECKING

import structlog
import trio

from promptpipe import __version__
from promptpipe.app.components import apply_migrations, find_migrations, open_components
from promptpipe.app.parts import (
    make_exclusive_recovery,
    make_http_server,
    make_instance_watch,
    make_recovery,
    make_rpc_server,
    make_runners,
    make_worker,
)
from promptpipe.app.progress import Progress
from promptpipe.config import split_bind
from promptpipe.model.errors import PreconditionError, StoreUnavailableError
from promptpipe.net import listen
from promptpipe.runtime.supervisor import Supervisor, stop_on_signal, stop_with_process
from promptpipe.services.readiness import Readiness

if TYPE_CHECKING:
    from datetime import datetime

    from promptpipe.app.components import Components
    from promptpipe.config import Settings
    from promptpipe.model.ids import WorkerId
    from promptpipe.model.recovery import ComponentReport, RecoveryReport
    from promptpipe.ports.store import Store
    from promptpipe.runtime.exclusive_recovery import ExclusiveRecovery

GIVE_BACK_SECONDS = 5.0
"""How long giving leases back may take at the end."""

log = structlog.get_logger(__name__)


def settle_memory() -> None:
    """Have the garbage collector look at what is made from now on, and less often: 10 to 20 % of the time of a job.

    By default it goes through the code and schemas of all imports again and again.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


async def serve(settings: Settings, *, with_process: int | None = None) -> None:
    """Run the service until a signal ends it, or the process *with_process* has ended."""
    async with open_components(settings) as components:
        await _refuse_unfinished_import(components.store)
        await run(components, with_process=with_process)


async def _refuse_unfinished_import(store: Store) -> None:
    """Raise `PreconditionError` when an import was interrupted: somebody's conversation may have arrived in part."""
    places = await store.imports.unfinished()
    if places:
        raise PreconditionError(
            f"the import from {', '.join(places)} was interrupted: run it again before the service starts,"
            " or `promptpipe import --give-up`"
        )


async def migrate(settings: Settings) -> None:
    """Bring the database's schema up to date, as starting the service would, and log what was done."""
    for migration in await apply_migrations(settings):
        log.info("migration applied", name=migration.name)
    log.info("the schema is up to date", database=settings.database_shown)


async def check(settings: Settings) -> RecoveryReport:
    """Return what recovery would find, and change nothing; the service may be running or not."""
    async with open_components(settings, read_only=True) as components:
        progress = Progress("check", components.clock)
        with progress.shown():
            return await make_recovery(components, look_only=True, progress=progress.told).look()


async def missing_migrations(settings: Settings) -> list[str]:
    """Return the names of the migrations that are yet to be applied; raise `SchemaError` for a newer schema."""
    return [migration.name for migration in await find_migrations(settings)]


async def run(components: Components, *, with_process: int | None = None) -> None:
    """Recover, run every part, and drain them at a signal; then give back whatever is still held.

    The order matters: repairs, so that no lease of a dead process stands; runners; the server accepts; the service is
    ready; and then, while it works, the components recover.
    """
    settings, store = components.settings, components.store
    supervisor = Supervisor(grace=settings.shutdown_grace)
    readiness = Readiness()
    worker = make_worker(components, readiness)
    progress = Progress("recovery", components.clock)
    manager = make_recovery(components, worker.persistence.until_committed, progress=progress.told)
    recovery = make_exclusive_recovery(components, worker, manager)
    instances = make_instance_watch(components, worker, manager, readiness)
    with (
        listen(*split_bind(settings.http_bind), "PROMPTPIPE_HTTP_BIND") as http,
        listen(*split_bind(settings.grpc_bind), "PROMPTPIPE_GRPC_BIND") as grpc,
    ):
        log.info(
            "starting",
            version=__version__,
            http=settings.http_bind,
            grpc=settings.grpc_bind,
            channel=settings.channel.value,
            extensions=list(components.packages),
        )
        parts = [
            *make_runners(components, worker),
            make_http_server(components, readiness, http),
            make_rpc_server(components, readiness, recovery, grpc),
        ]
        settle_memory()
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(stop_on_signal, supervisor.stop)
                if with_process is not None:
                    await nursery.start(stop_with_process, with_process, supervisor.stop)
                for task in store.background:
                    nursery.start_soon(task)
                await nursery.start(instances.run)
                started_at = components.clock.now()
                repairs = await worker.persistence.until_committed(manager.repair)
                # Until this service is ready no status can arrive: what waits for one waits on.
                await worker.persistence.until_committed(store.recovery.restart_doubts)
                await supervisor.run(
                    parts,
                    before=[worker.keeper.run],
                    after=[
                        partial(readiness.run, store),
                        partial(_recover_components, recovery, started_at, repairs, progress),
                    ],
                    draining=readiness.drain,
                )
                nursery.cancel_scope.cancel()
        finally:
            with trio.move_on_after(GIVE_BACK_SECONDS, shield=True) as deadline:
                await _give_back(store, components.worker)
            if deadline.cancelled_caught:
                log.warning("leases not given back in time; the next start finds them stale")
    log.info("stopped")


async def _recover_components(
    recovery: ExclusiveRecovery, started_at: datetime, repairs: tuple[ComponentReport, ...], progress: Progress
) -> None:
    """Do what recovery does while the service works."""
    with progress.shown():
        report = await recovery.run_components(started_at, repairs)
    if report is None:
        log.info("recovery done by another instance")
        return
    for component in report.components:
        if component.restored or component.failed:
            log.warning(
                "component recovered",
                component=component.name,
                restored=component.restored,
                failed=component.failed,
                repairs=component.repairs[:3],
                failures=component.failures[:3],
            )
    log.info(
        "recovery finished",
        checked=sum(component.checked for component in report.components),
        restored=sum(component.restored for component in report.components),
        failed=report.failed,
        seconds=round(sum(component.seconds for component in report.components), 3),
    )


async def _give_back(store: Store, worker: WorkerId) -> None:
    """Release what this process still holds: claims canceled in flight, work that outlasted the grace."""
    try:
        count = await store.leases.give_back(worker)
        log.info("leases given back", count=count)
    except StoreUnavailableError as error:
        log.warning("leases not given back; the next start finds them stale", error=str(error))
