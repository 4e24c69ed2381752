"""Importing from the first PromptPipe: the source, our database, and what is between."""

from __future__ import annotations

import random
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from promptpipe.app.components import apply_migrations, find_migrations, open_store
from promptpipe.app.conversation import conversation_settings
from promptpipe.app.progress import Progress
from promptpipe.channels.whatsapp import WhatsAppChannel
from promptpipe.importing import Import, Planner, Target, open_source
from promptpipe.model.ids import IdSource, WorkerId
from promptpipe.ports.metrics import SILENT
from promptpipe.runtime.clock import SystemClock
from promptpipe.runtime.wakeups import Wakeups

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Mapping, Sequence

    from promptpipe.config import Settings
    from promptpipe.model.ids import ParticipantId
    from promptpipe.model.importing import TableProgress
    from promptpipe.ports.importing import ImportView, Known


async def import_from(settings: Settings, url: str, *, dry_run: bool = False) -> Sequence[TableProgress]:
    """Import the database at *url* into that of the settings, and return how it went, table by table.

    A *dry_run* only says how it would go. Raise `SettingsError` when there is nothing to import from,
    `StoreInUseError` or `PreconditionError` while a service works on our database.
    """
    clock = SystemClock()
    ids = IdSource(clock.now, random.SystemRandom().getrandbits)
    target = Target(
        channel=WhatsAppChannel.name,
        number_id=settings.whatsapp_in_use().phone_number_id or "",
        conversation=conversation_settings(settings),
    )
    progress = Progress("import", clock)

    def told(table: TableProgress, rows: int) -> None:
        counts = {"imported": table.imported, "skipped": table.skipped, "problems": table.problems}
        progress.tell(table.table, table.read, rows, **counts)

    async with open_source(url) as source:
        if dry_run:
            async with _view(settings, clock, ids) as view:
                with progress.shown():
                    return await Import(source, Planner(source, view, target, clock), None, told=told).run()
        await apply_migrations(settings)
        async with open_store(settings, clock, ids, WorkerId(ids()), Wakeups(), SILENT) as store:
            planner = Planner(source, store.imports, target, clock)
            with progress.shown():
                return await Import(source, planner, store.imports, told=told).run()


async def give_up(settings: Settings) -> None:
    """Forget imports into our database that were interrupted; raise as `import_from`."""
    clock = SystemClock()
    ids = IdSource(clock.now, random.SystemRandom().getrandbits)
    await apply_migrations(settings)
    async with open_store(settings, clock, ids, WorkerId(ids()), Wakeups(), SILENT) as store:
        await store.imports.give_up()


@asynccontextmanager
async def _view(settings: Settings, clock: SystemClock, ids: IdSource) -> AsyncIterator[ImportView]:
    """Open our database to be looked at, if it has a schema yet."""
    missing = await find_migrations(settings)
    if missing and missing[0].number == 1:
        yield _Nothing()
        return
    async with open_store(settings, clock, ids, WorkerId(ids()), Wakeups(), SILENT, read_only=True) as store:
        yield store.imports


class _Nothing:
    """`ImportView` of a database that is yet to be made."""

    async def owners(self, channel: str, numbers: Collection[str]) -> Mapping[str, ParticipantId]:
        """See `ImportView.owners`."""
        del channel, numbers
        await trio.lowlevel.checkpoint()
        return {}

    async def known(self, what: Known, ids: Collection[str]) -> frozenset[str]:
        """See `ImportView.known`."""
        del what, ids
        await trio.lowlevel.checkpoint()
        return frozenset()
