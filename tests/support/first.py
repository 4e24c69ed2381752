"""Databases of the first PromptPipe, as it made them, for tests to import from."""

from __future__ import annotations

import json
import sqlite3
from abc import ABC, abstractmethod
from contextlib import closing
from typing import TYPE_CHECKING, Any

import psycopg

from promptpipe.flows.conversation import ConversationSettings
from promptpipe.importing import Import, Planner, Target, open_source
from tests.support.people import NUMBER_ID
from tests.support.sql import as_psycopg

if TYPE_CHECKING:
    from pathlib import Path
    from typing import LiteralString

    from promptpipe.model.importing import TableProgress
    from tests.support.database import Database

TARGET = Target(channel="whatsapp", number_id=NUMBER_ID, conversation=ConversationSettings())

SCHEMA: LiteralString = """
CREATE TABLE receipts (id SERIAL PRIMARY KEY, recipient TEXT NOT NULL, status TEXT NOT NULL, time BIGINT NOT NULL);
CREATE TABLE responses (id SERIAL PRIMARY KEY, sender TEXT NOT NULL, body TEXT NOT NULL, time BIGINT NOT NULL);
CREATE TABLE flow_states (
    id SERIAL PRIMARY KEY, participant_id TEXT NOT NULL, flow_type TEXT NOT NULL, current_state TEXT NOT NULL,
    state_data JSONB, created_at TIMESTAMP NOT NULL, updated_at TIMESTAMP NOT NULL, UNIQUE (participant_id, flow_type)
);
CREATE TABLE conversation_participants (
    id TEXT PRIMARY KEY, phone_number TEXT NOT NULL UNIQUE, name TEXT, gender TEXT, ethnicity TEXT, background TEXT,
    timezone TEXT, status TEXT NOT NULL, enrolled_at TIMESTAMP NOT NULL, created_at TIMESTAMP NOT NULL,
    updated_at TIMESTAMP NOT NULL
);
CREATE TABLE registered_hooks (
    phone_number TEXT PRIMARY KEY, hook_type TEXT NOT NULL, parameters JSONB NOT NULL, created_at TIMESTAMP NOT NULL,
    updated_at TIMESTAMP NOT NULL
);
CREATE TABLE jobs (
    id TEXT PRIMARY KEY, kind TEXT NOT NULL, run_at TIMESTAMP NOT NULL, payload_json TEXT, status TEXT NOT NULL,
    attempt INTEGER NOT NULL, max_attempts INTEGER NOT NULL, last_error TEXT, locked_at TIMESTAMP, dedupe_key TEXT,
    created_at TIMESTAMP NOT NULL, updated_at TIMESTAMP NOT NULL
);
CREATE TABLE outbox_messages (
    id TEXT PRIMARY KEY, participant_id TEXT NOT NULL, kind TEXT NOT NULL, payload_json TEXT, status TEXT NOT NULL,
    attempts INTEGER NOT NULL, next_attempt_at TIMESTAMP, dedupe_key TEXT, locked_at TIMESTAMP, last_error TEXT,
    created_at TIMESTAMP NOT NULL, updated_at TIMESTAMP NOT NULL
);
CREATE TABLE inbound_dedup (
    message_id TEXT PRIMARY KEY, participant_id TEXT NOT NULL, received_at TIMESTAMP NOT NULL, processed_at TIMESTAMP
);
"""
"""As PostgreSQL has it. SQLite has other names for the types, and values as they were written."""

ON_SQLITE = {
    "SERIAL PRIMARY KEY": "INTEGER PRIMARY KEY AUTOINCREMENT",
    "BIGINT": "INTEGER",
    "JSONB": "TEXT",
    "TIMESTAMP": "DATETIME",
}

DAY = "2026-03-01"
"""That of the tests' clock, which starts at noon."""
EARLIER = f"{DAY} 09:00:00"
ADA, BOB = "p_ada", "p_bob"
NUMBERS = {ADA: "16505551234", BOB: "16505554321"}


