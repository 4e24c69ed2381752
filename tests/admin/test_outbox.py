"""OutboxService, HistoryService, FlowService, RecoveryService."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from grpclib.const import Status

from promptpipe.client import v1
from promptpipe.flows.conversation.timers import TIMERS
from promptpipe.model.ids import MessageId
from promptpipe.model.inbound import InboundBatch
from promptpipe.model.leases import Claim
from promptpipe.model.messages import MessageClass, MessageStatus, SendOrder, SendRecord, Settlement, Verdict
from tests.support.admin import ADA, BOB, open_admin, refused, resource, violation
from tests.support.people import inbound, receipt

if TYPE_CHECKING:
    from tests.support.admin import Admin
    from tests.support.service import Home

LATER = datetime(2100, 1, 1, tzinfo=UTC)


async def enqueue(admin: Admin, **values: Any) -> v1.OutboxMessage:
    request = v1.EnqueueMessageRequest(**{"text": "hello"} | values)
    answer = await admin.outbox.enqueue_message(request)
    assert answer.message is not None
    return answer.message


async def test_text_is_enqueued_for_a_participant(home: Home) -> None:
    """By number or by id; it comes back as it stands in the outbox."""
    async with open_admin(home) as admin:
        ada = await admin.enroll()
        by_number = await enqueue(admin, to="+1 650 555 1234", expires_at=LATER, text="to you 👋\nnew line")
        assert (by_number.participant_id, by_number.recipient, by_number.channel) == (ada.id, ADA, "whatsapp")
        assert (by_number.kind, by_number.text, by_number.status) == (
            "text",
            "to you 👋\nnew line",
            v1.OutboxMessageStatus.QUEUED,
        )
        assert by_number.expires_at == LATER
        by_id = await enqueue(admin, participant_id=ada.id, in_doubt_policy=v1.OutboxMessageInDoubtPolicy.HOLD)
        assert by_id.in_doubt_policy is v1.OutboxMessageInDoubtPolicy.HOLD
        assert (await admin.outbox.get_message(v1.GetMessageRequest(message_id=by_id.id))).message == by_id
        stored = await admin.components.store.outbox.get(MessageId(by_id.id))
        assert stored.message_class is MessageClass.BROADCAST  # replies of flows overtake it
        listed = await admin.outbox.list_messages(v1.ListMessagesRequest(participant_id=ada.id))
        assert [item.id for item in listed.messages] == [by_id.id, by_number.id]


async def test_same_key_twice_is_one_message(home: Home) -> None:
    """A service that is not sure whether its call arrived makes it again."""
    async with open_admin(home) as admin:
        await admin.enroll()
        request = v1.EnqueueMessageRequest(to=ADA, text="once", dedupe_key="k")
        answers = [await admin.outbox.enqueue_message(request) for _ in range(2)]
        assert [answer.created for answer in answers] == [True, False]
        assert answers[0].message == answers[1].message


async def test_message_to_someone_who_has_left_is_canceled(home: Home) -> None:
    """It is kept, and never leaves."""
    async with open_admin(home) as admin:
        ada = await admin.enroll()
        left = v1.UpdateParticipantRequest(participant_id=ada.id, status=v1.ParticipantStatus.WITHDRAWN)
        await admin.participants.update_participant(left)
        assert (await enqueue(admin, to=ADA)).status is v1.OutboxMessageStatus.CANCELED


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("text", {"to": ADA, "text": ""}),
        ("text", {"to": ADA, "text": "  \n"}),
        ("text", {"to": ADA, "text": "x" * 4097}),
        ("text", {"to": ADA, "text": "a\x00b"}),
        ("to", {"to": "12"}),
        ("to", {}),
        ("to", {"to": ADA, "participant_id": "x"}),
        ("text", {"to": ADA, "text": None}),
        ("text", {"to": ADA, "media": v1.Media()}),
        ("dedupe_key", {"to": ADA, "dedupe_key": "x" * 201}),
        ("in_doubt_policy", {"to": ADA, "in_doubt_policy": v1.OutboxMessageInDoubtPolicy(9)}),
    ],
)
async def test_bad_value_is_refused_by_name(home: Home, field: str, values: dict[str, Any]) -> None:
    """INVALID_ARGUMENT says which field; nothing was enqueued."""
    async with open_admin(home) as admin:
        await admin.enroll()
        assert violation(await refused(enqueue(admin, **values), Status.INVALID_ARGUMENT))[0] == field
        assert (await admin.outbox.list_messages(v1.ListMessagesRequest())).messages == []


async def test_message_to_nobody_is_not_found(home: Home) -> None:
    """By number, by id."""
    async with open_admin(home) as admin:
        for values in ({"to": BOB}, {"participant_id": "nobody"}):
            assert resource(await refused(enqueue(admin, **values), Status.NOT_FOUND))[0] == "participant"
        error = await refused(admin.outbox.get_message(v1.GetMessageRequest(message_id="x")), Status.NOT_FOUND)
        assert resource(error) == ("message", "x")


async def test_only_text_is_sent_yet(home: Home) -> None:
    """The others say so, rather than being dropped."""
    async with open_admin(home) as admin:
        await admin.enroll()
        call = enqueue(admin, to=ADA, text=None, template=v1.Template(name="hello", language="en_US"))
        await refused(call, Status.UNIMPLEMENTED)


async def doubtful(admin: Admin) -> v1.OutboxMessage:
    """Return a message in doubt."""
    await admin.enroll()
    message = await enqueue(admin, to=ADA)
    outbox = admin.components.store.outbox
    claim = Claim(worker=admin.components.worker, limit=1, seconds=30, held=(), suspect=False)
    [lease] = (await outbox.claim(claim)).items
    [order] = await outbox.mark_sending([lease], seconds=30)
    assert isinstance(order, SendOrder)
    await outbox.record([SendRecord(order, Settlement(verdict=Verdict.DOUBTFUL, error="ReadTimeout"), None)])
    return message


@pytest.mark.parametrize(
    ("resolution", "status"),
    [
        (v1.ResolveInDoubtRequestResolution.RESEND, v1.OutboxMessageStatus.QUEUED),
        (v1.ResolveInDoubtRequestResolution.DROP, v1.OutboxMessageStatus.FAILED),
        (v1.ResolveInDoubtRequestResolution.MARK_SENT, v1.OutboxMessageStatus.SENT),
    ],
)
async def test_operator_resolves_a_doubt_once(
    home: Home, resolution: v1.ResolveInDoubtRequestResolution, status: v1.OutboxMessageStatus
) -> None:
    """The second time there is no doubt any more."""
    async with open_admin(home) as admin:
        message = await doubtful(admin)
        request = v1.ResolveInDoubtRequest(message_id=message.id, resolution=resolution)
        resolved = (await admin.outbox.resolve_in_doubt(request)).message
        assert resolved is not None
        assert resolved.status is status
        await refused(admin.outbox.resolve_in_doubt(request), Status.FAILED_PRECONDITION)
        undecided = v1.ResolveInDoubtRequest(message_id=message.id)
        error = await refused(admin.outbox.resolve_in_doubt(undecided), Status.INVALID_ARGUMENT)
        assert violation(error) == ("resolution", "must be one of: RESEND, DROP, MARK_SENT")


async def test_queued_message_is_taken_back_and_sent_again(home: Home) -> None:
    """Both answer with the message as it stands."""
    async with open_admin(home) as admin:
        await admin.enroll()
        message = await enqueue(admin, to=ADA)
        canceled = (await admin.outbox.cancel_message(v1.CancelMessageRequest(message_id=message.id))).message
        assert canceled is not None
        assert canceled.status is v1.OutboxMessageStatus.CANCELED
        retried = (await admin.outbox.retry_message(v1.RetryMessageRequest(message_id=message.id))).message
        assert retried is not None
        assert (retried.id, retried.status) == (message.id, v1.OutboxMessageStatus.QUEUED)


async def test_message_that_may_have_left_is_not_taken_back(home: Home) -> None:
    """FAILED_PRECONDITION, and the text says what settles a doubt; so it is for sending it again."""
    async with open_admin(home) as admin:
        message = await doubtful(admin)
        cancel = admin.outbox.cancel_message(v1.CancelMessageRequest(message_id=message.id))
        assert "ResolveInDoubt" in str((await refused(cancel, Status.FAILED_PRECONDITION)).message)
        retry = admin.outbox.retry_message(v1.RetryMessageRequest(message_id=message.id))
        assert "in_doubt" in str((await refused(retry, Status.FAILED_PRECONDITION)).message)


async def test_messages_that_do_not_exist(home: Home) -> None:
    """NOT_FOUND, with the id in its details."""
    async with open_admin(home) as admin:
        for call in (
            admin.outbox.cancel_message(v1.CancelMessageRequest(message_id="x")),
            admin.outbox.retry_message(v1.RetryMessageRequest(message_id="x")),
        ):
            assert resource(await refused(call, Status.NOT_FOUND)) == ("message", "x")


async def test_history_shows_what_was_said_and_what_became_of_it(home: Home) -> None:
    """Responses with the provider's update, receipts with the message they are about."""
    async with open_admin(home) as admin:
        message = await doubtful(admin)
        delivered = receipt(MessageStatus.DELIVERED, reference=(MessageId(message.id), 1))
        raw = b'{"type": "text", "nested": {"list": [1, "\\u0000"]}}'
        updates = (inbound("hi", ADA, raw=raw), inbound("x", BOB, raw=b"not json"), delivered)
        await admin.components.store.inbound.ingest(InboundBatch(updates), None)
        responses = (await admin.history.list_responses(v1.ListResponsesRequest())).responses
        assert [(item.sender, item.text, item.type) for item in responses] == [(BOB, "x", "text"), (ADA, "hi", "text")]
        assert responses[0].payload is None
        assert responses[1].payload is not None
        assert responses[1].payload.to_dict() == {"type": "text", "nested": {"list": [1, "\ufffd"]}}
        assert responses[1].participant_id == message.participant_id
        mine = v1.ListResponsesRequest(participant_id=message.participant_id, page_size=1)
        assert [item.id for item in (await admin.history.list_responses(mine)).responses] == [responses[1].id]
        receipts = (await admin.history.list_receipts(v1.ListReceiptsRequest(message_id=message.id))).receipts
        assert [(item.status, item.provider_message_id) for item in receipts] == [
            (v1.OutboxMessageStatus.DELIVERED, "wamid.out")
        ]
        settled = (await admin.outbox.get_message(v1.GetMessageRequest(message_id=message.id))).message
        assert settled is not None
        assert settled.status is v1.OutboxMessageStatus.DELIVERED


