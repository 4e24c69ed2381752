"""When a rule comes due, against a model that looks at every minute."""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptpipe.model.errors import InvalidArgumentError
from promptpipe.model.recurrence import MAX_CRON, Recurrence

MINUTE = timedelta(minutes=1)

CHANGES = [
    ("America/Toronto", date(2026, 3, 8)),
    ("America/Toronto", date(2026, 11, 1)),
    ("Europe/Berlin", date(2026, 3, 29)),
    ("Europe/Berlin", date(2026, 10, 25)),
    ("Australia/Lord_Howe", date(2026, 4, 5)),  # by half an hour
    ("Australia/Lord_Howe", date(2026, 10, 4)),
    ("Pacific/Apia", date(2011, 12, 30)),  # a day that never was
    ("Africa/Casablanca", date(2026, 2, 15)),
    ("Africa/Casablanca", date(2026, 3, 22)),
    ("Africa/Cairo", date(2026, 4, 24)),  # at midnight
    ("Africa/Cairo", date(2026, 10, 29)),
    ("America/Havana", date(2026, 11, 1)),
    ("UTC", date(2026, 2, 28)),
]
DAYS_AROUND = 3


@dataclass(frozen=True)
class Field:
    """A field of a cron line, and the values that it allows."""

    text: str
    values: frozenset[int]

    @property
    def any(self) -> bool:
        return self.text == "*"


def field(low: int, high: int) -> st.SearchStrategy[Field]:
    """Return fields of every form: any, steps, ranges, lists, one value."""
    everything = range(low, high + 1)
    value = st.integers(low, high)
    return st.one_of(
        st.just(Field("*", frozenset(everything))),
        st.integers(2, 20).map(lambda n: Field(f"*/{n}", frozenset(everything[::n]))),
        st.tuples(value, value).map(lambda ab: Field(f"{min(ab)}-{max(ab)}", frozenset(range(min(ab), max(ab) + 1)))),
        st.sets(value, min_size=1, max_size=4).map(lambda s: Field(",".join(map(str, sorted(s))), frozenset(s))),
        value.map(lambda n: Field(str(n), frozenset({n}))),
    )


@dataclass(frozen=True)
class Rule:
    minute: Field
    hour: Field
    day: Field
    weekday: Field

    @property
    def line(self) -> str:
        return f"{self.minute.text} {self.hour.text} {self.day.text} * {self.weekday.text}"

    def holds(self, local: datetime) -> bool:
        on_day, on_weekday = local.day in self.day.values, local.isoweekday() % 7 in self.weekday.values
        # crontab(5): both restricted, that is, neither begins with a star, either is enough.
        either = not (self.day.text.startswith("*") or self.weekday.text.startswith("*"))
        that_day = on_day or on_weekday if either else on_day and on_weekday
        return local.minute in self.minute.values and local.hour in self.hour.values and that_day


rules = st.builds(
    Rule,
    minute=field(0, 59),
    hour=field(0, 23),
    day=st.one_of(st.just(Field("*", frozenset(range(1, 32)))), field(1, 31)),
    weekday=st.one_of(st.just(Field("*", frozenset(range(7)))), field(0, 6)),
)


@lru_cache
def clock(zone: str, day: date) -> list[tuple[datetime, datetime]]:
    """Return every minute of some days around *day*, and what the zone's clock shows then."""
    start = datetime(day.year, day.month, day.day, tzinfo=UTC) - timedelta(days=DAYS_AROUND)
    minutes = [start + n * MINUTE for n in range(2 * DAYS_AROUND * 24 * 60)]
    return [(minute, minute.astimezone(ZoneInfo(zone)).replace(tzinfo=None)) for minute in minutes]


def times(rule: Rule, zone: str, day: date) -> list[datetime]:
    """Return when *rule* comes due around *day*, by looking at every minute."""
    if len(rule.hour.values) == 24:
        return [minute for minute, local in clock(zone, day) if rule.holds(local)]
    found = set()
    seen: set[datetime] = set()
    before = None
    for minute, local in clock(zone, day):
        skipped = before + MINUTE if before is not None else local
        while skipped < local:
            if rule.holds(skipped):
                found.add(minute)
            skipped += MINUTE
        if local not in seen and rule.holds(local):
            found.add(minute)
        seen.add(local)
        before = local
    return sorted(found)


