"""Reading old values: times as both databases and the old program wrote them, and whatever else may stand there."""

from __future__ import annotations

import contextlib
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptpipe.flows.conversation.state import SHAPES
from promptpipe.flows.conversation.timers import TIMERS
from promptpipe.importing import rows
from promptpipe.importing.conversations import carried
from promptpipe.importing.ids import imported_id
from promptpipe.importing.reading import OldRow, UnreadableError, as_instant
from promptpipe.importing.values import READERS, state_data
from promptpipe.model.decisions import FlowState
from promptpipe.model.text import storable_json
from promptpipe.storage.transactions.values import to_json
from tests.support.first import EARLIER, TARGET

if TYPE_CHECKING:
    from collections.abc import Callable

    from promptpipe.model.participants import Participant

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
NINE = datetime(2026, 3, 1, 9, tzinfo=UTC)
ROW: OldRow = {
    "id": "p_ada",
    "phone_number": "16505551234",
    "status": "active",
    "created_at": EARLIER,
    "updated_at": EARLIER,
}
PERSON: Participant = rows.participant_of(ROW, "whatsapp")


@pytest.mark.parametrize(
    "written",
    [
        "2026-03-01 09:00:00",
        "2026-03-01 09:00:00.000000000+00:00",
        "2026-03-01 04:00:00-05:00",
        "2026-03-01T09:00:00Z",
        "2026-03-01T04:00:00.0-05:00",
        "2026-03-01 09:00:00 +0000 UTC",
        "2026-03-01 04:00:00 -0500 EST m=+0.012",
        "2026-03-01 09:00:00+00",
        "1772355600",
    ],
)
def test_times_are_read_however_they_were_written(written: str) -> None:
    """Without an offset they are UTC's; nanoseconds are cut to microseconds."""
    assert as_instant(written, "it") == NINE
    assert as_instant("2026-03-01T09:00:00.123456789Z", "it") == NINE + timedelta(microseconds=123_456)


@pytest.mark.parametrize("written", ["", "noon", "0001-01-01T00:00:00Z", "9999-12-31 23:59:59", "9" * 18, "2026-02-30"])
def test_what_is_no_time_is_unreadable(written: str) -> None:
    """As is the one by which the old program said that there was none."""
    with pytest.raises(UnreadableError, match="it is no time"):
        as_instant(written, "it")


def test_ids_follow_from_the_old_row_alone() -> None:
    """They are UUIDv7 that sort by when the row was made, and differ by its table and id."""
    first = imported_id(NINE, "jobs", "a")
    assert first == imported_id(NINE, "jobs", "a")
    assert len({first, imported_id(NINE, "jobs", "b"), imported_id(NINE, "outbox_messages", "a")}) == 3
    assert first < imported_id(NINE + timedelta(milliseconds=1), "jobs", "a")
    assert (first[14], first[19] in "89ab") == ("7", True)


def test_profile_is_renamed_and_bounded() -> None:
    """Old names of fields and of the tone, counters, intensity; what is empty is left out."""
    profile = {
        "habit_domain": "reading",
        "motivational_frame": "",
        "last_blocker": "no time",
        "additional_info": "x" * 5000,
        "success_count": 3,
        "total_prompts": 9,
        "intensity": "high",
        "created_at": "2026-02-01T00:00:00Z",
        "tone": {
            "tone_tags": ["concise"],
            "tone_scores": {"concise": 0.8, "unheard_of": 1},
            "tone_version": 4,
            "tone_last_updated_at": "2026-02-01T00:00:00Z",
            "tone_update_source": "explicit",
        },
    }
    data, problems = state_data({"userProfile": json.dumps(profile)}, PERSON)
    found = data["userProfile"]
    assert isinstance(found, dict)
    assert problems == []
    assert found.pop("additional_info") == "x" * 999 + "…"
    assert found == {
        "habit_domain": "reading",
        "last_barrier": "no time",
        "success_count": 3,
        "total_prompts": 9,
        "intensity": "high",
        "tone": {
            "tags": ["concise"],
            "scores": {"concise": 0.8},
            "version": 4,
            "last_updated_at": "2026-02-01T00:00:00+00:00",
            "update_source": "explicit",
        },
    }


