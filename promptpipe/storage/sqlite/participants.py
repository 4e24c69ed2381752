"""Participants, their addresses, flow states and response handlers on SQLite."""

from __future__ import annotations

from dataclasses import asdict, fields
from functools import partial
from typing import TYPE_CHECKING

from promptpipe.model.decisions import FlowState, Hook
from promptpipe.model.errors import AlreadyExistsError, NotFoundError
from promptpipe.model.events import Enrolled
from promptpipe.model.ids import ParticipantId
from promptpipe.model.participants import Address, AddressKind, Participant, ParticipantStatus, Profile
from promptpipe.storage.sqlite import mailbox_events
from promptpipe.storage.sqlite.pages import FIRST, page
from promptpipe.storage.sqlite.values import from_json, instant, maybe_instant, maybe_micros, to_json

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping, Sequence

    from promptpipe.model.inbound import Enrollment
    from promptpipe.model.listing import Page, PageRequest
    from promptpipe.storage.sqlite.database import Database
    from promptpipe.storage.sqlite.transaction import Transaction


class SqliteParticipants:
    """`ports.store.ParticipantStore` on SQLite."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, participant_id: ParticipantId) -> Participant:
        """See `ParticipantStore.get`."""
        return await self._database.read(partial(get, participant_id=participant_id))

    async def enroll(self, address: Address, profile: Profile, enrollment: Enrollment) -> Participant:
        """See `ParticipantStore.enroll`."""
        return await self._database.write(
            partial(_enroll_once, address=address, profile=profile, enrollment=enrollment)
        )

    async def find(self, address: Address) -> Participant:
        """See `ParticipantStore.find`."""
        return await self._database.read(partial(_find_one, address=address))

    async def list(self, status: ParticipantStatus | None, page: PageRequest) -> Page[Participant]:
        """See `ParticipantStore.list`."""
        return await self._database.read(partial(_list, status=status, request=page))

    async def update(
        self, participant_id: ParticipantId, profile: Mapping[str, str | None], status: ParticipantStatus | None
    ) -> Participant:
        """See `ParticipantStore.update`."""
        return await self._database.write(
            partial(_update, participant_id=participant_id, profile=profile, status=status)
        )

    async def flow_states(
        self, participant_id: ParticipantId | None, flow_type: str | None, page: PageRequest
    ) -> Page[FlowState]:
        """See `ParticipantStore.flow_states`."""
        return await self._database.read(
            partial(_flow_states, participant_id=participant_id, flow_type=flow_type, request=page)
        )

    async def flow_state(self, participant_id: ParticipantId, flow_type: str) -> FlowState:
        """See `ParticipantStore.flow_state`."""
        return await self._database.read(partial(_flow_state, participant_id=participant_id, flow_type=flow_type))


def get(tx: Transaction, participant_id: ParticipantId) -> Participant:
    """See `ParticipantStore.get`."""
    row = tx.one("participant", id=participant_id)
    if row is None:
        raise NotFoundError("participant", participant_id)
    return _as_participant(tx, row)


def _as_participant(tx: Transaction, row: sqlite3.Row) -> Participant:
    addresses = tx.all("addresses_of", participant_id=row["id"])
    return Participant(
        id=ParticipantId(row["id"]),
        status=ParticipantStatus(row["status"]),
        channel=row["channel"],
        addresses=tuple(Address(a["channel"], AddressKind(a["kind"]), a["address"]) for a in addresses),
        created_at=instant(row["created_at"]),
        updated_at=instant(row["updated_at"]),
        name=row["name"],
        gender=row["gender"],
        ethnicity=row["ethnicity"],
        background=row["background"],
        timezone=row["timezone"],
    )


def find(tx: Transaction, addresses: Sequence[Address]) -> ParticipantId | None:
    """Return who has the first of *addresses* that anybody has."""
    for address in addresses:
        row = tx.one("owner_of_address", channel=address.channel, address=address.value)
        if row is not None:
            return ParticipantId(row["participant_id"])
    return None


def link(tx: Transaction, participant_id: ParticipantId, addresses: Sequence[Address]) -> None:
    """Give a participant those of *addresses* that nobody has yet."""
    for address in addresses:
        tx.run(
            "insert_address",
            channel=address.channel,
            address=address.value,
            kind=address.kind.value,
            participant_id=participant_id,
            now=tx.now,
        )


def enroll(tx: Transaction, addresses: Sequence[Address], profile: Profile, enrollment: Enrollment) -> ParticipantId:
    """Make a participant with their flow state and response handler."""
    participant_id = ParticipantId(tx.ids())
    tx.run("insert_participant", id=participant_id, channel=addresses[0].channel, now=tx.now, **asdict(profile))
    link(tx, participant_id, addresses)
    tx.run(
        "insert_flow_state",
        participant_id=participant_id,
        flow_type=enrollment.flow_type,
        current_state=enrollment.current_state,
        state_data=to_json({}),
        now=tx.now,
    )
    add_hook(
        tx,
        Hook(
            participant_id=participant_id,
            handler_type=enrollment.handler_type,
            flow_type=enrollment.flow_type,
        ),
    )
    return participant_id


def _enroll_once(tx: Transaction, address: Address, profile: Profile, enrollment: Enrollment) -> Participant:
    owner = find(tx, [address])
    if owner is not None:
        raise AlreadyExistsError("participant", owner, f"{address.value} is the address of participant {owner}")
    participant_id = enroll(tx, [address], profile, enrollment)
    mailbox_events.append(tx, participant_id, Enrolled(flow_type=enrollment.flow_type))
    return get(tx, participant_id)


def _find_one(tx: Transaction, address: Address) -> Participant:
    owner = find(tx, [address])
    if owner is None:
        raise NotFoundError("participant", address.value)
    return get(tx, owner)


def _list(tx: Transaction, status: ParticipantStatus | None, request: PageRequest) -> Page[Participant]:
    value = None if status is None else status.value
    return page(tx, "list_participants", request, partial(_as_participant, tx), status=value)


def _update(
    tx: Transaction,
    participant_id: ParticipantId,
    profile: Mapping[str, str | None],
    status: ParticipantStatus | None,
) -> Participant:
    known = get(tx, participant_id)
    values = {field.name: getattr(known, field.name) for field in fields(Profile)} | dict(profile)
    tx.run("update_participant", id=participant_id, status=(status or known.status).value, now=tx.now, **values)
    return get(tx, participant_id)


def _flow_states(
    tx: Transaction, participant_id: ParticipantId | None, flow_type: str | None, request: PageRequest
) -> Page[FlowState]:
    after, _, after_type = (request.after or FIRST).partition("/")
    place = {"after": after, "after_type": after_type, "flow_type": flow_type}
    if participant_id is None:
        return page(tx, "list_flow_states", request, as_flow_state, **place)
    return page(tx, "list_flow_states_of", request, as_flow_state, participant_id=participant_id, **place)


def add_hook(tx: Transaction, hook: Hook) -> bool:
    """Register a response handler unless the participant has it; return whether it was new."""
    return bool(
        tx.run(
            "insert_hook",
            participant_id=hook.participant_id,
            handler_type=hook.handler_type,
            flow_type=hook.flow_type,
            expires_at=maybe_micros(hook.expires_at),
            now=tx.now,
        )
    )


def flow_states(tx: Transaction, participant_id: ParticipantId) -> Mapping[str, FlowState]:
    """Return a participant's states, by flow type."""
    rows = tx.all("flow_states_of", participant_id=participant_id)
    return {row["flow_type"]: as_flow_state(row) for row in rows}


def hooks(tx: Transaction, participant_id: ParticipantId) -> tuple[Hook, ...]:
    """Return a participant's response handlers that have not expired, the one to be asked first, first."""
    return tuple(
        Hook(
            participant_id=participant_id,
            handler_type=row["handler_type"],
            flow_type=row["flow_type"],
            expires_at=maybe_instant(row["expires_at"]),
        )
        for row in tx.all("hooks_of", participant_id=participant_id, now=tx.now)
    )


def _flow_state(tx: Transaction, participant_id: ParticipantId, flow_type: str) -> FlowState:
    row = tx.one("flow_state", participant_id=participant_id, flow_type=flow_type)
    if row is None:
        raise NotFoundError("flow state", f"{participant_id}/{flow_type}")
    return as_flow_state(row)


def as_flow_state(row: sqlite3.Row) -> FlowState:
    """Return the state in a row of `flow_states`."""
    return FlowState(
        participant_id=ParticipantId(row["participant_id"]),
        flow_type=row["flow_type"],
        current_state=row["current_state"],
        data=from_json(row["state_data"]),
        version=row["version"],
        created_at=instant(row["created_at"]),
        updated_at=instant(row["updated_at"]),
    )
