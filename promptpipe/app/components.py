"""The concrete classes of the product, opened and closed with the service."""

from __future__ import annotations

import random
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from promptpipe.app.conversation import conversation_settings, open_generator
from promptpipe.channels.whatsapp import WhatsAppChannel, WhatsAppConfig
from promptpipe.flows.conversation import ConversationFlow, ConversationFlowRecovery
from promptpipe.metrics import PrometheusMetrics
from promptpipe.model.ids import IdSource, WorkerId
from promptpipe.model.messages import InDoubtPolicy, InDoubtRules
from promptpipe.runtime.clock import SystemClock
from promptpipe.runtime.wakeups import Wakeups
from promptpipe.services.jobs import NOOP
from promptpipe.storage.sqlite import check_sqlite_schema, migrate_sqlite, open_sqlite_store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from promptpipe.config import Settings
    from promptpipe.flows.flow import Flow
    from promptpipe.flows.prompts import PromptGenerator, ResponseHandler
    from promptpipe.ports.channel import Channel
    from promptpipe.ports.clock import Clock
    from promptpipe.ports.generator import TextGenerator
    from promptpipe.ports.jobs import JobKind
    from promptpipe.ports.metrics import Metrics
    from promptpipe.ports.store import Store
    from promptpipe.recovery import Recoverable
    from promptpipe.storage.migrations import Migration
    from promptpipe.storage.postgres import PostgresConfig


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
    metrics: PrometheusMetrics = field(default_factory=lambda: PrometheusMetrics(()))
    job_kinds: Mapping[str, JobKind[Any]] = field(default_factory=lambda: {NOOP.name: NOOP})
    generator: TextGenerator | None = None
    handlers: Sequence[ResponseHandler] = ()
    prompt_generators: Sequence[PromptGenerator] = ()


@asynccontextmanager
async def open_components(settings: Settings) -> AsyncIterator[Components]:
    """Open the database and the channels that *settings* name; close them with the context."""
    clock = SystemClock()
    chance = random.SystemRandom()
    new_id = IdSource(clock.now, chance.getrandbits)
    worker = WorkerId(new_id())
    wakeups = Wakeups()
    metrics = PrometheusMetrics(settings.queue_names)
    conversation = conversation_settings(settings)
    async with (
        _open_store(settings, clock, new_id, worker, wakeups, metrics) as store,
        WhatsAppChannel.opened(_whatsapp_config(settings)) as whatsapp,
        open_generator(settings, metrics) as generator,
    ):
        yield Components(
            settings=settings,
            clock=clock,
            new_id=new_id,
            worker=worker,
            wakeups=wakeups,
            store=store,
            channels={whatsapp.name: whatsapp},
            flows=[ConversationFlow(conversation, generator)],
            recoverables=[ConversationFlowRecovery(conversation)],
            metrics=metrics,
            generator=generator,
        )


def _open_store(
    settings: Settings, clock: Clock, new_id: IdSource, worker: WorkerId, wakeups: Wakeups, metrics: Metrics
) -> AbstractAsyncContextManager[Store]:
    """Return what opens the database that the settings name."""
    rules = InDoubtRules(settings.in_doubt_wait, InDoubtPolicy(settings.in_doubt_policy))
    path = settings.sqlite_path
    if path is not None:
        return open_sqlite_store(
            path, clock=clock, ids=new_id, worker=worker, rules=rules, runners=wakeups, metrics=metrics
        )
    from promptpipe.storage import postgres  # noqa: PLC0415  on a file the service starts faster without it

    return postgres.open_postgres_store(
        _postgres_config(settings),
        ids=new_id,
        worker=worker,
        rules=replace(rules, linger=settings.whatsapp.send_timeout),
        runners=wakeups,
        metrics=metrics,
    )


async def apply_migrations(settings: Settings) -> Sequence[Migration]:
    """Bring the schema up to date and return the migrations applied."""
    path = settings.sqlite_path
    if path is not None:
        return await migrate_sqlite(path, SystemClock())
    from promptpipe.storage import postgres  # noqa: PLC0415

    return await postgres.migrate_postgres(_postgres_config(settings))


async def find_migrations(settings: Settings) -> Sequence[Migration]:
    """Return the migrations that are yet to be applied, and change nothing."""
    path = settings.sqlite_path
    if path is not None:
        return await check_sqlite_schema(path)
    from promptpipe.storage import postgres  # noqa: PLC0415

    return await postgres.check_schema(_postgres_config(settings))


def _postgres_config(settings: Settings) -> PostgresConfig:
    from promptpipe.storage import postgres  # noqa: PLC0415

    return postgres.PostgresConfig(
        url=settings.database_url,
        pool_size=settings.postgres.pool_size,
        timeout=settings.postgres.timeout,
        pooled=settings.postgres.pooler == "transaction",
    )


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
