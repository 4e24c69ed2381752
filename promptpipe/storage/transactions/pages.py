"""Pages of lists: the rows after a key, in the order of a statement."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from promptpipe.model.listing import Page

if TYPE_CHECKING:
    from collections.abc import Callable

    from promptpipe.model.listing import PageRequest
    from promptpipe.storage.transactions.transaction import Row, Transaction

T = TypeVar("T")

FIRST = "~"
"""Sorts after every id: where a list of the newest first begins."""
MAX_BYTES = 1 << 20
"""Text and bytes in a page, about; the item that exceeds it is the last. Clients take 4 MiB of answer."""


async def page(
    tx: Transaction,
    statement: str,
    request: PageRequest,
    make: Callable[[Row], T],
    **values: object,
) -> Page[T]:
    """Return the page of what *statement* lists; it takes `:after` (an `id`) and `:limit`, besides *values*."""
    place = {"after": FIRST if request.after is None else request.after}
    rows = await tx.all(statement, **place | values, limit=request.size + 1)
    size = count = 0
    for row in rows[: request.size]:
        count += 1
        size += sum(len(value) for value in row.values() if isinstance(value, str | bytes))
        if size > MAX_BYTES:
            break
    last = rows[count - 1]["id"] if count < len(rows) else None
    return Page(tuple(make(row) for row in rows[:count]), last)
