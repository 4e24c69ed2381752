"""FlowService: events that were set aside."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grpclib.const import Status

from promptpipe.client import v1
from promptpipe.model.inbound import InboundBatch
from promptpipe.model.leases import Claim
from tests.support.admin import ADA, open_admin, refused, resource
from tests.support.people import inbound

if TYPE_CHECKING:
    from tests.support.admin import Admin
    from tests.support.service import Home


async def set_aside(admin: Admin) -> None:
    """Let every event of every mailbox fail for the last time."""
    mailboxes = admin.components.store.mailboxes
    claim = Claim(worker=admin.components.worker, limit=10, seconds=30)
    while deliveries := (await mailboxes.claim(claim)).items:
        for delivery in deliveries:
            await mailboxes.retry(delivery.lease, delivery.event.id, error="boom", delay=0, blocked=9, limit=9)


async def listed(admin: Admin, participant_id: str | None = None) -> list[v1.EventAside]:
    request = v1.ListEventsAsideRequest(participant_id=participant_id)
    return (await admin.flows.list_events_aside(request)).events


async def test_event_aside_is_listed_retried_and_dropped(home: Home) -> None:
    """Whole: what has happened, to whom, and why it could not be handled."""
    async with open_admin(home) as admin:
        ada = await admin.enroll()
        await admin.components.store.inbound.ingest(InboundBatch((inbound("help 👋", ADA),)), None)
        assert await listed(admin) == []
        await set_aside(admin)
        replied, enrolled = await listed(admin)
        assert (enrolled.kind, enrolled.participant_id, replied.kind) == ("enrolled", ada.id, "replied")
        assert (replied.attempts, replied.last_error) == (1, "boom")
        assert replied.payload is not None
        assert replied.payload.to_dict()["text"] == "help 👋"
        assert await listed(admin, "somebody else") == []
        page = await admin.flows.list_events_aside(v1.ListEventsAsideRequest(page_size=1))
        assert ([event.id for event in page.events], page.next_page_token != "") == ([replied.id], True)

        retry, drop = v1.RetryEventRequest(event_id=replied.id), v1.DropEventRequest(event_id=replied.id)
        await admin.flows.retry_event(retry)
        await refused(admin.flows.retry_event(retry), Status.FAILED_PRECONDITION)
        await refused(admin.flows.drop_event(drop), Status.FAILED_PRECONDITION)
        assert [event.id for event in await listed(admin, ada.id)] == [enrolled.id]
        await admin.flows.drop_event(v1.DropEventRequest(event_id=enrolled.id))
        assert await listed(admin) == []


async def test_event_that_is_not_there_is_named(home: Home) -> None:
    """Whatever was asked for."""
    async with open_admin(home) as admin:
        for event_id in ("", "no-such-event"):
            error = await refused(admin.flows.retry_event(v1.RetryEventRequest(event_id=event_id)), Status.NOT_FOUND)
            assert resource(error) == ("event", event_id)
            error = await refused(admin.flows.drop_event(v1.DropEventRequest(event_id=event_id)), Status.NOT_FOUND)
            assert resource(error) == ("event", event_id)
