"""The composition root: it alone knows the concrete classes, and puts them together."""

from __future__ import annotations

import random
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

import structlog
import trio

from promptpipe import __version__
from promptpipe.channels.whatsapp import WhatsAppChannel, WhatsAppConfig
from promptpipe.config import split_bind
from promptpipe.flows.conversation import ConversationFlow, ConversationFlowRecovery, ConversationSettings
from promptpipe.flows.registry import FlowRegistry
from promptpipe.model.decisions import Hook
from promptpipe.model.errors import StoreUnavailableError
from promptpipe.model.ids import IdSource, WorkerId
from promptpipe.model.inbound import Enrollment
from promptpipe.model.messages import InDoubtPolicy, InDoubtRules
from promptpipe.model.recovery import RecoveryReport
from promptpipe.recovery import RecoveryManager, RecoveryRegistry
from promptpipe.runtime.clock import SystemClock
from promptpipe.runtime.job_runner import JobRunner
from promptpipe.runtime.lease_keeper import LeaseKeeper
from promptpipe.runtime.mailbox_runner import MailboxRunner
from promptpipe.runtime.outbox_sender import OutboxSender
from promptpipe.runtime.persistence import Persistence
from promptpipe.runtime.supervisor import Supervisor, stop_on_signal, stop_with_process
from promptpipe.runtime.wakeups import Wakeups
from promptpipe.runtime.worker import Worker
from promptpipe.services.conversations import Conversations
from promptpipe.services.inbound import Inbound
from promptpipe.services.readiness import Readiness
from promptpipe.storage.sqlite import open_sqlite_store
from promptpipe.web.app import make_app
from promptpipe.web.server import HttpServer, listen

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Mapping, Sequence
    from datetime import datetime

    from promptpipe.config import Settings
    from promptpipe.flows.flow import Flow
    from promptpipe.model.recovery import ComponentReport
    from promptpipe.ports.channel import Channel
    from promptpipe.ports.clock import Clock
    from promptpipe.ports.store import Store
    from promptpipe.recovery import Recoverable, ResponseHandlerRecoveryInfo, TimerRecoveryInfo
    from promptpipe.runtime.job_runner import JobHandler
    from promptpipe.runtime.supervisor import Part

GIVE_BACK_SECONDS = 5.0
"""How long giving leases back may take at the end."""

log = structlog.get_logger(__name__)


@dataclass(slots=True, kw_only=True)
class Components:
    """What the service is made of, before it runs. A composition root of another kind may replace any of it."""

    settings: Settings
    clock: Clock
    new_id: IdSource
    worker: WorkerId
    wakeups: Wakeups
    store: Store
    channels: Mapping[str, Channel]
    flows: Sequence[Flow]
    recoverables: Sequence[Recoverable]
    job_handlers: Mapping[str, JobHandler] = field(default_factory=dict)


@asynccontextmanager
async def open_components(settings: Settings) -> AsyncIterator[Components]:
    """Open the database and the channels that *settings* name; close them with the context."""
    clock = SystemClock()
    chance = random.SystemRandom()
    new_id = IdSource(clock.now, chance.getrandbits)
    worker = WorkerId(new_id())
    wakeups = Wakeups()
    async with (
        open_sqlite_store(
            settings.sqlite_path,
            clock=clock,
            ids=new_id,
            worker=worker,
            rules=InDoubtRules(settings.in_doubt_wait, InDoubtPolicy(settings.in_doubt_policy)),
            on_commit=wakeups,
        ) as store,
        WhatsAppChannel.opened(_whatsapp_config(settings)) as whatsapp,
    ):
        yield Components(
            settings=settings,
            clock=clock,
            new_id=new_id,
            worker=worker,
            wakeups=wakeups,
            store=store,
            channels={whatsapp.name: whatsapp},
            flows=[
                ConversationFlow(
                    ConversationSettings(
                        reminder_delay=timedelta(seconds=settings.daily_prompt_reminder_delay),
                        max_reply_age=timedelta(seconds=settings.max_reply_age),
                    )
                )
            ],
            recoverables=[ConversationFlowRecovery()],
        )


async def serve(settings: Settings, *, with_process: int | None = None) -> None:
    """Run the service until a signal ends it, or the process *with_process* has ended."""
    async with open_components(settings) as components:
        await run(components, with_process=with_process)


async def migrate(settings: Settings) -> None:
    """Bring the database's schema up to date, as starting the service would."""
    async with open_components(settings):
        log.info("the schema is up to date", database=settings.database_url)