@given(change=st.sampled_from(CHANGES), rule=rules, offset=st.integers(0, DAYS_AROUND * 24 * 3600 * 1000))
@settings(max_examples=400, deadline=None)
def test_next_time_is_that_of_a_model_that_looks_at_every_minute(
    change: tuple[str, date], rule: Rule, offset: int
) -> None:
    """Over every kind of change of the clock, from whatever instant before, at, or after it."""
    zone, day = change
    instant = clock(zone, day)[0][0] + timedelta(days=1, milliseconds=offset)
    expected = next((minute for minute in times(rule, zone, day) if minute > instant), None)
    try:
        found = Recurrence(cron=rule.line, zone=zone).next_after(instant)
    except InvalidArgumentError:
        assert expected is None
        return
    assert found is not None
    end = clock(zone, day)[-1][0]
    assert (found if found <= end else None) == expected


@given(
    change=st.sampled_from(CHANGES),
    rule=rules,
    instants=st.lists(st.integers(0, 4 * 24 * 3600), min_size=2, max_size=2).map(sorted),
)
@settings(max_examples=200, deadline=None)
def test_last_time_is_that_of_the_model_too(change: tuple[str, date], rule: Rule, instants: list[int]) -> None:
    """However many were missed."""
    zone, day = change
    start, end = (clock(zone, day)[0][0] + timedelta(days=1, seconds=seconds) for seconds in instants)
    missed = [minute for minute in times(rule, zone, day) if start <= minute <= end]
    if missed:
        assert Recurrence(cron=rule.line, zone=zone).last_until(end, since=missed[0]) == missed[-1]


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("rule", "after", "expected"),
    [
        # 02:30 does not exist in Toronto on 8 March: 03:00 summer time is the next minute that does.
        (Recurrence(hour=2, minute=30, zone="America/Toronto"), "2026-03-08T00:00", "2026-03-08T07:00"),
        (Recurrence(hour=2, minute=30, zone="America/Toronto"), "2026-03-08T07:00", "2026-03-09T06:30"),
        # 01:30 comes twice on 1 November: the first is the one.
        (Recurrence(hour=1, minute=30, zone="America/Toronto"), "2026-11-01T00:00", "2026-11-01T05:30"),
        (Recurrence(hour=1, minute=30, zone="America/Toronto"), "2026-11-01T05:30", "2026-11-02T06:30"),
        (Recurrence(hour=1, minute=30, zone="America/Toronto"), "2026-11-01T06:10", "2026-11-02T06:30"),
        # Every quarter of an hour, in both of the hours between one and two.
        (Recurrence(cron="*/15 * * * *", zone="America/Toronto"), "2026-11-01T05:45", "2026-11-01T06:00"),
        (Recurrence(minute=30, zone="America/Toronto"), "2026-11-01T05:30", "2026-11-01T06:30"),
        # Nothing is made up for half past two.
        (Recurrence(minute=30, zone="America/Toronto"), "2026-03-08T06:30", "2026-03-08T07:30"),
        # Lord Howe puts its clock forward by half an hour, at two.
        (Recurrence(hour=2, minute=15, zone="Australia/Lord_Howe"), "2026-10-03T15:00", "2026-10-03T15:30"),
        # Samoa had no 30 December 2011.
        (Recurrence(hour=9, minute=0, day=30, zone="Pacific/Apia"), "2011-12-01T00:00", "2011-12-30T10:00"),
        # Fields must all hold; in a cron line a day and a weekday are alternatives.
        (Recurrence(hour=9, minute=0, day=13, weekday=5), "2026-03-14T00:00", "2026-11-13T09:00"),
        (Recurrence(cron="0 9 13 * 5"), "2026-03-14T00:00", "2026-03-20T09:00"),
        (Recurrence(cron="0 9 29 2 *"), "2096-03-01T00:00", "2104-02-29T09:00"),
        (Recurrence(cron="0 * 29 2 *", zone="America/Toronto"), "2026-03-01T12:00", "2028-02-29T05:00"),
        # In the second of two equal hours, a day and a bit before.
        (Recurrence(cron="30 * 2 11 *", zone="America/Havana"), "2026-11-01T05:10", "2026-11-02T05:30"),
        # As the clock jumps over a whole day to one that it holds for.
        (Recurrence(cron="* * 31 * *", zone="Pacific/Apia"), "2011-12-28T10:00", "2011-12-30T10:00"),
        (Recurrence(), "2026-03-01T12:00", "2026-03-01T12:01"),
        (Recurrence(hour=12, minute=0), "2026-03-01T11:59:59.999999", "2026-03-01T12:00"),
    ],
)
def test_next_time(rule: Recurrence, after: str, expected: str) -> None:
    """What people expect, in examples."""
    assert rule.next_after(utc(after)) == utc(expected)


