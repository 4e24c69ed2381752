"""What recovery needs of a store."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from promptpipe.model.events import TimerLost
from promptpipe.model.leases import Lease, Work
from promptpipe.model.recovery import ComponentReport, RecoveryReport
from promptpipe.storage.transactions import mailbox_events, messages, participants, schedules
from promptpipe.storage.transactions.finding import FindingTransactions
from promptpipe.storage.transactions.pages import page
from promptpipe.storage.transactions.values import span

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from promptpipe.model.decisions import Hook
    from promptpipe.model.ids import MessageId, ScheduleId, WorkerId
    from promptpipe.model.listing import Page, PageRequest
    from promptpipe.model.messages import InDoubtRules
    from promptpipe.model.recovery import LostTimer, StuckLane
    from promptpipe.storage.transactions.transaction import Database, Transaction

SENDER_GONE = "its sender was gone while the request was on its way"

_ROUSING = {Work.MAILBOX: "rouse_mailbox", Work.OUTBOX: "rouse_outbox"}

READY_SECONDS = 10.0
"""An instance that said so for the last time longer ago can no longer be taken for ready."""


class RecoveryTransactions(FindingTransactions):
    """`ports.recovery.RecoveryStore`."""

    def __init__(self, database: Database, worker: WorkerId, rules: InDoubtRules) -> None:
        super().__init__(database)
        self._worker = worker
        self._rules = rules

    async def begin(self, seconds: float) -> Lease | None:
        """See `RecoveryStore.begin`."""
        return await self._database.write(partial(_begin, me=self._worker, lease_seconds=seconds))

    async def end(self, lease: Lease) -> None:
        """See `RecoveryStore.end`."""
        await self._database.write(partial(_end, lease=lease))

    async def requeue_stale_running_jobs(self) -> int:
        """See `RecoveryStore.requeue_stale_running_jobs`."""
        return await self._database.write(partial(_requeue_jobs, me=self._worker))

    async def release_stale_mailboxes(self) -> int:
        """See `RecoveryStore.release_stale_mailboxes`."""
        return await self._database.write(partial(_release_mailboxes, me=self._worker))

    async def requeue_stale_sending_messages(self) -> Sequence[MessageId]:
        """See `RecoveryStore.requeue_stale_sending_messages`."""
        return await self._database.write(partial(_release_outboxes, me=self._worker, rules=self._rules))

    async def restart_doubts(self) -> int:
        """See `RecoveryStore.restart_doubts`."""
        return await self._database.write(partial(_restart_doubts, me=self._worker, rules=self._rules))

    async def repair_schedules(self, limit: int) -> Sequence[ScheduleId]:
        """See `RecoveryStore.repair_schedules`."""
        return await self._database.write(partial(schedules.repair, limit=limit))

    async def register_hook(self, hook: Hook) -> bool:
        """See `RecoveryStore.register_hook`."""
        return await self._database.write(partial(participants.add_hook, hook=hook))

    async def remove_orphaned_handler(self, participant_id: str, handler_type: str) -> bool:
        """See `RecoveryStore.remove_orphaned_handler`."""
        values = {"participant_id": participant_id, "handler_type": handler_type}
        return bool(await self._database.write(lambda tx: tx.count("delete_orphaned_handler", **values)))

    async def rouse_lane(self, lane: StuckLane) -> bool:
        """See `RecoveryStore.rouse_lane`."""
        return await self._database.write(partial(_rouse, lane=lane))

    async def doubt_stray_message(self, lane_key: str) -> bool:
        """See `RecoveryStore.doubt_stray_message`."""
        return await self._database.write(partial(_doubt_stray, key=lane_key, rules=self._rules))

    async def report_lost_timer(self, timer: LostTimer, flow_type: str, data_key: str, remaining: float | None) -> bool:
        """See `RecoveryStore.report_lost_timer`."""
        event = TimerLost(flow_type=flow_type, job_id=timer.job_id, data_key=data_key, remaining=remaining)
        return await self._database.write(partial(_report_lost_timer, timer=timer, event=event))

    async def save_report(self, report: RecoveryReport) -> None:
        """See `RecoveryStore.save_report`."""
        text = json.dumps(asdict(report), default=datetime.isoformat)
        await self._database.write(
            lambda tx: tx.run("insert_report", id=tx.ids(), started_at=report.started_at, report=text)
        )

    async def last_report(self) -> RecoveryReport | None:
        """See `RecoveryStore.last_report`."""
        row = await self._database.read(lambda tx: tx.one("last_report"))
        return None if row is None else _as_report(json.loads(row["report"]))

    async def reports(self, page: PageRequest) -> Page[RecoveryReport]:
        """See `RecoveryStore.reports`."""
        return await self._database.read(partial(_reports, request=page))


async def _reports(tx: Transaction, request: PageRequest) -> Page[RecoveryReport]:
    return await page(tx, "list_reports", request, lambda row: _as_report(json.loads(row["report"])))


async def _begin(tx: Transaction, me: WorkerId, lease_seconds: float) -> Lease | None:
    fence = await tx.next_fence()
    taken = await tx.count("lease_recovery", me=me, fence=fence, lease=span(lease_seconds))
    return Lease(Work.RECOVERY, Work.RECOVERY.value, fence) if taken else None


async def _end(tx: Transaction, lease: Lease) -> None:
    await tx.run("end_recovery", fence=lease.fence)


async def _requeue_jobs(tx: Transaction, me: WorkerId) -> int:
    requeued = await tx.count("abandon_running_jobs", me=me)
    if requeued:
        tx.wake(Work.JOB)
    return requeued


async def _release_mailboxes(tx: Transaction, me: WorkerId) -> int:
    stale = await tx.all("stale_lanes", kind=Work.MAILBOX.value, me=me)
    for lane in stale:
        empty = not await mailbox_events.heads(tx, [lane["key"]])
        due_at = None if empty else await tx.now()
        await tx.run("abandon_lane", kind=Work.MAILBOX.value, key=lane["key"], due_at=due_at)
    tx.wake(Work.MAILBOX)
    return len(stale)


async def _release_outboxes(tx: Transaction, me: WorkerId, rules: InDoubtRules) -> list[MessageId]:
    in_doubt: list[MessageId] = []
    for lane in await tx.all("stale_lanes", kind=Work.OUTBOX.value, me=me):
        start = lane["request_end"] + span(rules.linger)
        in_doubt += await messages.doubt_if_sending(tx, lane["key"], rules, SENDER_GONE, start=start)
        due_at = await messages.head_due(tx, lane["key"])
        await tx.run("abandon_lane", kind=Work.OUTBOX.value, key=lane["key"], due_at=due_at)
    tx.wake(Work.OUTBOX)
    return in_doubt


async def _rouse(tx: Transaction, lane: StuckLane) -> bool:
    await tx.lock_lanes([(lane.work, lane.key)])
    roused = await tx.count(_ROUSING[lane.work], key=lane.key)
    tx.wake(lane.work)
    return bool(roused)


async def _doubt_stray(tx: Transaction, key: str, rules: InDoubtRules) -> bool:
    await tx.lock_lanes([(Work.OUTBOX, key)])
    if await tx.one("stray_message_of", lane_key=key) is None:
        return False
    await messages.doubt_if_sending(tx, key, rules, SENDER_GONE)
    await tx.run("set_lane_due", kind=Work.OUTBOX.value, key=key, due_at=await messages.head_due(tx, key))
    tx.wake(Work.OUTBOX)
    return True


async def _restart_doubts(tx: Transaction, me: WorkerId, rules: InDoubtRules) -> int:
    if await tx.one("another_ready", me=me, since=span(READY_SECONDS)) is not None:
        return 0  # statuses could arrive all the time
    waiting = await tx.all("lanes_in_doubt")
    await tx.lock_lanes([(Work.OUTBOX, row["lane_key"]) for row in waiting])
    restarted = await tx.all("restart_doubts", wait=span(rules.wait))
    for message in restarted:
        await tx.run("set_lane_due", kind=Work.OUTBOX.value, key=message["lane_key"], due_at=message["doubt_until"])
    return len(restarted)


async def _report_lost_timer(tx: Transaction, timer: LostTimer, event: TimerLost) -> bool:
    await tx.lock_lanes([(Work.MAILBOX, timer.participant_id)])
    job_id = mailbox_events.timer_of(timer.participant_id, event)
    if await tx.one("waiting_loss", job_id=job_id, kind=event.kind) is not None:
        return False
    await mailbox_events.append(tx, [(timer.participant_id, event)])
    return True


def _as_report(data: dict[str, Any]) -> RecoveryReport:
    components = [
        ComponentReport(**component | {name: _pairs(component.get(name, ())) for name in ("repairs", "failures")})
        for component in data["components"]
    ]
    return RecoveryReport(
        started_at=datetime.fromisoformat(data["started_at"]),
        finished_at=datetime.fromisoformat(data["finished_at"]),
        components=tuple(components),
    )


def _pairs(items: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    return tuple((subject, said) for subject, said in items)
