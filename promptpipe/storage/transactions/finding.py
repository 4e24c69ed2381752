"""Finding what is broken."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from promptpipe.model.ids import JobId, MessageId, ParticipantId, ScheduleId
from promptpipe.model.leases import Work
from promptpipe.model.recovery import LostTimer, Span, StuckLane
from promptpipe.storage.transactions.values import from_json, to_json

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from promptpipe.storage.transactions.transaction import Database, Row


class FindingTransactions:
    """`ports.recovery.FindingStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def active(self, flow_type: str) -> int:
        """See `FindingStore.active`."""
        [row] = await self._all("count_active", flow_type=flow_type)
        count: int = row["n"]
        return count

    async def span(self, flow_type: str, after: str, limit: int) -> Span | None:
        """See `FindingStore.span`."""
        [row] = await self._all("active_span", flow_type=flow_type, after=after, limit=limit)
        return Span(row["first"], row["last"], row["n"]) if row["n"] else None

    async def without_handler(self, flow_type: str, span: Span) -> Sequence[ParticipantId]:
        """See `FindingStore.without_handler`."""
        rows = await self._all("active_participants_without_handler", flow_type=flow_type, **_bounds(span))
        return [ParticipantId(row["participant_id"]) for row in rows]

    async def lost_timers(self, flow_type: str, data_key: str, span: Span) -> Sequence[LostTimer]:
        """See `FindingStore.lost_timers`."""
        rows = await self._all("lost_timers", flow_type=flow_type, data_key=data_key, **_bounds(span))
        return [_as_lost(row, JobId(str(row["job_id"])), ended=bool(row["ended"])) for row in rows]

    async def missing_timers(self, flow_type: str, data_key: str, waiting_key: str, span: Span) -> Sequence[LostTimer]:
        """See `FindingStore.missing_timers`."""
        keys = {"data_key": data_key, "waiting_key": waiting_key}
        rows = await self._all("missing_timers", flow_type=flow_type, **keys, **_bounds(span))
        return [_as_lost(row, None, ended=False) for row in rows]

    async def misshapen(self, flow_type: str, shapes: Mapping[str, str], span: Span) -> Mapping[str, Sequence[str]]:
        """See `FindingStore.misshapen`."""
        rows = await self._all("misshapen_states", flow_type=flow_type, shapes=to_json(dict(shapes)), **_bounds(span))
        found: dict[str, list[str]] = defaultdict(list)
        for row in rows:
            found[row["participant_id"]].append(row["key"])
        return found

    async def unknown_flows(self, known: Collection[str]) -> Sequence[tuple[str, int]]:
        """See `FindingStore.unknown_flows`."""
        rows = await self._all("unknown_flows", known=sorted(known))
        return [(row["flow_type"], row["n"]) for row in rows]

    async def orphaned_handlers(self, limit: int) -> Sequence[tuple[str, str]]:
        """See `FindingStore.orphaned_handlers`."""
        rows = await self._all("orphaned_handlers", limit=limit)
        return [(row["participant_id"], row["handler_type"]) for row in rows]

    async def stuck_lanes(self, limit: int) -> Sequence[StuckLane]:
        """See `FindingStore.stuck_lanes`."""
        rows = await self._all("stuck_lanes", limit=limit)
        return [StuckLane(work=Work(row["kind"]), key=row["key"]) for row in rows]

    async def stray_messages(self, limit: int) -> Sequence[tuple[MessageId, str]]:
        """See `FindingStore.stray_messages`."""
        rows = await self._all("stray_messages", limit=limit)
        return [(MessageId(row["id"]), row["lane_key"]) for row in rows]

    async def stray_schedules(self, limit: int) -> Sequence[ScheduleId]:
        """See `FindingStore.stray_schedules`."""
        rows = await self._all("ids_of_stray_schedules", limit=limit)
        return [ScheduleId(row["id"]) for row in rows]

    async def ended_leases(self) -> Mapping[str, int]:
        """See `FindingStore.ended_leases`."""
        return {row["work"]: row["n"] for row in await self._all("ended_leases") if row["n"]}

    async def _all(self, statement: str, **values: object) -> Sequence[Row]:
        return await self._database.read(lambda tx: tx.all(statement, **values))


def _bounds(span: Span) -> dict[str, str]:
    return {"first": span.first, "last": span.last}


def _as_lost(row: Row, job_id: JobId | None, *, ended: bool) -> LostTimer:
    return LostTimer(
        participant_id=ParticipantId(row["participant_id"]),
        job_id=job_id,
        ended=ended,
        state_data=from_json(row["state_data"]),
    )
