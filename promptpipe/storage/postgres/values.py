"""How values travel to PostgreSQL and back: instants as UTC datetimes, JSON as text, all integers as bigint."""

from __future__ import annotations

import struct
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from psycopg import adapters
from psycopg.adapt import AdaptersMap, Loader
from psycopg.pq import Format
from psycopg.types.array import ListDumper
from psycopg.types.numeric import Int8BinaryDumper

if TYPE_CHECKING:
    from psycopg.abc import AdaptContext, Buffer

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECONDS = struct.Struct("!q")


MAX_KNOWN = 1000
"""Instants that are remembered by each column that has been read."""


class InstantLoader(Loader):
    """Reads a timestamptz without regard to the session's time zone and date style."""

    format = Format.BINARY

    def __init__(self, oid: int, context: AdaptContext | None = None) -> None:
        super().__init__(oid, context)
        self._known: dict[bytes, datetime] = {}

    def load(self, data: Buffer) -> datetime:
        """Return the instant. Rows of one statement have many in common."""
        raw = bytes(data)
        instant = self._known.get(raw)
        if instant is None:
            if len(self._known) == MAX_KNOWN:
                self._known.clear()
            instant = self._known[raw] = _EPOCH + timedelta(microseconds=_MICROSECONDS.unpack(raw)[0])
        return instant


class JsonTextLoader(Loader):
    """Reads jsonb as its text, which whoever needs it parses."""

    format = Format.BINARY

    def load(self, data: Buffer) -> str:
        """Return the text; the first byte is the format's version."""
        return bytes(data)[1:].decode()


class TextListDumper(ListDumper):
    """Writes lists of keys and ids, which are most lists, in one go; others item by item as psycopg does."""

    def dump(self, obj: list[Any]) -> Buffer | None:
        """Return the array's text."""
        if set(map(type, obj)) == {str}:
            joined = '","'.join(obj)
            if "\\" not in joined and "\0" not in joined and joined.count('"') == 2 * (len(obj) - 1):
                return f'{{"{joined}"}}'.encode()
        return super().dump(obj)


def own_adapters() -> AdaptersMap:
    """Return the adapters of the store's connections."""
    ours = AdaptersMap(adapters)
    ours.register_loader("timestamptz", InstantLoader)
    ours.register_loader("jsonb", JsonTextLoader)
    # One type for all integers, so that a statement is prepared once and not once for each width.
    ours.register_dumper(int, Int8BinaryDumper)
    ours.register_dumper(list, TextListDumper)
    return ours
