"""FlowService: conversations as operators see and move them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from grpclib.const import Status

from promptpipe.client import v1
from promptpipe.flows.conversation import script
from promptpipe.model.ids import ParticipantId
from promptpipe.rpc.convert import struct
from tests.support.admin import ADA, BOB, Admin, open_admin, refused, resource, violation
from tests.support.eventually import eventually

if TYPE_CHECKING:
    from tests.support.service import Home

FLOW = "conversation"


def opening(name: str | None) -> list[str]:
    """Return what somebody new hears."""
    return [script.greeting(name), script.INTAKE["habit_domain"]]


async def move(admin: Admin, who: str, target: str, **values: Any) -> v1.FlowState:
    wanted = {"participant_id": who, "flow_type": FLOW, "target_state": target, **values}
    state = (await admin.flows.transition_flow(v1.TransitionFlowRequest(**wanted))).flow_state
    assert state is not None
    return state


async def said(admin: Admin, who: str) -> list[str]:
    """Return the texts of what was said to somebody, the oldest first."""
    answer = await admin.outbox.list_messages(v1.ListMessagesRequest(participant_id=who))
    return [message.text or "" for message in reversed(answer.messages)]


async def place(admin: Admin, who: str) -> v1.FlowState:
    answer = await admin.flows.get_flow_state(v1.GetFlowStateRequest(participant_id=who, flow_type=FLOW))
    assert answer.flow_state is not None
    return answer.flow_state


async def test_conversation_goes_on_elsewhere_when_it_is_moved(home: Home) -> None:
    """The answer is the place afterwards; in which letters the state is written does not matter."""
    async with open_admin(home, handles=True) as admin:
        ada = await admin.enroll(name="Ada")
        moved = await move(admin, ada.id, "feedback", reason="a test")
        assert (moved.current_state, moved.state_data and moved.state_data.to_dict()["conversationState"]) == (
            "CONVERSATION_ACTIVE",
            "FEEDBACK",
        )
        assert moved == await place(admin, ada.id)
        assert (await move(admin, ada.id, "INTAKE")).version == moved.version + 1
        assert await said(admin, ada.id) == opening("Ada")


async def test_state_that_the_flow_does_not_have_is_refused_with_those_it_has(home: Home) -> None:
    """Nothing has changed."""
    async with open_admin(home, handles=True) as admin:
        ada = await admin.enroll()
        before = await move(admin, ada.id, "FEEDBACK")
        request = v1.TransitionFlowRequest(participant_id=ada.id, flow_type=FLOW, target_state="MARS")
        error = await refused(admin.flows.transition_flow(request), Status.FAILED_PRECONDITION)
        assert error.message == "the conversation has no state 'MARS'; it has: INTAKE, FEEDBACK"
        assert await place(admin, ada.id) == before


async def test_conversation_begins_again_when_it_is_reset(home: Home) -> None:
    """It has forgotten everything, and greets."""
    async with open_admin(home, handles=True) as admin:
        ada = await admin.enroll(name="Ada")
        await move(admin, ada.id, "FEEDBACK")
        request = v1.ResetFlowRequest(participant_id=ada.id, flow_type=FLOW)
        state = (await admin.flows.reset_flow(request)).flow_state
        assert state is not None
        assert state.state_data is not None
        assert set(state.state_data.to_dict()) == {"participantBackground", "conversationHistory"}
        assert await said(admin, ada.id) == [*opening("Ada"), *opening("Ada")]


async def test_event_is_handed_to_the_flow_which_may_not_know_it(home: Home) -> None:
    """The conversation knows none."""
    async with open_admin(home, handles=True) as admin:
        ada = await admin.enroll()
        request = v1.SendEventRequest(
            participant_id=ada.id, flow_type=FLOW, name="visited", payload=struct({"page": "a"})
        )
        error = await refused(admin.flows.send_event(request), Status.FAILED_PRECONDITION)
        assert error.message == "the conversation knows no event 'visited'"


async def test_flow_is_started_for_who_is_not_in_it(home: Home) -> None:
    """They are greeted as if they had been enrolled into it; once."""
    async with open_admin(home, handles=True) as admin:
        ada = await admin.enroll()
        request = v1.StartFlowRequest(participant_id=ada.id, flow_type=FLOW)
        error = await refused(admin.flows.start_flow(request), Status.ALREADY_EXISTS)
        assert resource(error)[0] == "flow state"

        async def greeted() -> bool:
            return await said(admin, ada.id) == opening(None)

        await eventually(greeted)
        home.change("DELETE FROM flow_states")
        home.change("DELETE FROM registered_hooks")
        started = (await admin.flows.start_flow(request)).flow_state
        assert started == await place(admin, ada.id)
        assert await said(admin, ada.id) == [*opening(None), *opening(None)]


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"target_state": ""}, "target_state"),
        ({"target_state": "x" * 201}, "target_state"),
        ({"reason": "x" * 1001}, "reason"),
        ({"target_state": "a\0b"}, "target_state"),
    ],
)
async def test_bad_value_is_refused_by_name(home: Home, values: dict[str, str], field: str) -> None:
    """Before anything is put into a mailbox."""
    async with open_admin(home) as admin:
        ada = await admin.enroll()
        request = v1.TransitionFlowRequest(
            **{"participant_id": ada.id, "flow_type": FLOW, "target_state": "FEEDBACK", **values}
        )
        error = await refused(admin.flows.transition_flow(request), Status.INVALID_ARGUMENT)
        assert violation(error)[0] == field


async def test_unknown_flows_and_people_are_told(home: Home) -> None:
    """A flow that nobody is in is not found; one that does not exist cannot be started."""
    async with open_admin(home) as admin:
        ada = await admin.enroll()
        reset = v1.ResetFlowRequest(participant_id=ada.id, flow_type="mars")
        assert resource(await refused(admin.flows.reset_flow(reset), Status.NOT_FOUND)) == (
            "flow state",
            f"{ada.id}/mars",
        )
        start = v1.StartFlowRequest(participant_id=ada.id, flow_type="mars")
        error = await refused(admin.flows.start_flow(start), Status.INVALID_ARGUMENT)
        assert violation(error) == ("flow_type", "no flow is of type mars")
        nobody = v1.StartFlowRequest(participant_id="nobody", flow_type=FLOW)
        await refused(admin.flows.start_flow(nobody), Status.NOT_FOUND)


async def test_who_is_not_active_is_not_moved(home: Home) -> None:
    """The reason says so."""
    async with open_admin(home, handles=True) as admin:
        ada = await admin.enroll()
        paused = v1.UpdateParticipantRequest(participant_id=ada.id, status=v1.ParticipantStatus.PAUSED)
        await admin.participants.update_participant(paused)
        request = v1.ResetFlowRequest(participant_id=ada.id, flow_type=FLOW)
        error = await refused(admin.flows.reset_flow(request), Status.FAILED_PRECONDITION)
        assert error.message == "the participant is paused"


async def test_order_waits_in_the_mailbox_when_the_deadline_passes(home: Home) -> None:
    """Nobody handles events here yet; once somebody does, it is carried out."""
    async with open_admin(home) as admin:
        ada = await admin.enroll()
        request = v1.TransitionFlowRequest(participant_id=ada.id, flow_type=FLOW, target_state="FEEDBACK")
        began = time.monotonic()
        await refused(admin.flows.transition_flow(request, timeout=0.2), Status.DEADLINE_EXCEEDED)
        assert 0.2 <= time.monotonic() - began < 2.0
    async with open_admin(home, handles=True) as admin:
        flow_state = admin.components.store.participants.flow_state

        async def moved() -> bool:
            return (await flow_state(ParticipantId(ada.id), FLOW)).data.get("conversationState") == "FEEDBACK"

        await eventually(moved)


async def test_places_are_listed_by_flow_and_by_person(home: Home) -> None:
    """Those of the newest participants first, page by page."""
    async with open_admin(home) as admin:
        ada, bob = await admin.enroll(ADA), await admin.enroll(BOB)
        first = await admin.flows.list_flow_states(v1.ListFlowStatesRequest(page_size=1, flow_type=FLOW))
        rest = await admin.flows.list_flow_states(
            v1.ListFlowStatesRequest(page_size=1, flow_type=FLOW, page_token=first.next_page_token)
        )
        assert [state.participant_id for state in (*first.flow_states, *rest.flow_states)] == [bob.id, ada.id]
        mine = await admin.flows.list_flow_states(v1.ListFlowStatesRequest(participant_id=ada.id))
        assert [state.participant_id for state in mine.flow_states] == [ada.id]
        assert (await admin.flows.list_flow_states(v1.ListFlowStatesRequest(flow_type="mars"))).flow_states == []


async def test_watching_is_unimplemented(home: Home) -> None:
    """And says so, with the code that clients know."""
    async with open_admin(home) as admin:
        await refused(_first(admin), Status.UNIMPLEMENTED)


async def _first(admin: Admin) -> None:
    async for _ in admin.flows.watch_flows(v1.WatchFlowsRequest()):
        break


async def test_place_that_cannot_be_read_is_shown_with_its_problem(home: Home) -> None:
    """Beside the others."""
    async with open_admin(home) as admin:
        ada, bob = await admin.enroll(ADA), await admin.enroll(BOB)
        home.change("UPDATE flow_states SET state_data = '[1]' WHERE participant_id = ?", ada.id)
        shown = (await admin.flows.list_flow_states(v1.ListFlowStatesRequest())).flow_states
        problem = "the state cannot be read: expected a JSON object, got list"
        assert [(state.participant_id, state.problem) for state in shown] == [(bob.id, ""), (ada.id, problem)]
        assert (await place(admin, ada.id)).problem == problem