def test_what_is_not_known_here_stays_a_text() -> None:
    """What is empty is left out; what only this flow has cannot be brought in."""
    old = {"studyArm": "B", "lastHabitPrompt": "", "promptPoll": "x", "systemPrompt": "be kind"}
    assert state_data(old, PERSON) == ({"studyArm": "B"}, [])


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("conversationState", "COORDINATOR", "it is no part of the conversation that there is"),
        ("conversationHistory", "[1]", "it has something that is no turn"),
        ("conversationHistory", "{", "it is no JSON"),
        ("userProfile", "[]", "it is no JSON object"),
        ("feedbackState", "confused", "it is none that there is"),
        ("dailyPromptPending", "{}", "it does not say when the prompt was sent"),
        ("lastPromptSentAt", "soon", "it is no time"),
        ("lastIntensityPromptDate", "2026-02-30", "it is no day"),
        ("lastHabitPrompt", 3, "it is no text"),
    ],
)
def test_part_that_cannot_be_read_is_left_out(key: str, value: object, problem: str) -> None:
    """And said; the other parts stay."""
    data, problems = state_data({key: value, "participantBackground": "Name: Ada"}, PERSON)
    assert (data, problems) == ({"participantBackground": "Name: Ada"}, [f"{key}: {problem}"])


@pytest.mark.parametrize(
    ("function", "row", "reason"),
    [
        (lambda row: rows.mark_of(row, "whatsapp", "1"), {"message_id": "x" * 256}, "message_id has more than 255"),
        (lambda row: rows.message_of(row, PERSON, NOW), {"dedupe_key": "x" * 256}, "dedupe_key has more than 255"),
        (lambda row: rows.message_of(row, PERSON, NOW), {"attempts": "-1"}, "attempts is no whole number"),
        (lambda row: rows.message_of(row, PERSON, NOW), {"payload_json": '{"body": 1e999}'}, "payload_json is no JSON"),
        (lambda row: rows.message_of(row, PERSON, NOW), {"payload_json": "[" * 99_999}, "payload_json is no JSON"),
        (rows.other_job, {"payload_json": "3"}, "payload_json is no JSON object"),
        (rows.other_job, {"run_at": None}, "run_at is missing"),
    ],
)
def test_value_that_could_not_be_stored_is_unreadable(
    function: Callable[[OldRow], object], row: dict[str, str | None], reason: str
) -> None:
    """One row with it must not keep the others of its page from arriving."""
    readable: OldRow = {
        "id": "x",
        "kind": "reply",
        "status": "queued",
        "payload_json": '{"body": "hello"}',
        "message_id": "x",
        "run_at": EARLIER,
        **dict.fromkeys(("created_at", "updated_at", "received_at"), EARLIER),
    }
    function(readable)
    with pytest.raises(UnreadableError, match=reason):
        function({**readable, **row})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.just(EARLIER),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["messages", "role", "content", "timestamp", "sent_at", "tone", "id", "type", "fixed_time"])
            | st.text(max_size=4),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
KEYS = st.sampled_from([*READERS, *SHAPES, *(timer.data_key for timer in TIMERS), "other"])
VALUES = JSON | JSON.map(json.dumps) | st.sampled_from([EARLIER, "waiting_initial", "waiting_followup", "timer_1"])
SHAPE_OF = {"string": str, "array": list, "object": dict}


@given(st.dictionaries(KEYS, VALUES, max_size=8) | JSON)
@settings(max_examples=300, deadline=None)
def test_any_state_data_become_a_state_that_the_flow_can_read(old: object) -> None:
    """Whatever stands there: its parts have the shapes that they must have, and PostgreSQL takes them."""
    row: OldRow = {"state_data": json.dumps(old), "created_at": EARLIER, "updated_at": EARLIER}
    state = carried(row, PERSON, {}, TARGET.conversation, NOW).rows[0]
    assert isinstance(state, FlowState)
    assert {key: type(value) for key, value in state.data.items() if key in SHAPES} == {
        key: SHAPE_OF[shape] for key, shape in SHAPES.items() if key in state.data
    }
    assert storable_json(dict(state.data)) == state.data


COLUMNS = [
    "id",
    "kind",
    "status",
    "run_at",
    "payload_json",
    "hook_type",
    "parameters",
    "phone_number",
    "dedupe_key",
    "attempt",
    "attempts",
    "created_at",
    "updated_at",
    "next_attempt_at",
    "locked_at",
    "last_error",
]
SAID = st.sampled_from(
    [
        None,
        EARLIER,
        "reply",
        "queued",
        "sending",
        "failed",
        "branch",
        "genai",
        "conversation",
        "feedback_timeout",
        "16505551234",
    ]
)


@given(st.fixed_dictionaries({name: SAID | st.text(max_size=9) | JSON.map(json.dumps) for name in COLUMNS}))
@settings(max_examples=300, deadline=None)
def test_any_row_is_read_or_unreadable(row: dict[str, str | None]) -> None:
    """What is read can be stored."""
    for function in (
        rows.other_job,
        rows.owner_of_job,
        lambda row: rows.hook_of(row, PERSON.id),
        lambda row: rows.message_of(row, PERSON, NOW),
    ):
        with contextlib.suppress(UnreadableError):
            read = function(row)
            for name in ("payload", "data"):
                to_json(getattr(read, name, {}))
