"""What recovery needs of SQLite. Only one process writes here, so every lease that is not its own is stale."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from promptpipe.model.events import TimerLost
from promptpipe.model.ids import JobId, ParticipantId
from promptpipe.model.leases import Work
from promptpipe.model.recovery import ComponentReport, LostTimer, RecoveryReport
from promptpipe.storage.sqlite import mailbox_events, messages, participants
from promptpipe.storage.sqlite.values import from_json, micros, span

if TYPE_CHECKING:
    from collections.abc import Sequence

    from promptpipe.model.decisions import Hook
    from promptpipe.model.ids import WorkerId
    from promptpipe.model.messages import InDoubtRules
    from promptpipe.storage.sqlite.database import Database
    from promptpipe.storage.sqlite.transaction import Transaction

SENDER_GONE = "the service stopped while the request was on its way"


class SqliteRecovery:
    """`ports.store.RecoveryStore` on SQLite."""

    def __init__(self, database: Database, worker: WorkerId, rules: InDoubtRules) -> None:
        self._database = database
        self._worker = worker
        self._rules = rules

    async def requeue_stale_running_jobs(self) -> int:
        """See `RecoveryStore.requeue_stale_running_jobs`."""
        return await self._database.write(lambda tx: tx.run("abandon_running_jobs", now=tx.now, me=self._worker))

    async def release_stale_mailboxes(self) -> int:
        """See `RecoveryStore.release_stale_mailboxes`."""
        return await self._database.write(partial(_release_mailboxes, me=self._worker))

    async def requeue_stale_sending_messages(self) -> int:
        """See `RecoveryStore.requeue_stale_sending_messages`."""
        return await self._database.write(partial(_release_outboxes, me=self._worker, rules=self._rules))

    async def restart_doubts(self) -> int:
        """See `RecoveryStore.restart_doubts`."""
        return await self._database.write(partial(_restart_doubts, rules=self._rules))

    async def without_handler(self, flow_type: str, after: ParticipantId | None, limit: int) -> Sequence[ParticipantId]:
        """See `RecoveryStore.without_handler`."""
        rows = await self._database.read(
            lambda tx: tx.all(
                "active_participants_without_handler", flow_type=flow_type, after=after or "", limit=limit
            )
        )
        return [ParticipantId(row["participant_id"]) for row in rows]

    async def lost_timers(
        self, flow_type: str, data_key: str, after: ParticipantId | None, limit: int
    ) -> Sequence[LostTimer]:
        """See `RecoveryStore.lost_timers`."""
        path = f"$.{json.dumps(data_key)}"
        rows = await self._database.read(
            lambda tx: tx.all("lost_timers", flow_type=flow_type, path=path, after=after or "", limit=limit)
        )
        return [
            LostTimer(
                participant_id=ParticipantId(row["participant_id"]),
                job_id=JobId(str(row["job_id"])),
                ended=bool(row["ended"]),
                state_data=from_json(row["state_data"]),
            )
            for row in rows
        ]

    async def active(self, flow_type: str) -> int:
        """See `RecoveryStore.active`."""
        count: int = (await self._database.read(lambda tx: tx.the("count_active", flow_type=flow_type)))["n"]
        return count

    async def register_hook(self, hook: Hook) -> bool:
        """See `RecoveryStore.register_hook`."""
        return await self._database.write(lambda tx: participants.add_hook(tx, hook))

    async def report_lost_timer(self, timer: LostTimer, flow_type: str, data_key: str, remaining: float | None) -> bool:
        """See `RecoveryStore.report_lost_timer`."""
        event = TimerLost(flow_type=flow_type, job_id=timer.job_id, data_key=data_key, remaining=remaining)
        return await self._database.write(partial(_report_lost_timer, timer=timer, event=event))

    async def save_report(self, report: RecoveryReport) -> None:
        """See `RecoveryStore.save_report`."""
        text = json.dumps(asdict(report), default=datetime.isoformat)
        await self._database.write(
            lambda tx: tx.run("insert_report", id=tx.ids(), started_at=micros(report.started_at), report=text)
        )

    async def last_report(self) -> RecoveryReport | None:
        """See `RecoveryStore.last_report`."""
        row = await self._database.read(lambda tx: tx.one("last_report"))
        return None if row is None else _as_report(json.loads(row["report"]))


def _release_mailboxes(tx: Transaction, me: WorkerId) -> int:
    lanes = tx.all("stale_lanes", kind=Work.MAILBOX.value, me=me)
    for lane in lanes:
        empty = mailbox_events.head(tx, lane["key"]) is None
        tx.run("abandon_lane", kind=Work.MAILBOX.value, key=lane["key"], due_at=None if empty else tx.now)
    tx.wake(Work.MAILBOX)
    return len(lanes)


def _release_outboxes(tx: Transaction, me: WorkerId, rules: InDoubtRules) -> int:
    # The sender's process is known to be gone, so its requests have ended: the doubt starts now, not after
    # what was left of its lease.
    in_doubt = 0
    for lane in tx.all("stale_lanes", kind=Work.OUTBOX.value, me=me):
        in_doubt += messages.doubt_if_sending(tx, lane["key"], rules, SENDER_GONE)
        due_at = messages.head_due(tx, lane["key"])
        tx.run("abandon_lane", kind=Work.OUTBOX.value, key=lane["key"], due_at=due_at)
    tx.wake(Work.OUTBOX)
    return in_doubt


def _restart_doubts(tx: Transaction, rules: InDoubtRules) -> int:
    waiting = tx.all("restart_doubts", now=tx.now, wait=span(rules.wait))
    for message in waiting:
        tx.run("set_lane_due", kind=Work.OUTBOX.value, key=message["lane_key"], due_at=message["doubt_until"])
    return len(waiting)


def _report_lost_timer(tx: Transaction, timer: LostTimer, event: TimerLost) -> bool:
    if tx.one("waiting_loss", job_id=timer.job_id, kind=event.kind) is not None:
        return False
    mailbox_events.append(tx, timer.participant_id, event)
    return True


def _as_report(data: dict[str, Any]) -> RecoveryReport:
    components = [
        ComponentReport(**component | {"failures": tuple((what, why) for what, why in component["failures"])})
        for component in data["components"]
    ]
    return RecoveryReport(
        started_at=datetime.fromisoformat(data["started_at"]),
        finished_at=datetime.fromisoformat(data["finished_at"]),
        components=tuple(components),
    )