async def test_flow_states_are_shown(home: Home) -> None:
    """One, or a list of them; a flow that somebody is not in is not found."""
    async with open_admin(home) as admin:
        ada, bob = await admin.enroll(ADA), await admin.enroll(BOB)
        request = v1.GetFlowStateRequest(participant_id=ada.id, flow_type="conversation")
        state = (await admin.flows.get_flow_state(request)).flow_state
        assert state is not None
        assert (state.participant_id, state.current_state, state.version) == (ada.id, "CONVERSATION_ACTIVE", 1)
        first = await admin.flows.list_flow_states(v1.ListFlowStatesRequest(page_size=1))
        assert [item.participant_id for item in first.flow_states] == [bob.id]
        rest = v1.ListFlowStatesRequest(page_token=first.next_page_token)
        assert (await admin.flows.list_flow_states(rest)).flow_states == [state]
        other = v1.GetFlowStateRequest(participant_id=ada.id, flow_type="zen")
        error = await refused(admin.flows.get_flow_state(other), Status.NOT_FOUND)
        assert resource(error) == ("flow state", f"{ada.id}/zen")


async def test_recovery_runs_on_request_and_keeps_its_report(home: Home) -> None:
    """It finds what is missing once, and nothing the second time."""
    async with open_admin(home) as admin:
        await refused(admin.recovery.get_last_report(v1.GetLastReportRequest()), Status.NOT_FOUND)
        await admin.enroll()
        home.change("DELETE FROM registered_hooks")
        reports = [(await admin.recovery.run_recovery(v1.RunRecoveryRequest())).report for _ in range(2)]
        restored = []
        for report in reports:
            assert report is not None
            restored.append(sum(component.restored for component in report.components))
        assert restored == [1, 0]
        assert (await admin.recovery.get_last_report(v1.GetLastReportRequest())).report == reports[1]
        first = await admin.recovery.list_reports(v1.ListReportsRequest(page_size=1))
        rest = await admin.recovery.list_reports(v1.ListReportsRequest(page_token=first.next_page_token))
        assert ([*first.reports, *rest.reports], rest.next_page_token) == (reports[::-1], "")


async def test_flow_types_are_listed(home: Home) -> None:
    """With the kinds of their timers, which jobs can be enqueued for."""
    async with open_admin(home) as admin:
        [flow] = (await admin.flows.list_flow_types(v1.ListFlowTypesRequest())).flow_types
        assert (flow.name, flow.job_kinds) == ("conversation", sorted(timer.kind for timer in TIMERS))
