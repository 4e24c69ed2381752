"""Ids of what is imported. They follow from the old row: so references can be made, and a repeated run is harmless."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from promptpipe.model.ids import IdSource

if TYPE_CHECKING:
    from datetime import datetime


def imported_id(made_at: datetime, table: str, *identity: str) -> str:
    """Return the UUIDv7 of what *identity* names in an old table: its time is *made_at*, its chance is a hash of both.

    It does not depend on where the old database lies: a copy of it is the same people.
    """
    digest = hashlib.sha256(json.dumps([table, *identity]).encode()).digest()
    chance = int.from_bytes(digest[:8])
    return IdSource(lambda: made_at, lambda bits: chance >> (64 - bits))()