def test_one_of_several_times_that_do_not_exist_is_enough() -> None:
    """All of them become the first minute that does, which happens once."""
    rule = Recurrence(cron="0,20,40 2,3 * * *", zone="Europe/Berlin")
    found = [utc("2026-03-29T00:00")]
    for _ in range(4):
        following = rule.next_after(found[-1])
        assert following is not None
        found.append(following)
    assert found[1:] == [utc(f"2026-03-29T01:{minute}") for minute in ("00", "20", "40")] + [utc("2026-03-30T00:00")]


def test_threads_do_not_disturb_each_other() -> None:
    """The writer of a database asks the same rule as everybody else."""
    rule = Recurrence(cron="*/7 3 * * *", zone="Europe/Berlin")
    instants = [utc("2026-03-01T00:00") + timedelta(days=n, hours=n % 5) for n in range(60)]
    expected = [rule.next_after(instant) for instant in instants]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as threads:
            answers = [list(threads.map(rule.next_after, instants[::step])) for step in (1, -1) * 5]
    finally:
        sys.setswitchinterval(interval)
    assert answers == [expected, expected[::-1]] * 5


@pytest.mark.parametrize(
    ("values", "field_name"),
    [
        ({"minute": 60}, "fields.minute"),
        ({"minute": -1}, "fields.minute"),
        ({"hour": 24}, "fields.hour"),
        ({"day": 0}, "fields.day"),
        ({"day": 32}, "fields.day"),
        ({"month": 13}, "fields.month"),
        ({"weekday": 7}, "fields.weekday"),
        ({"day": 30, "month": 2}, "fields"),
        ({"day": 31, "month": 4, "weekday": 1}, "fields"),
        ({"cron": "0 0 30 2 *"}, "cron"),
        ({"cron": "0 0 LW * */6"}, "cron"),
        ({"cron": ""}, "cron"),
        ({"cron": "* * * *"}, "cron"),
        ({"cron": "0 * * * * *"}, "cron"),
        ({"cron": "@daily"}, "cron"),
        ({"cron": "61 * * * *"}, "cron"),
        ({"cron": "* * * * *", "minute": 5}, "cron"),
        ({"cron": ",".join(["0"] * MAX_CRON) + " * * * *"}, "cron"),
        ({"zone": "Mars/Olympus"}, "timezone"),
        ({"zone": "../../etc/passwd"}, "timezone"),
        ({"zone": ""}, "timezone"),
        ({"zone": "x" * 5000}, "timezone"),
        ({"zone": "\x00"}, "timezone"),
    ],
)
def test_what_is_no_rule_is_refused_by_name(values: dict[str, object], field_name: str) -> None:
    """The error says which value breaks which rule."""
    with pytest.raises(InvalidArgumentError) as raised:
        Recurrence(**values).check()  # type: ignore[arg-type]
    assert raised.value.field == field_name
    assert raised.value.rule.startswith("must")


@given(line=st.text(alphabet="0123456789*/-,#LW ?MONFRIJA", max_size=60) | st.text(max_size=40))
@settings(max_examples=500, deadline=None)
def test_hostile_line_is_a_rule_or_an_error_within_a_moment(line: str) -> None:
    """Nobody makes the service search for ever, or find a defect."""
    began = time.perf_counter()
    with suppress(InvalidArgumentError):
        Recurrence(cron=line).next_after(utc("2026-03-01T12:00"))
    assert time.perf_counter() - began < 1.0
