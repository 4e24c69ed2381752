"""Applying decisions: everything they change, in the order in which locks are taken on every back end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from promptpipe.model.errors import NotFoundError, VersionConflictError
from promptpipe.model.jobs import NewJob, OnConflict
from promptpipe.model.leases import Work
from promptpipe.model.messages import NewMessage
from promptpipe.storage.transactions import jobs, messages, participants, schedules
from promptpipe.storage.transactions.values import to_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from promptpipe.model.decisions import Decision
    from promptpipe.model.ids import ParticipantId
    from promptpipe.storage.transactions.messages import Placed
    from promptpipe.storage.transactions.transaction import Transaction

    Decisions = Sequence[tuple[ParticipantId, Decision]]


async def apply(tx: Transaction, decided: Decisions) -> None:
    """Apply decisions for participants whose mailboxes the caller holds; raise `VersionConflictError`.

    First the lanes, then the flow states with their response handlers, then schedules, jobs, and messages.
    """
    placed = await _placed(tx, decided)
    await _change_states(tx, decided)
    await _change_hooks(tx, decided)
    await _change_schedules(tx, decided)
    await _set_timers(tx, decided)
    await messages.insert(tx, placed)


async def _placed(tx: Transaction, decided: Decisions) -> list[Placed]:
    """Take places in the participants' lanes for what they are told, on the channel where they wrote last."""
    talkers = [participant_id for participant_id, decision in decided if decision.say]
    if not talkers:
        return []
    people = await participants.those(tx, talkers)
    told = []
    keys: set[str] = set()
    for participant_id, decision in decided:
        for say in decision.say:
            if participant_id not in people:
                raise NotFoundError("participant", participant_id)
            if say.dedupe_key is not None:
                if say.dedupe_key in keys or await messages.with_key(tx, say.dedupe_key) is not None:
                    continue
                keys.add(say.dedupe_key)
            new = NewMessage(
                id=say.id,
                participant_id=participant_id,
                channel=people[participant_id].channel,
                content=say.content,
                message_class=say.message_class,
                flow_type=say.awaited_by,
                expires_at=say.expires_at,
                dedupe_key=say.dedupe_key,
            )
            told.append((people[participant_id], new))
    await tx.lock_lanes({(Work.OUTBOX, messages.lane_of(new)) for _, new in told})
    return await messages.place(tx, told)


async def _change_states(tx: Transaction, decided: Decisions) -> None:
    changes = [
        {
            "participant_id": participant_id,
            "flow_type": decision.state.flow_type,
            "current_state": decision.state.current_state,
            "state_data": decision.state.data,
            "from_version": decision.state.from_version,
        }
        for participant_id, decision in decided
        if decision.state is not None
    ]
    if not changes:
        return
    rows = await tx.all("change_flow_states", changes=to_json(changes))
    changed = {(row["participant_id"], row["flow_type"]) for row in rows}
    for change in changes:
        if (change["participant_id"], change["flow_type"]) not in changed:
            raise VersionConflictError(
                "the {flow_type} state of {participant_id} is no longer version {from_version}".format_map(change)
            )


async def _change_hooks(tx: Transaction, decided: Decisions) -> None:
    for participant_id, decision in decided:
        for handler_type in decision.unhook:
            await tx.run("remove_hook", participant_id=participant_id, handler_type=handler_type)
        for hook in decision.hook:
            await participants.replace_hook(tx, hook)


async def _change_schedules(tx: Transaction, decided: Decisions) -> None:
    """End schedules and make new ones, in the order in which everybody locks."""
    ended = {
        (schedule_id, participant_id) for participant_id, decision in decided for schedule_id in decision.unschedule
    }
    for schedule_id, participant_id in sorted(ended):
        await schedules.end(tx, schedule_id, participant_id)
    for _, decision in decided:
        for new in decision.schedule:
            await schedules.create(tx, new)


async def _set_timers(tx: Transaction, decided: Decisions) -> None:
    """Cancel timers, and set new ones, each in place of its participant's with the same key."""
    wanted = {(participant_id, wake.key): wake for participant_id, decision in decided for wake in decision.wake}
    canceled = {(participant_id, key) for participant_id, decision in decided for key in decision.cancel}
    await jobs.cancel_timers(tx, canceled | wanted.keys())
    new = [
        NewJob(
            id=wake.id,
            kind=wake.kind,
            run_at=wake.at,
            payload=wake.payload,
            dedupe_key=wake.key,
            on_conflict=OnConflict.REPLACE,
            participant_id=participant_id,
        )
        for (participant_id, _), wake in wanted.items()
    ]
    if new:
        await jobs.put_many(tx, new)
