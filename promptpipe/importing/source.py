"""Where old rows come from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from promptpipe.importing.reading import OldRow
    from promptpipe.importing.tables import Table


@dataclass(frozen=True, slots=True)
class Placed:
    """A row, and its place in its table's order, after which reading goes on."""

    position: str
    row: OldRow


class Source(Protocol):
    """A database of the first PromptPipe, opened to be read only, all of it as it is at one moment.

    Columns and whole tables that an older version of it did not have are empty. Every method may raise
    `StoreUnavailableError`.
    """

    @property
    def shown(self) -> str:
        """Where it is, without secrets."""
        ...

    @property
    def fingerprint(self) -> str:
        """What tells it from any other database, and as far as possible from itself after a change."""
        ...

    async def count(self, table: Table) -> int:
        """Return how many rows a table has."""
        ...

    async def page(self, table: Table, after: str | None, limit: int) -> Sequence[Placed]:
        """Return rows in the table's order, those after a position; from the first when it is None."""
        ...

    async def find(self, table: Table, by: Mapping[str, Sequence[str]]) -> Sequence[OldRow]:
        """Return the rows whose values are among those given, for each of these columns."""
        ...
