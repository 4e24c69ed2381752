"""Applying a decision: everything it changes, in the order in which locks are taken on every back end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from promptpipe.model.errors import VersionConflictError
from promptpipe.model.jobs import NewJob, OnConflict
from promptpipe.model.leases import Work
from promptpipe.model.messages import NewMessage
from promptpipe.storage.transactions import jobs, messages, participants
from promptpipe.storage.transactions.values import to_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from promptpipe.model.decisions import Decision, Say, StateChange
    from promptpipe.model.ids import ParticipantId
    from promptpipe.storage.transactions.messages import Placed
    from promptpipe.storage.transactions.transaction import Transaction


async def apply(tx: Transaction, participant_id: ParticipantId, decision: Decision) -> None:
    """Apply *decision* for a participant whose mailbox the caller holds; raise `VersionConflictError`.

    First the lanes, then the flow state, then jobs, then messages.
    """
    placed = await _placed(tx, participant_id, decision.say)
    if decision.state is not None:
        await _change_state(tx, participant_id, decision.state)
    await tx.lock_jobs({*decision.cancel, *(wake.key for wake in decision.wake)})
    for key in decision.cancel:
        await jobs.cancel_timer(tx, participant_id, key)
    for wake in decision.wake:
        await jobs.cancel_timer(tx, participant_id, wake.key)
        new_job = NewJob(
            id=wake.id,
            kind=wake.kind,
            run_at=wake.at,
            payload=wake.payload,
            dedupe_key=wake.key,
            on_conflict=OnConflict.REPLACE,
            participant_id=participant_id,
        )
        await jobs.put(tx, new_job)
    for message in placed:
        await messages.insert(tx, message)


async def _placed(tx: Transaction, participant_id: ParticipantId, said: Sequence[Say]) -> list[Placed]:
    """Take places in the participant's lanes for what the decision says, on the channel where they wrote last."""
    if not said:
        return []
    person = await participants.get(tx, participant_id)
    keys = {messages.lane_key(participant_id, person.channel, say.message_class) for say in said}
    await tx.lock_lanes([(Work.OUTBOX, key) for key in keys])
    return [
        await messages.place(
            tx,
            person,
            NewMessage(
                id=say.id,
                participant_id=participant_id,
                channel=person.channel,
                content=say.content,
                message_class=say.message_class,
                flow_type=say.awaited_by,
                expires_at=say.expires_at,
            ),
        )
        for say in said
    ]


async def _change_state(tx: Transaction, participant_id: ParticipantId, change: StateChange) -> None:
    changed = await tx.count(
        "change_flow_state",
        participant_id=participant_id,
        flow_type=change.flow_type,
        current_state=change.current_state,
        state_data=to_json(change.data),
        from_version=change.from_version,
    )
    if not changed:
        raise VersionConflictError(
            f"the {change.flow_type} state of {participant_id} is no longer version {change.from_version}"
        )
