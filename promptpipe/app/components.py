"""The concrete classes of the product, opened and closed with the service."""

from __future__ import annotations

import random
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from promptpipe.app.conversation import conversation_settings, open_generator
from promptpipe.app.extensions import Extensions, load_extensions
from promptpipe.channels.whatsapp import WhatsAppChannel, WhatsAppConfig
from promptpipe.config import PREFIX, extension_settings
from promptpipe.flows.conversation import ConversationFlow, ConversationFlowRecovery
from promptpipe.metrics import PrometheusMetrics
from promptpipe.model.errors import SettingsError
from promptpipe.model.ids import IdSource, WorkerId
from promptpipe.model.messages import InDoubtPolicy, InDoubtRules
from promptpipe.ports.extensions import ExtensionContext
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
    """What the service is made of, before it runs. A composition root of another kind may replace any of it.

    People are enrolled into the first of the *flows*. *packages* says what was added by whom.
    """

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
    packages: Sequence[str] = ()


@asynccontextmanager
async def open_components(settings: Settings, *, read_only: bool = False) -> AsyncIterator[Components]:
    """Open the database, perhaps only to be read, and the channels that *settings* name, while the context lasts."""
    clock = SystemClock()
    chance = random.SystemRandom()
    new_id = IdSource(clock.now, chance.getrandbits)
    worker = WorkerId(new_id())
    wakeups = Wakeups()
    metrics = PrometheusMetrics(settings.queue_names)
    async with open_generator(settings, metrics) as generator:
        # First, so that one that cannot be used stops the start before anything is touched.
        extensions = _extensions(settings, clock, new_id, generator)
        flows = _enrolled_first(settings.enroll_flow, extensions.flows)
        async with (
            open_store(settings, clock, new_id, worker, wakeups, metrics, read_only=read_only) as store,
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
                flows=flows,
                recoverables=extensions.recoverables,
                metrics=metrics,
                job_kinds={kind.name: kind for kind in extensions.job_kinds},
                generator=generator,
                handlers=extensions.response_handlers,
                prompt_generators=extensions.prompt_generators,
                packages=extensions.packages,
            )


def _extensions(settings: Settings, clock: Clock, new_id: IdSource, generator: TextGenerator | None) -> Extensions:
    """Return what the service brings with it, and what installed packages add."""
    conversation = conversation_settings(settings)
    ours = Extensions(
        flows=(ConversationFlow(conversation, generator),),
        recoverables=(ConversationFlowRecovery(conversation),),
        job_kinds=(NOOP,),
    )

    def context_for(package: str) -> ExtensionContext:
        return ExtensionContext(clock=clock, new_id=new_id, settings=extension_settings(package), generator=generator)

    return load_extensions(ours, context_for)


def _enrolled_first(name: str, flows: Sequence[Flow]) -> list[Flow]:
    """Return *flows*, that of the type *name* before the others; raise `SettingsError` when there is none."""
    if not any(flow.flow_type == name for flow in flows):
        known = ", ".join(flow.flow_type for flow in flows)
        raise SettingsError(f"{PREFIX}ENROLL_FLOW: no flow is called {name}; there are: {known}")
    return sorted(flows, key=lambda flow: flow.flow_type != name)


def open_store(
    settings: Settings,
    clock: Clock,
    new_id: IdSource,
    worker: WorkerId,
    wakeups: Wakeups,
    metrics: Metrics,
    *,
    read_only: bool = False,
) -> AbstractAsyncContextManager[Store]:
    """Return what opens the database that the settings name, perhaps only to be read."""
    rules = InDoubtRules(settings.in_doubt_wait, InDoubtPolicy(settings.in_doubt_policy))
    path = settings.sqlite_path
    if path is not None:
        return open_sqlite_store(
            path,
            clock=clock,
            ids=new_id,
            worker=worker,
            rules=rules,
            runners=wakeups,
            metrics=metrics,
            read_only=read_only,
        )
    from promptpipe.storage import postgres  # noqa: PLC0415  on a file the service starts faster without it

    return postgres.open_postgres_store(
        _postgres_config(settings),
        ids=new_id,
        worker=worker,
        rules=replace(rules, linger=settings.whatsapp.send_timeout),
        runners=wakeups,
        metrics=metrics,
        read_only=read_only,
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
