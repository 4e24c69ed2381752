"""Rules of when something happens again and again, on the clock of a zone.

A rule is either of two things when the clock is put forward or back:

- One that holds for only some hours of the day names *local times*. A time that does not exist happens at the next
  minute that does; one that comes twice happens the first time. Times that so become the same minute are one.
- One that holds for every hour of the day (`*/15 * * * *`, `0 * * * *`) is an *interval*: it happens at every minute
  that the clock shows and that it allows, in the repeated hour both times, and nothing is made up for a skipped one.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from promptpipe.model.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import tzinfo

MAX_CRON = 400
"""Characters of a cron line."""

RANGES = {"minute": range(60), "hour": range(24), "day": range(1, 32), "month": range(1, 13), "weekday": range(7)}
"""What the fields may be. A weekday is counted from Sunday, 0."""

HOURS_A_DAY = 24
SECOND = timedelta(seconds=1)
DAY = timedelta(days=1)

_SOME_DAY = datetime(2000, 1, 1)  # noqa: DTZ001  local, anywhere
"""From here a rule has half a century, with leap days on every weekday, to happen for the first time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recurrence:
    """Times by their fields, all of which must hold and of which an absent one is any, or by a *cron* line.

    The line has crontab(5)'s five fields, with `L`, `LW` and `#` besides; there, a day of the month and a weekday that
    are both given are alternatives. *zone* is an IANA time zone.
    """

    minute: int | None = None
    hour: int | None = None
    day: int | None = None
    month: int | None = None
    weekday: int | None = None
    cron: str | None = None
    zone: str = "UTC"

    def check(self) -> None:
        """Raise `InvalidArgumentError` for what is no rule, or one that never happens, by the value that is wrong."""
        given = [field.name for field in fields(self) if field.name in RANGES and self._value(field.name) is not None]
        if self.cron is not None and given:
            raise InvalidArgumentError("cron", f"must be absent when fields are given, and these are: {given}")
        for name in given:
            allowed = RANGES[name]
            if self._value(name) not in allowed:
                raise InvalidArgumentError(f"fields.{name}", f"must be from {allowed[0]} to {allowed[-1]}")
        if self.cron is not None and len(self.cron) > MAX_CRON:
            raise InvalidArgumentError("cron", f"must have at most {MAX_CRON} characters, not {len(self.cron)}")
        _zone(self.zone)
        _pattern(self.line, all_must_hold=self.cron is None)

    @property
    def line(self) -> str:
        """The rule as a cron line."""
        if self.cron is not None:
            return self.cron
        return " ".join("*" if (value := self._value(name)) is None else str(value) for name in RANGES)

    def next_after(self, instant: datetime) -> datetime | None:
        """Return its first time after *instant*, a whole minute in UTC; None when there is none within 50 years.

        Raise `InvalidArgumentError` when it is no rule.
        """
        pattern, zone = _pattern(self.line, all_must_hold=self.cron is None), _zone(self.zone)
        search = _next_of_interval if len(pattern.hours) == HOURS_A_DAY else _next_local_time
        try:
            return search(_following(pattern), zone, instant.astimezone(UTC))
        except StopIteration:
            return None

    def last_until(self, instant: datetime, *, since: datetime) -> datetime:
        """Return its last time until *instant*; *since* is one of its times, and not after *instant*."""
        last, none_from, guess = since, instant, None
        while (following := self.next_after(last)) is not None and following <= instant:
            # At first as if its times were evenly spaced, and from then on in the middle of what is left.
            guess = instant - (following - last) if guess is None else following + (none_from - following) / 2
            last = following
            found = self.next_after(guess)
            if found is not None and found <= instant:
                last = found
            else:
                none_from = guess
        return last

    def _value(self, name: str) -> int | None:
        value: int | None = getattr(self, name)
        return value


@lru_cache(maxsize=1024)
def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise InvalidArgumentError("timezone", "must be an IANA time zone, such as America/Toronto") from None


@lru_cache(maxsize=4096)
def _pattern(line: str, *, all_must_hold: bool) -> CronSim:
    """Return a line, read. Threads share it: only copies of it are moved."""
    if len(line.split()) != len(RANGES):
        raise InvalidArgumentError("cron", "must have five fields: minute, hour, day of the month, month, weekday")
    field = "fields" if all_must_hold else "cron"
    try:
        pattern = CronSim(line, _SOME_DAY)
    except CronSimError as error:
        raise InvalidArgumentError(field, f"must be as in crontab(5), and be true of some day: {error}") from None
    pattern.day_and = pattern.day_and or all_must_hold
    try:
        _following(pattern)(_SOME_DAY)
    except StopIteration:
        raise InvalidArgumentError(field, "must be true of some day") from None
    return pattern


def _following(pattern: CronSim) -> Callable[[datetime], datetime]:
    """Return what gives the first local time after another at which *pattern* holds, or raises `StopIteration`."""

    def following(local: datetime) -> datetime:
        search = copy(pattern)
        search.dt = local.replace(microsecond=0)
        return next(search)

    return following


def _next_local_time(following: Callable[[datetime], datetime], zone: ZoneInfo, instant: datetime) -> datetime:
    """Return the first instant after *instant* that a local time of the pattern falls on."""
    local = instant.astimezone(zone).replace(tzinfo=None)
    while True:
        local = following(local)
        # In the second of two equal hours, what the pattern has there was in the first.
        if (found := _instant_of(local, zone)) > instant:
            return found


def _next_of_interval(following: Callable[[datetime], datetime], zone: ZoneInfo, instant: datetime) -> datetime:
    """Return the first instant after *instant* at which the zone's clock shows a time of the pattern."""
    at, offset = instant, _offset(zone, instant)
    while True:
        local = (at + offset).replace(tzinfo=None)
        wait = following(local) - local
        soon = at + min(wait, DAY)
        if _offset(zone, soon) != offset:
            changed = _change(zone, at, soon)
            at, offset = changed - SECOND, _offset(zone, changed)
        elif wait <= DAY:
            return at + wait
        else:
            # Nothing until then holds, whatever the clock does: no change is by more than a day. It may be the end of a
            # jump, at which something holds, or in the first of two equal hours, of which this is the second.
            at = max(_instant_of(local + wait - DAY, zone) - SECOND, soon)
            offset = _offset(zone, at)


def _instant_of(local: datetime, zone: ZoneInfo) -> datetime:
    """Return the instant at which the zone's clock first shows *local*, or jumps over it."""
    found = local.replace(tzinfo=zone).astimezone(UTC)
    if found.astimezone(zone).replace(tzinfo=None) == local:
        return found
    # By the offset before the jump it lies after it, by that after the jump before it (PEP 495).
    return _change(zone, local.replace(tzinfo=zone, fold=1).astimezone(UTC), found)


def _change(zone: tzinfo, before: datetime, after: datetime) -> datetime:
    """Return the first whole second after *before*, until *after*, at which the offset is another."""
    offset, before = _offset(zone, before), before.replace(microsecond=0)
    low, high = 0, -((before - after) // SECOND)
    while high - low > 1:
        middle = (low + high) // 2
        if _offset(zone, before + middle * SECOND) == offset:
            low = middle
        else:
            high = middle
    return before + high * SECOND


def _offset(zone: tzinfo, instant: datetime) -> timedelta:
    offset = instant.astimezone(zone).utcoffset()
    assert offset is not None  # noqa: S101  the zones have one at all times
    return offset
