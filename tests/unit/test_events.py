"""Events as they are stored."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, get_args

import pytest

from promptpipe.model import events
from promptpipe.model.errors import FlowError
from promptpipe.model.events import (
    Enrolled,
    FlowMoved,
    FlowReset,
    MessageFailed,
    MessageSent,
    PromptOrdered,
    Replied,
    Signal,
    TimerFired,
    TimerLost,
    decoded,
    encoded,
)
from promptpipe.model.ids import JobId, MessageId, ResponseId

if TYPE_CHECKING:
    from promptpipe.model.events import Event

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
EVENTS: list[Event] = [
    Enrolled(flow_type="conversation"),
    Replied(response_id=ResponseId("r"), channel="whatsapp", type="text", text="hi", said_at=NOW, choice_id="c"),
    TimerFired(job_id=JobId("j"), job_kind="k", dedupe_key=None, payload={"a": [1, None]}),
    MessageSent(flow_type="f", message_id=MessageId("m"), sent_at=NOW),
    MessageFailed(flow_type="f", message_id=MessageId("m"), error="e"),
    TimerLost(flow_type="f", job_id=JobId("j"), data_key="d", remaining=1.5),
    PromptOrdered(message_id=MessageId("m"), prompt={"type": "static", "body": "b"}, dedupe_key="k"),
    FlowMoved(flow_type="f", target_state="FEEDBACK", reason="why"),
    FlowReset(flow_type="f"),
    Signal(flow_type="f", name="n", payload={"a": 1}),
]


def test_each_kind_is_in_the_table() -> None:
    """What is added to the events is added here."""
    assert {type(event) for event in EVENTS} == set(get_args(events.Event))


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.kind)
def test_events_survive_storage(event: Event) -> None:
    """What is read is what was written; what a newer version added is left out."""
    assert decoded(event.kind, {**encoded(event), "from_the_future": 1}) == event


@pytest.mark.parametrize(
    ("kind", "data", "reason"),
    [
        ("farewell", {}, "unknown to this version"),
        ("enrolled", {}, "malformed"),
        ("message_sent", {"flow_type": "f", "message_id": "m", "sent_at": "yesterday"}, "malformed"),
    ],
)
def test_what_was_never_written_is_refused(kind: str, data: dict[str, object], reason: str) -> None:
    """The event goes aside, with this as its reason."""
    with pytest.raises(FlowError, match=reason):
        decoded(kind, data)
