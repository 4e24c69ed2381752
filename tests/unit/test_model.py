"""Ids, text, backoff, numbers, and the lattice of statuses."""

from __future__ import annotations

import itertools
import random
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptpipe.model.ids import IdSource, JobId
from promptpipe.model.jobs import NewJob
from promptpipe.model.messages import AttemptState, MessageStatus, SendResult, Verdict, advanced
from promptpipe.model.participants import e164
from promptpipe.model.retry import MAILBOX_BACKOFF, Backoff
from promptpipe.model.sending import settle
from promptpipe.model.text import REPLACEMENT, shortened, storable, storable_json

MOMENT = datetime(2026, 3, 1, 12, 0, 0, 123_456, tzinfo=UTC)


def test_ids_are_uuid_version_7_of_their_moment() -> None:
    """RFC 9562: the time first, then version, variant and chance."""
    made = IdSource(lambda: MOMENT, random.Random(1).getrandbits)()
    parsed = uuid.UUID(made)
    assert (str(parsed), parsed.version, parsed.variant) == (made, 7, uuid.RFC_4122)
    assert parsed.int >> 80 == int(MOMENT.timestamp() * 1000)


def test_ids_sort_by_the_time_they_were_made() -> None:
    """Also within one microsecond, and when the clock steps back."""
    moments = itertools.chain([MOMENT] * 5000, [MOMENT - timedelta(seconds=1)], [MOMENT + timedelta(microseconds=250)])
    new_id = IdSource(lambda: next(moments), random.Random(1).getrandbits)
    made = [new_id() for _ in range(5002)]
    assert made == sorted(set(made))


def test_period_is_for_a_key() -> None:
    """Whoever makes the job is told, and not the transaction that would have added it."""
    with pytest.raises(ValueError, match="dedupe_period without a dedupe_key"):
        NewJob(id=JobId("j"), kind="k", run_at=MOMENT, dedupe_period=timedelta(days=1))


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a\x00b", f"a{REPLACEMENT}b"), ("\ud800", REPLACEMENT), ("👍", "👍"), ("\udfff\x00", REPLACEMENT * 2), ("", "")],
)
def test_text_is_made_storable(text: str, expected: str) -> None:
    """NUL and lone surrogates, which PostgreSQL and UTF-8 refuse; pairs are characters."""
    assert storable(text) == expected


@given(st.text(alphabet=st.characters()))
def test_storable_text_can_be_encoded(text: str) -> None:
    """Whatever comes."""
    assert b"\x00" not in storable(text).encode()


def test_json_is_made_storable_keys_and_all() -> None:
    """Deep down, too."""
    assert storable_json({"a\x00": ["\ud800", 1, None, {"b": True}]}) == {
        f"a{REPLACEMENT}": [REPLACEMENT, 1, None, {"b": True}]
    }


def test_long_text_is_cut_visibly() -> None:
    """The last character tells."""
    assert [shortened("abcdef", 6), shortened("abcdefg", 6)] == ["abcdef", "abcde…"]


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("16505551234", "+16505551234"),
        ("+1 (650) 555-1234", "+16505551234"),
        ("123456", "+123456"),
        ("12345", None),
        ("1" * 15, "+" + "1" * 15),
        ("1" * 16, None),
        ("", None),
        ("nobody", None),
        ("١٢٣٤٥٦٧", None),
    ],
)
def test_phone_numbers_become_e164(text: str, number: str | None) -> None:
    """Six digits at least, fifteen at most, none but ours."""
    assert e164(text) == number


@given(attempt=st.integers(1, 10_000), chance=st.floats(0, 1, exclude_max=True))
def test_backoff_stays_within_its_bounds(attempt: int, chance: float) -> None:
    """Full jitter: between nothing and the exponential limit, which has a cap."""
    delay = MAILBOX_BACKOFF.delay(attempt, lambda: chance)
    assert 0 <= delay <= min(MAILBOX_BACKOFF.cap, MAILBOX_BACKOFF.base * 2.0 ** min(attempt - 1, 64))


def test_backoff_grows() -> None:
    """1, 2, 4, … up to the cap."""
    backoff = Backoff(base=1.0, cap=10.0)
    assert [backoff.limit(n) for n in range(1, 7)] == [1, 2, 4, 8, 10, 10]


# ---------------------------------------------------------------- the lattice

forward_states = st.sampled_from(
    [AttemptState.IN_DOUBT, AttemptState.SENT, AttemptState.FAILED, AttemptState.DELIVERED, AttemptState.READ]
)


@given(st.permutations([AttemptState.SENT, AttemptState.FAILED, AttemptState.DELIVERED, AttemptState.READ]))
def test_statuses_of_one_attempt_end_the_same_in_any_order(order: list[AttemptState]) -> None:
    """However they come, read is read."""
    state = AttemptState.SENDING
    for news in order:
        state = state.merged(news)
    assert state is AttemptState.READ


@given(st.lists(forward_states, min_size=1))
def test_attempt_never_goes_back(news: list[AttemptState]) -> None:
    """Repeating the past changes nothing."""
    state = AttemptState.SENDING
    for item in news:
        state = state.merged(item)
    assert all(state.merged(item) is state for item in news)


@pytest.mark.parametrize(
    ("before", "attempts", "after"),
    [
        ("sending", ["sent"], "sent"),
        ("sending", ["failed"], "failed"),
        ("in_doubt", ["in_doubt"], "in_doubt"),
        ("in_doubt", ["delivered"], "delivered"),
        ("failed", ["dropped", "failed"], "failed"),
        ("failed", ["sent", "failed"], "sent"),
        ("failed", ["delivered"], "delivered"),
        ("sending", ["dropped", "sending"], "sending"),
        ("sending", ["sent", "sending"], "sent"),
        ("in_doubt", ["failed", "in_doubt"], "in_doubt"),
        ("queued", ["failed"], "queued"),
        ("queued", ["failed", "unsent"], "queued"),
        ("queued", ["delivered", "unsent"], "delivered"),
        ("expired", ["delivered"], "expired"),
        ("canceled", ["failed"], "canceled"),
    ],
)
def test_message_is_what_its_attempts_make_of_it(before: str, attempts: list[str], after: str) -> None:
    """Failed only when all are; what may still arrive outweighs what failed."""
    states = [AttemptState(state) for state in attempts]
    assert advanced(MessageStatus(before), states) is MessageStatus(after)


@pytest.mark.parametrize(
    ("verdict", "attempt", "delay"),
    [
        (Verdict.ACCEPTED, 1, 0.0),
        (Verdict.DOUBTFUL, 1, 0.0),
        (Verdict.RETRY, 3, 4.0),
        (Verdict.UNSENT, 1, 0.25),
        (Verdict.UNSENT, 50, 15.0),
        (Verdict.SLOW_RECIPIENT, 1, 4.0),
        (Verdict.SLOW_RECIPIENT, 2, 16.0),
        (Verdict.SLOW_CHANNEL, 1, 1.0),
        (Verdict.PAUSE_CHANNEL, 1, 300.0),
        (Verdict.LATER, 1, 86400.0),
    ],
)
def test_each_refusal_has_its_delay(verdict: Verdict, attempt: int, delay: float) -> None:
    """With half of the jitter; a recipient's pace has none."""
    assert settle(SendResult(verdict=verdict), attempt, lambda: 0.5).delay == delay


def test_providers_own_delay_wins() -> None:
    """It knows."""
    assert settle(SendResult(verdict=Verdict.LATER, delay=7.0), 1, lambda: 0.5).delay == 7.0
