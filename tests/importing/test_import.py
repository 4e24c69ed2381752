"""Importing: everything arrives once, as what it means here, whatever stood between."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from promptpipe.flows.conversation import ConversationFlow
from promptpipe.importing import Import, Planner, open_source
from promptpipe.importing.tables import TABLES
from promptpipe.model.errors import PreconditionError, StoreUnavailableError
from promptpipe.model.messages import MessageStatus
from tests.importing.arrived import ALL, ARRIVED, ada, contents
from tests.support.first import ADA, EARLIER, NUMBERS, TARGET, counts, imported, reasons
from tests.support.unreliable import Trouble
from tests.support.work import Working

if TYPE_CHECKING:
    from promptpipe.model.importing import ImportPage
    from promptpipe.ports.importing import ImportStore
    from tests.support.database import Database
    from tests.support.first import FirstDatabase, FirstOnSqlite


COACH = ConversationFlow(TARGET.conversation)
NINE = datetime(2026, 3, 1, 9, tzinfo=UTC)


async def test_everything_arrives(db: Database, old: FirstDatabase) -> None:
    """People with their numbers in E.164, and all that was said to and by them."""
    old.everyday()
    assert counts(await imported(old, db)) == ARRIVED
    person = await ada(db)
    assert (person.name, person.timezone, person.created_at) == (ADA, "America/Toronto", NINE)
    state = await db.store.participants.flow_state(person.id, "conversation")
    assert state.data["userProfile"] == {"habit_domain": "reading", "intensity": "normal"}
    assert (state.current_state, state.data["conversationState"]) == ("CONVERSATION_ACTIVE", "FEEDBACK")
    [response] = (await db.store.history.responses(person.id, ALL)).items
    assert (response.sender, response.text, response.processed_at) == (
        f"+{NUMBERS[ADA]}",
        "hello",
        response.received_at,
    )
    [receipt, _] = (await db.store.history.receipts(None, ALL)).items
    assert receipt.status is MessageStatus.DELIVERED
    assert db.rows("SELECT handler_type, expires_at FROM registered_hooks") == [("conversation", None)] * 2


async def test_progress_is_told_page_by_page(db: Database, old: FirstDatabase) -> None:
    """With how many rows a table has."""
    old.everyday()
    told: list[tuple[str, int, int]] = []
    async with open_source(old.url) as source:
        planner = Planner(source, db.store.imports, TARGET, db.clock)
        run = Import(
            source, planner, db.store.imports, page=4, told=lambda one, rows: told.append((one.table, one.read, rows))
        )
        await run.run()
    assert [one for one in told if one[0] == "outbox_messages"] == [
        ("outbox_messages", 4, 6),
        ("outbox_messages", 6, 6),
    ]


async def test_second_import_finds_everything_here(db: Database, old: FirstDatabase) -> None:
    """And brings what has been added since."""
    old.everyday()
    await imported(old, db)
    before = contents(db)
    went = await imported(old, db)
    assert counts(went) == {name: (read, 0, read, 0) for name, (read, *_) in ARRIVED.items()}
    assert contents(db) == before
    old.participant("p_eve")
    assert counts(await imported(old, db))["conversation_participants"] == (3, 1, 2, 0)


async def test_dry_run_tells_the_same_and_changes_nothing(db: Database, old: FirstDatabase) -> None:
    """Problems included."""
    old.everyday()
    old.participant("p_bad", phone_number="nobody")
    old.state("p_bad")
    old.participant("p_new", phone_number="16505559999")
    old.job("unheard_of", EARLIER)
    before = contents(db)
    dry = await imported(old, db, dry_run=True)
    assert contents(db) == before
    assert await db.store.imports.unfinished() == []
    wet = await imported(old, db)
    assert (counts(dry), reasons(dry)) == (counts(wet), reasons(wet))
    assert sum(table.problems for table in dry.values()) == 3


async def test_source_stays_as_it_is(db: Database, old_file: FirstOnSqlite) -> None:
    """Byte by byte, and alone in its folder."""
    old_file.everyday()
    before = old_file.path.read_bytes()
    await imported(old_file, db)
    assert old_file.path.read_bytes() == before
    assert [path.name for path in old_file.path.parent.glob("state.db*")] == ["state.db"]


class KilledError(Exception):
    """The end of a process."""


class Dying:
    """`ImportStore` whose process dies at a commit *after* some others: right before it, or right after."""

    def __init__(self, store: ImportStore, after: int, *, committed: bool) -> None:
        self._store = store
        self._left = after
        self._committed = committed

    async def apply(self, page: ImportPage) -> bool:
        self._left -= 1
        if self._left < 0 and not self._committed:
            raise KilledError
        done = await self._store.apply(page)
        if self._left < 0:
            raise KilledError
        return done

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)


@pytest.mark.parametrize("committed", [False, True], ids=["before", "after"])
async def test_killed_at_every_page_it_goes_on(db: Database, old_file: FirstOnSqlite, *, committed: bool) -> None:
    """What arrives is what would have, in the same order, with the same counts and problems."""
    old_file.everyday()
    old_file.participant("p_bad", phone_number="nobody")
    # A page for each row, and one for each table to find that it has no more.
    pages = 1 + sum(read + 1 for read, *_ in ARRIVED.values())
    for _ in range(pages - 1):
        async with open_source(old_file.url) as source:
            store: ImportStore = Dying(db.store.imports, not committed, committed=committed)  # type: ignore[assignment]
            with pytest.raises(KilledError):
                await Import(source, Planner(source, store, TARGET, db.clock), store, page=1).run()
        await db.restart()
    went = await imported(old_file, db, page=1)
    assert counts(went) == ARRIVED | {"conversation_participants": (3, 2, 0, 1)}
    [problem] = reasons(went)
    assert problem[:2] == ("conversation_participants", "p_bad")
    assert len(db.rows("SELECT * FROM outbox_messages")) == 6
    working = Working(db, [COACH])
    await working.send()
    assert working.sent == ["to come", "to come"]


async def test_unavailable_database_ends_it_and_it_goes_on_later(db: Database, old_file: FirstOnSqlite) -> None:
    """Nothing of the page that could not be committed is there."""
    old_file.everyday()
    trouble = Trouble({"imports.apply": 1})
    async with open_source(old_file.url) as source:
        store = trouble.wrap(db.store).imports
        with pytest.raises(StoreUnavailableError):
            await Import(source, Planner(source, store, TARGET, db.clock), store).run()
    assert db.rows("SELECT * FROM conversation_participants") == []
    assert counts(await imported(old_file, db)) == ARRIVED


async def test_refuses_while_a_service_works(db: Database, old_file: FirstOnSqlite) -> None:
    """An instance that gave a sign of life lately."""
    old_file.everyday()
    await db.store.instances.beat("an-instance", "boot 1", ready=True)  # type: ignore[arg-type]
    with pytest.raises(PreconditionError, match="a service works on the database"):
        await imported(old_file, db)
    db.clock.advance(16)
    assert counts(await imported(old_file, db)) == ARRIVED


async def test_two_imports_at_once_bring_everything_once(db: Database, old_file: FirstOnSqlite) -> None:
    """The one that finds the other at work ends."""
    old_file.everyday()
    async with open_source(old_file.url) as source:
        store = db.store.imports

        class Overtaken(Planner):
            async def sheet(self, table, old):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
                sheet = await super().sheet(table, old)
                if table is TABLES[2]:
                    await imported(old_file, db)
                return sheet

        with pytest.raises(PreconditionError, match="somebody else works on the database"):
            await Import(source, Overtaken(source, store, TARGET, db.clock), store).run()
    assert len(db.rows("SELECT * FROM jobs")) == 2
