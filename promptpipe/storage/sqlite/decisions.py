"""Applying a decision: everything it changes, in the order in which locks are taken on every back end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from promptpipe.model.errors import VersionConflictError
from promptpipe.model.jobs import NewJob, OnConflict
from promptpipe.model.messages import NewMessage
from promptpipe.storage.sqlite import jobs, messages, participants
from promptpipe.storage.sqlite.values import to_json

if TYPE_CHECKING:
    from promptpipe.model.decisions import Decision
    from promptpipe.model.ids import ParticipantId
    from promptpipe.storage.sqlite.transaction import Transaction


def apply(tx: Transaction, participant_id: ParticipantId, decision: Decision) -> None:
    """Apply *decision* for a participant whose mailbox the caller holds; raise `VersionConflictError`."""
    if decision.state is not None:
        changed = tx.run(
            "change_flow_state",
            participant_id=participant_id,
            flow_type=decision.state.flow_type,
            current_state=decision.state.current_state,
            state_data=to_json(decision.state.data),
            from_version=decision.state.from_version,
            now=tx.now,
        )
        if not changed:
            raise VersionConflictError(
                f"the {decision.state.flow_type} state of {participant_id} is no longer"
                f" version {decision.state.from_version}"
            )
    for key in decision.cancel:
        jobs.cancel_timer(tx, participant_id, key)
    for wake in decision.wake:
        jobs.cancel_timer(tx, participant_id, wake.key)
        new_job = NewJob(
            id=wake.id,
            kind=wake.kind,
            run_at=wake.at,
            payload=wake.payload,
            dedupe_key=wake.key,
            on_conflict=OnConflict.REPLACE,
            participant_id=participant_id,
        )
        jobs.enqueue(tx, new_job)
    if decision.say:
        channel = participants.get(tx, participant_id).channel
        for say in decision.say:
            new_message = NewMessage(
                id=say.id,
                participant_id=participant_id,
                channel=channel,
                content=say.content,
                message_class=say.message_class,
                flow_type=say.awaited_by,
                expires_at=say.expires_at,
            )
            messages.enqueue(tx, new_message)