async def run(components: Components, *, with_process: int | None = None) -> None:
    """Recover, run every part, and drain them at a signal; then give back whatever is still held.

    The order matters: repairs, so that no lease of a dead process stands; runners; the server accepts; the service is
    ready; and then, while it works, the components recover.
    """
    settings, store = components.settings, components.store
    supervisor = Supervisor(grace=settings.shutdown_grace)
    readiness = Readiness()
    worker = _worker(components, readiness)
    recovery = make_recovery(components)
    host, port = split_bind(settings.http_bind)
    listener = listen(host, port, "PROMPTPIPE_HTTP_BIND")
    log.info("starting", version=__version__, http=settings.http_bind, channel=settings.channel.value)
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(stop_on_signal, supervisor.stop)
            if with_process is not None:
                await nursery.start(stop_with_process, with_process, supervisor.stop)
            started_at = components.clock.now()
            repairs = await worker.persistence.until_committed(recovery.repair)
            # Until this service is ready no status can arrive: what waits for one waits on.
            await worker.persistence.until_committed(store.recovery.restart_doubts)
            await supervisor.run(
                _parts(components, worker, readiness, listener),
                before=[worker.keeper.run],
                after=[
                    partial(readiness.run, store),
                    partial(_recover_components, components, recovery, started_at, repairs),
                ],
                draining=readiness.drain,
            )
            nursery.cancel_scope.cancel()
    finally:
        listener.close()
        with trio.move_on_after(GIVE_BACK_SECONDS, shield=True) as deadline:
            await _give_back(store, components.worker)
        if deadline.cancelled_caught:
            log.warning("leases not given back in time; the next start finds them stale")
    log.info("stopped")


def make_recovery(components: Components) -> RecoveryManager:
    """Return the recovery manager with every recoverable registered, and callbacks that repair by way of the store."""
    store, clock = components.store.recovery, components.clock

    async def restore_timer(info: TimerRecoveryInfo) -> bool:
        # The participant's flow starts it again, under the mailbox's lease and with its state's version.
        remaining = info.remaining(clock.now())
        return await store.report_lost_timer(info.lost, info.flow_type, info.data_key, remaining)

    async def restore_handler(info: ResponseHandlerRecoveryInfo) -> bool:
        hook = Hook(
            participant_id=info.participant_id,
            handler_type=info.handler_type,
            flow_type=info.flow_type,
            expires_at=None if info.ttl is None else clock.now() + info.ttl,
        )
        return await store.register_hook(hook)

    registry = RecoveryRegistry(store)
    registry.register_timer_recovery(restore_timer)
    registry.register_handler_recovery(restore_handler)
    manager = RecoveryManager(registry, clock)
    for recoverable in components.recoverables:
        manager.register(recoverable)
    return manager


def _worker(components: Components, readiness: Readiness) -> Worker:
    chance = random.SystemRandom().random
    persistence = Persistence(chance, readiness.store_failed)
    keeper = LeaseKeeper(
        components.store.leases, components.clock, persistence, lease_seconds=components.settings.lease
    )
    return Worker(
        id=components.worker,
        clock=components.clock,
        keeper=keeper,
        wakeups=components.wakeups,
        persistence=persistence,
        random=chance,
    )


def _parts(components: Components, worker: Worker, readiness: Readiness, listener: socket.socket) -> list[Part]:
    settings, store = components.settings, components.store
    flows = FlowRegistry(components.flows)
    conversations = Conversations(flows, components.clock, components.new_id)
    enrollment = None
    if settings.auto_enroll:
        flow = components.flows[0]
        enrollment = Enrollment(flow.flow_type, flow.handler_type, flow.initial_state)
    inbound = {
        name: Inbound(channel, store.inbound, enrollment, readiness.store_failed)
        for name, channel in components.channels.items()
    }
    return [
        JobRunner(store.jobs, components.job_handlers, flows.job_kinds, worker, slots=settings.job_concurrency),
        MailboxRunner(store.mailboxes, conversations.decide, worker, slots=settings.mailbox_concurrency),
        OutboxSender(store.outbox, components.channels, worker, slots=settings.outbox_concurrency),
        HttpServer("HTTP server", make_app(inbound, readiness), listener, grace=settings.shutdown_grace),
    ]


async def _recover_components(
    components: Components,
    recovery: RecoveryManager,
    started_at: datetime,
    repairs: tuple[ComponentReport, ...],
) -> None:
    """Do what recovery does while the service works, and keep the report."""
    recovered = await recovery.recover_components()
    report = RecoveryReport(started_at=started_at, finished_at=components.clock.now(), components=repairs + recovered)
    try:
        await components.store.recovery.save_report(report)
    except StoreUnavailableError as error:
        log.warning("recovery report not kept", error=str(error))
    for component in report.components:
        if component.restored or component.failed:
            log.warning(
                "component recovered",
                component=component.name,
                restored=component.restored,
                failed=component.failed,
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


def _whatsapp_config(settings: Settings) -> WhatsAppConfig:
    """Return the channel's settings; `load_settings` has seen to it that none is missing."""
    whatsapp = settings.whatsapp_in_use()
    secrets = {
        name: value.get_secret_value()
        for name in ("access_token", "app_secret", "verify_token")
        if (value := getattr(whatsapp, name)) is not None
    }
    return WhatsAppConfig(
        api_url=whatsapp.api_url or "",
        phone_number_id=whatsapp.phone_number_id or "",
        send_timeout=whatsapp.send_timeout,
        **secrets,
    )
