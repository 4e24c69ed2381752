"""Whom old rows are about: participants by their old ids, or by their phone numbers, as they are called here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from promptpipe.flows.conversation.turn import FLOW_TYPE
from promptpipe.importing.reading import UnreadableError
from promptpipe.importing.rows import number_of, participant_of
from promptpipe.importing.tables import CONVERSING, PARTICIPANTS
from promptpipe.ports.importing import Known

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from promptpipe.importing.reading import OldRow
    from promptpipe.importing.source import Source
    from promptpipe.model.ids import ParticipantId
    from promptpipe.model.participants import Participant
    from promptpipe.ports.importing import ImportView


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """A participant by their *old_id*, and their phone number as far as it can be read.

    *missing* says why they are not imported, and nothing of theirs is; None when they are. *conversing* says that the
    source has a conversation of theirs, *here* that it has arrived.
    """

    old_id: str
    number: str | None = None
    participant: Participant | None = None
    missing: str | None = None
    erased: bool = False
    here: bool = False
    conversing: bool = False


class People:
    """Looks participants up: in the source, and among those who are here."""

    def __init__(self, source: Source, store: ImportView, channel: str) -> None:
        self._source = source
        self._store = store
        self._channel = channel

    async def by_ids(self, old_ids: Iterable[str]) -> dict[str, Person]:
        """Return those of *old_ids* who are in the source, by their old ids."""
        return await self._known(await self._source.find(PARTICIPANTS, {"id": sorted(set(old_ids))}))

    async def by_numbers(self, numbers: Iterable[str]) -> dict[str, Person]:
        """Return those with *numbers* who are in the source, by their numbers."""
        found = await self._known(await self._with_numbers(set(numbers)))
        # Of several with one number, it is the one who is imported.
        ordered = sorted(found.values(), key=lambda person: person.missing is None)
        return {person.number: person for person in ordered if person.number is not None}

    async def owners(self, numbers: Iterable[str]) -> Mapping[str, ParticipantId]:
        """Return who has which of *numbers* here."""
        return await self._store.owners(self._channel, set(numbers))

    async def _with_numbers(self, numbers: Collection[str]) -> Collection[OldRow]:
        written = sorted({*numbers, *(number.removeprefix("+") for number in numbers)})
        return await self._source.find(PARTICIPANTS, {"phone_number": written})

    async def _known(self, rows: Collection[OldRow]) -> dict[str, Person]:
        """Return what becomes of the participants in *rows*, by their old ids."""
        read = {str(row["id"]): self._read(row) for row in rows if row["id"]}
        readable = {person.old_id: person.participant for person in read.values() if person.participant is not None}
        ids = {participant.id for participant in readable.values()}
        numbers = {participant.addresses[0].value for participant in readable.values()}
        owners = await self.owners(numbers)
        first = await self._first_with(numbers)
        erased = await self._store.known(Known.ERASED, ids)
        here = await self._store.known(Known.CONVERSATIONS, ids)
        states = await self._source.find(CONVERSING, {"participant_id": sorted(readable), "flow_type": [FLOW_TYPE]})
        conversing = {row["participant_id"] for row in states}
        for old_id, participant in readable.items():
            number = participant.addresses[0].value
            missing = _conflict(old_id, participant, owners.get(number), first.get(number, old_id))
            read[old_id] = Person(
                old_id=old_id,
                number=number,
                participant=participant if missing is None else None,
                missing=missing,
                erased=participant.id in erased,
                here=participant.id in here and old_id in conversing,
                conversing=old_id in conversing,
            )
        return read

    def _read(self, row: OldRow) -> Person:
        old_id = str(row["id"])
        try:
            return Person(old_id=old_id, participant=participant_of(row, self._channel))
        except UnreadableError as error:
            return Person(old_id=old_id, missing=f"participant {old_id} cannot be read: {error}")

    async def _first_with(self, numbers: Collection[str]) -> dict[str, str]:
        """Return who has which number in the source, by old ids: of several, the first in the order of the ids."""
        first: dict[str, str] = {}
        for row in await self._with_numbers(numbers):
            person = self._read(row)
            if person.participant is not None:
                number = number_of(row)
                first[number] = min(first.get(number, person.old_id), person.old_id)
        return first


def _conflict(old_id: str, participant: Participant, owner: ParticipantId | None, first: str) -> str | None:
    """Return why somebody's number keeps them out: it has an *owner* here, or is that of the *first* in the source."""
    if owner is not None and owner != participant.id:
        return f"participant {owner} has the phone number of {old_id} here, and stays as they are"
    return None if first == old_id else f"{first} has the same phone number as {old_id}"