class FirstDatabase(ABC):
    """A database of the first PromptPipe, empty, at *url*."""

    def __init__(self, url: str) -> None:
        self.url = url

    @abstractmethod
    def change(self, sql: str, *values: object) -> None:
        """Change the database; values are `?`."""

    def add(self, table: str, **values: object) -> None:
        """Add a row."""
        marks = ", ".join("?" * len(values))
        self.change(f"INSERT INTO {table} ({', '.join(values)}) VALUES ({marks})", *values.values())

    def participant(self, old_id: str = ADA, **other: object) -> None:
        """Add a participant."""
        values = {"phone_number": NUMBERS.get(old_id, "16505550000"), "status": "active", "timezone": "America/Toronto"}
        times = dict.fromkeys(("enrolled_at", "created_at", "updated_at"), EARLIER)
        self.add("conversation_participants", **{"id": old_id, **values, **times, **other})

    def state(self, old_id: str = ADA, /, **data: object) -> None:
        """Add a conversation; what is no text is JSON in it."""
        texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in data.items()}
        self.add(
            "flow_states",
            participant_id=old_id,
            flow_type="conversation",
            current_state="CONVERSATION_ACTIVE",
            state_data=json.dumps(texts),
            created_at=EARLIER,
            updated_at=EARLIER,
        )

    def hook(self, old_id: str = ADA, hook_type: str = "conversation", **parameters: object) -> None:
        """Add a response handler."""
        said = json.dumps({"participant_id": old_id, **parameters})
        times = dict.fromkeys(("created_at", "updated_at"), EARLIER)
        self.add("registered_hooks", phone_number=NUMBERS[old_id], hook_type=hook_type, parameters=said, **times)

    def job(self, kind: str, run_at: str, old_id: str = ADA, payload: object = None, **other: object) -> None:
        """Add a job that is to come."""
        values: dict[str, object] = {
            "id": f"job_{kind}_{old_id}",
            "kind": kind,
            "run_at": run_at,
            "payload_json": json.dumps({"participant_id": old_id, **(payload if isinstance(payload, dict) else {})}),
            "status": "queued",
            "attempt": 0,
            "max_attempts": 3,
            "dedupe_key": f"{kind}:{old_id}",
            "created_at": EARLIER,
            "updated_at": EARLIER,
        }
        self.add("jobs", **values | other)

    def message(self, old_id: str, text: str, status: str = "queued", owner: str = ADA, **other: object) -> None:
        """Add a message to a participant."""
        values: dict[str, object] = {
            "id": old_id,
            "participant_id": owner,
            "kind": "reply",
            "payload_json": json.dumps({"to": NUMBERS[owner], "body": text}),
            "status": status,
            "attempts": 0,
            "created_at": EARLIER,
            "updated_at": EARLIER,
        }
        self.add("outbox_messages", **values | other)

    def everyday(self) -> None:
        """Add some of everything."""
        for number, old_id in enumerate((ADA, BOB)):
            self.participant(old_id, name=old_id)
            self.state(old_id, userProfile={"habit_domain": "reading"}, conversationState="FEEDBACK")
            self.hook(old_id)
            self.job("feedback_timeout", f"{DAY} 13:00:00", old_id)
            self.message(f"outbox_{old_id}_1", "sent before", "sent", old_id)
            self.message(f"outbox_{old_id}_2", "on its way", "sending", old_id, locked_at=EARLIER)
            self.message(f"outbox_{old_id}_3", "to come", owner=old_id)
            self.add("inbound_dedup", message_id=f"3EB0{number}", participant_id=NUMBERS[old_id], received_at=EARLIER)
            self.add("receipts", recipient=NUMBERS[old_id], status="delivered", time=1772352000)
            self.add("responses", sender=NUMBERS[old_id], body="hello", time=1772352000)


class FirstOnSqlite(FirstDatabase):
    """A file."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"sqlite:///{path}")
        self.path = path
        schema: str = SCHEMA
        for theirs, here in ON_SQLITE.items():
            schema = schema.replace(theirs, here)
        with closing(sqlite3.connect(path)) as connection:
            connection.executescript(schema)

    def change(self, sql: str, *values: object) -> None:
        with closing(sqlite3.connect(self.path)) as connection, connection:
            connection.execute(sql, values)

    def rows(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """Return what a query finds."""
        with closing(sqlite3.connect(self.path)) as connection:
            return connection.execute(sql, values).fetchall()


class FirstOnPostgres(FirstDatabase):
    """A database on a server, which has the old tables."""

    def change(self, sql: str, *values: object) -> None:
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(as_psycopg(sql), values)


async def imported(
    old: FirstDatabase, db: Database, *, dry_run: bool = False, page: int = 200, target: Target = TARGET
) -> dict[str, TableProgress]:
    """Import *old* into *db*, and return how it went, by tables."""
    store = db.store.imports
    async with open_source(old.url) as source:
        planner = Planner(source, store, target, db.clock)
        went = await Import(source, planner, None if dry_run else store, page=page).run()
    return {progress.table: progress for progress in went}


def reasons(went: dict[str, TableProgress]) -> list[tuple[str, str, str]]:
    """Return the problems of an import."""
    return [(name, problem.row, problem.reason) for name, table in went.items() for problem in table.listed]


def counts(went: dict[str, TableProgress]) -> dict[str, tuple[int, int, int, int]]:
    """Return what was counted: rows read, imported and skipped, and problems."""
    return {name: (one.read, one.imported, one.skipped, one.problems) for name, one in went.items()}
