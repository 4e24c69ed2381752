"""The tables of the first PromptPipe that are read, in the order in which they are imported.

What a conversation consists of comes before its state, whose arrival says that the conversation is here.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Table:
    """A table: the columns that are read, the first of which names a row, and those by which its rows are ordered."""

    name: str
    columns: tuple[str, ...]
    order: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """The column that names a row."""
        return self.columns[0]

    @property
    def ordered_by(self) -> tuple[str, ...]:
        """The columns in whose order rows are read; together they tell rows apart."""
        return self.order or (self.key,)


PARTICIPANTS = Table(
    "conversation_participants",
    (
        "id",
        "phone_number",
        "name",
        "gender",
        "ethnicity",
        "background",
        "timezone",
        "status",
        "created_at",
        "updated_at",
    ),
)
HOOKS = Table("registered_hooks", ("phone_number", "hook_type", "parameters", "created_at", "updated_at"))
JOBS = Table(
    "jobs",
    (
        "id",
        "kind",
        "run_at",
        "payload_json",
        "status",
        "attempt",
        "max_attempts",
        "last_error",
        "dedupe_key",
        "created_at",
        "updated_at",
    ),
)
STATES = Table(
    "flow_states",
    ("id", "participant_id", "flow_type", "current_state", "state_data", "created_at", "updated_at"),
)
CONVERSING = Table(STATES.name, ("participant_id", "flow_type"))
"""Who has a state, without the state."""
MESSAGES = Table(
    "outbox_messages",
    (
        "id",
        "participant_id",
        "kind",
        "payload_json",
        "status",
        "attempts",
        "next_attempt_at",
        "dedupe_key",
        "locked_at",
        "last_error",
        "created_at",
        "updated_at",
    ),
    order=("created_at", "id"),
)
MARKS = Table("inbound_dedup", ("message_id", "received_at"))
RECEIPTS = Table("receipts", ("id", "recipient", "status", "time"))
RESPONSES = Table("responses", ("id", "sender", "body", "time"))

TABLES = (PARTICIPANTS, HOOKS, JOBS, STATES, MESSAGES, MARKS, RECEIPTS, RESPONSES)
