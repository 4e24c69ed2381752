"""Participants, their addresses, flow states and response handlers."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, dataclass, fields
from functools import partial
from typing import TYPE_CHECKING

from promptpipe.model.decisions import FlowState, Hook
from promptpipe.model.errors import AlreadyExistsError, CorruptStateError, NotFoundError
from promptpipe.model.events import Enrolled
from promptpipe.model.ids import ParticipantId
from promptpipe.model.listing import Page
from promptpipe.model.participants import Address, AddressKind, Participant, ParticipantStatus, Profile
from promptpipe.storage.transactions import erasing, mailbox_events
from promptpipe.storage.transactions.pages import FIRST, page
from promptpipe.storage.transactions.transaction import ConflictError
from promptpipe.storage.transactions.values import from_json, to_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from promptpipe.model.inbound import Enrollment
    from promptpipe.model.listing import PageRequest
    from promptpipe.storage.transactions.transaction import Database, Row, Transaction

    Owners = Mapping[tuple[str, str], ParticipantId]
    """Who has which address, by channel and address."""


class ParticipantTransactions:
    """`ports.store.ParticipantStore`."""

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

    async def erase(self, participant_id: ParticipantId) -> None:
        """See `ParticipantStore.erase`."""
        await self._database.write(partial(erasing.erase, participant_id=participant_id))

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


async def get(tx: Transaction, participant_id: ParticipantId) -> Participant:
    """See `ParticipantStore.get`."""
    found = await those(tx, [participant_id])
    if participant_id not in found:
        raise NotFoundError("participant", participant_id)
    return found[participant_id]


async def those(tx: Transaction, ids: Sequence[ParticipantId]) -> dict[ParticipantId, Participant]:
    """Return those participants that there are."""
    values = {"participant_ids": list(ids)}
    rows, addresses = await tx.several(("participants", values), ("addresses_of", values))
    return {person.id: person for person in _as_participants(rows, addresses)}


def look(ids: Sequence[str]) -> list[tuple[str, dict[str, object]]]:
    """Return the statements, with their values, whose answers `conversations` reads."""
    values: dict[str, object] = {"participant_ids": list(ids)}
    return [(name, values) for name in ("participants", "addresses_of", "flow_states_of", "hooks_of")]


def conversations(
    rows: Sequence[Row], addresses: Sequence[Row], states: Sequence[Row], hooks: Sequence[Row]
) -> dict[str, Conversation]:
    """Return the conversations of those participants that there are, by their ids."""
    found: dict[str, Conversation] = {
        person.id: Conversation(person, [], []) for person in _as_participants(rows, addresses)
    }
    for row in states:
        if row["participant_id"] in found:
            found[row["participant_id"]].state_rows.append(row)
    for row in hooks:
        if row["participant_id"] in found:
            found[row["participant_id"]].hook_rows.append(row)
    return found


@dataclass(frozen=True, slots=True)
class Conversation:
    """A participant with the rows of their flow states and response handlers."""

    participant: Participant
    state_rows: list[Row]
    hook_rows: list[Row]

    def states(self) -> dict[str, FlowState]:
        """Return their states, by flow type; raise `CorruptStateError` when one cannot be read."""
        return {row["flow_type"]: as_flow_state(row) for row in self.state_rows}

    def hooks(self) -> tuple[Hook, ...]:
        """Return their response handlers that have not expired, the one to be asked first, first."""
        return tuple(
            Hook(
                participant_id=self.participant.id,
                handler_type=row["handler_type"],
                flow_type=row["flow_type"],
                expires_at=row["expires_at"],
                data=from_json(row["data"]),
            )
            for row in self.hook_rows
        )


def _as_participants(rows: Sequence[Row], addresses: Sequence[Row]) -> list[Participant]:
    owned: dict[str, list[Address]] = defaultdict(list)
    for row in addresses:
        owned[row["participant_id"]].append(Address(row["channel"], AddressKind(row["kind"]), row["address"]))
    return [_as_participant(row, owned[row["id"]]) for row in rows]


def _as_participant(row: Row, addresses: Sequence[Address]) -> Participant:
    return Participant(
        id=ParticipantId(row["id"]),
        status=ParticipantStatus(row["status"]),
        channel=row["channel"],
        addresses=tuple(addresses),
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        name=row["name"],
        gender=row["gender"],
        ethnicity=row["ethnicity"],
        background=row["background"],
        timezone=row["timezone"],
    )


async def find(tx: Transaction, addresses: Sequence[Address]) -> ParticipantId | None:
    """Return who has the first of *addresses* that anybody has."""
    return first_owner(owners(await tx.all("owners_of_addresses", addresses=as_json(addresses))), addresses)


def as_json(addresses: Sequence[Address]) -> str:
    """Return addresses as the statement `owners_of_addresses` takes them."""
    return to_json([{"channel": address.channel, "address": address.value} for address in addresses])


def owners(rows: Sequence[Row]) -> Owners:
    """Return who has the addresses that the statement `owners_of_addresses` found, by channel and address."""
    return {(row["channel"], row["address"]): ParticipantId(row["participant_id"]) for row in rows}


def first_owner(known: Owners, addresses: Sequence[Address]) -> ParticipantId | None:
    """Return who has the first of *addresses* that anybody has."""
    have = (known.get((address.channel, address.value)) for address in addresses)
    return next((owner for owner in have if owner is not None), None)


async def link(tx: Transaction, participant_id: ParticipantId, addresses: Sequence[Address]) -> int:
    """Give a participant those of *addresses* that nobody has yet; return how many these were."""
    linked = 0
    for address in addresses:
        linked += await tx.count(
            "insert_address",
            channel=address.channel,
            address=address.value,
            kind=address.kind.value,
            participant_id=participant_id,
        )
    return linked


async def enroll(
    tx: Transaction, addresses: Sequence[Address], profile: Profile, enrollment: Enrollment
) -> ParticipantId:
    """Make a participant with their flow state and response handler.

    Raise `ConflictError` when somebody else has got one of *addresses* meanwhile.
    """
    participant_id = ParticipantId(tx.ids())
    await tx.run("insert_participant", id=participant_id, channel=addresses[0].channel, **asdict(profile))
    if await link(tx, participant_id, addresses) < len({(address.channel, address.value) for address in addresses}):
        raise ConflictError("an address was taken at the same time")
    await enter(tx, participant_id, enrollment)
    return participant_id


async def enter(tx: Transaction, participant_id: ParticipantId, enrollment: Enrollment) -> bool:
    """Put a participant into a flow with its response handler; return whether they were not in it before."""
    entered = await tx.count(
        "insert_flow_state",
        participant_id=participant_id,
        flow_type=enrollment.flow_type,
        current_state=enrollment.current_state,
        state_data=to_json({}),
    )
    await add_hook(
        tx,
        Hook(
            participant_id=participant_id,
            handler_type=enrollment.handler_type,
            flow_type=enrollment.flow_type,
        ),
    )
    return bool(entered)


async def _enroll_once(tx: Transaction, address: Address, profile: Profile, enrollment: Enrollment) -> Participant:
    owner = await find(tx, [address])
    if owner is not None:
        raise AlreadyExistsError("participant", owner, f"{address.value} is the address of participant {owner}")
    participant_id = await enroll(tx, [address], profile, enrollment)
    await mailbox_events.append(tx, [(participant_id, Enrolled(flow_type=enrollment.flow_type))])
    return await get(tx, participant_id)


async def _find_one(tx: Transaction, address: Address) -> Participant:
    owner = await find(tx, [address])
    if owner is None:
        raise NotFoundError("participant", address.value)
    return await get(tx, owner)


async def _list(tx: Transaction, status: ParticipantStatus | None, request: PageRequest) -> Page[Participant]:
    value = None if status is None else status.value
    rows = await page(tx, "list_participants", request, lambda row: row, status=value)
    addresses = await tx.all("addresses_of", participant_ids=[row["id"] for row in rows.items])
    return Page(tuple(_as_participants(rows.items, addresses)), rows.last)


async def _update(
    tx: Transaction,
    participant_id: ParticipantId,
    profile: Mapping[str, str | None],
    status: ParticipantStatus | None,
) -> Participant:
    known = await tx.one("participant_to_change", id=participant_id)
    if known is None:
        raise NotFoundError("participant", participant_id)
    values = {field.name: known[field.name] for field in fields(Profile)} | dict(profile)
    await tx.run("update_participant", id=participant_id, status=status.value if status else known["status"], **values)
    return await get(tx, participant_id)


async def _flow_states(
    tx: Transaction, participant_id: ParticipantId | None, flow_type: str | None, request: PageRequest
) -> Page[FlowState]:
    after, _, after_type = (request.after or FIRST).partition("/")
    place = {"after": after, "after_type": after_type, "flow_type": flow_type}
    if participant_id is None:
        return await page(tx, "list_flow_states", request, shown_flow_state, **place)
    return await page(tx, "list_flow_states_of", request, shown_flow_state, participant_id=participant_id, **place)


async def add_hook(tx: Transaction, hook: Hook) -> bool:
    """Register a response handler unless the participant has it; return whether it was new."""
    return bool(await tx.count("insert_hook", **_hook_values(hook)))


async def replace_hook(tx: Transaction, hook: Hook) -> None:
    """Register a response handler in place of any of its type."""
    await tx.run("replace_hook", **_hook_values(hook))


def _hook_values(hook: Hook) -> dict[str, object]:
    return {
        "participant_id": hook.participant_id,
        "handler_type": hook.handler_type,
        "flow_type": hook.flow_type,
        "expires_at": hook.expires_at,
        "data": to_json(hook.data),
    }


async def _flow_state(tx: Transaction, participant_id: ParticipantId, flow_type: str) -> FlowState:
    row = await tx.one("flow_state", participant_id=participant_id, flow_type=flow_type)
    if row is None:
        raise NotFoundError("flow state", f"{participant_id}/{flow_type}")
    return shown_flow_state(row)


def as_flow_state(row: Row) -> FlowState:
    """Return the state in a row of `flow_states`; raise `CorruptStateError` when its data is no JSON object."""
    try:
        return _flow_state_with(row, from_json(row["state_data"]))
    except ValueError as error:
        raise CorruptStateError(f"the state cannot be read: {error}") from error


def shown_flow_state(row: Row) -> FlowState:
    """Return the state in a row of `flow_states`, with what is wrong with it, if anything is."""
    try:
        return as_flow_state(row)
    except CorruptStateError as error:
        return _flow_state_with(row, {}, str(error))


def _flow_state_with(row: Row, data: Mapping[str, object], problem: str = "") -> FlowState:
    return FlowState(
        participant_id=ParticipantId(row["participant_id"]),
        flow_type=row["flow_type"],
        current_state=row["current_state"],
        data=data,
        version=row["version"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        problem=problem,
    )
