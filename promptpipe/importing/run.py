"""An import from its beginning, or from where it was interrupted, to its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from promptpipe.importing.tables import TABLES
from promptpipe.model.errors import PreconditionError
from promptpipe.model.importing import ImportPage, TableProgress

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from promptpipe.importing.planning import Planner
    from promptpipe.importing.source import Source
    from promptpipe.importing.tables import Table
    from promptpipe.ports.importing import ImportStore

PAGE = 200
"""Rows in one commit."""

log = structlog.get_logger(__name__)


class Import:
    """Brings over all tables of a source, by pages of *page* rows. Without a *store* nothing arrives.

    *told* hears how far a table has come, and how many rows it has.
    """

    def __init__(
        self,
        source: Source,
        planner: Planner,
        store: ImportStore | None,
        *,
        page: int = PAGE,
        told: Callable[[TableProgress, int], None] = lambda _progress, _rows: None,
    ) -> None:
        self._source = source
        self._planner = planner
        self._store = store
        self._page = page
        self._told = told

    async def run(self) -> list[TableProgress]:
        """Import what is not here yet, and return how it went, table by table.

        One that was interrupted goes on; after one that has come to its end, the next begins anew, for rows that have
        been added. Raise `PreconditionError` when a service works on the database, or somebody else imports the same.
        """
        if self._store is not None and await self._store.in_use():
            raise PreconditionError("a service works on the database: stop it, and import before it starts again")
        known = {} if self._store is None else await self._begin(self._store)
        return [await self._import(table, known.get(table.name, TableProgress(table=table.name))) for table in TABLES]

    async def _begin(self, store: ImportStore) -> Mapping[str, TableProgress]:
        """Return how far an import that was interrupted has come; begin one where there is none."""
        source = self._source
        known = await store.progress(source.fingerprint)
        if all(progress.finished for progress in known.values()):
            await store.begin(source.fingerprint, source.shown, [table.name for table in TABLES])
            return {}
        log.info("going on with an import", source=source.shown)
        return known

    async def _import(self, table: Table, progress: TableProgress) -> TableProgress:
        rows = await self._source.count(table)
        while not progress.finished:
            progress = await self._next(table, progress)
            self._told(progress, rows)
        return progress

    async def _next(self, table: Table, before: TableProgress) -> TableProgress:
        """Bring over a page, and return how far the table is then."""
        old = await self._source.page(table, before.position, self._page)
        sheet = await self._planner.sheet(table, [placed.row for placed in old])
        after = before.after(
            position=old[-1].position if old else None,
            finished=len(old) < self._page,
            read=len(old),
            imported=sheet.imported,
            skipped=sheet.skipped,
            problems=sheet.problems,
        )
        page = ImportPage(source=self._source.fingerprint, before=before, after=after, rows=tuple(sheet.rows))
        if self._store is not None and not await self._store.apply(page):
            raise PreconditionError("somebody else works on the database: import again when nobody does")
        for problem in sheet.problems:
            log.warning("not imported", table=table.name, row=problem.row, reason=problem.reason)
        return after
