"""What every group of measurements is given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.databases import Databases

BACK_ENDS = ("postgres", "sqlite")


@dataclass(frozen=True)
class Suite:
    """Where databases come from, and how much is to be measured: *scale* is 1 for all, less for a look."""

    databases: Databases
    scale: float = 1.0
    how_often: int = 3

    @classmethod
    def made(cls, databases: Databases, *, quick: bool) -> Suite:
        """Return the suite of a full run, or of a *quick* one."""
        return cls(databases, 0.1, 1) if quick else cls(databases)

    @property
    def rounds(self) -> range:
        """How often each is measured."""
        return range(self.how_often)

    @property
    def few_rounds(self) -> range:
        """How often what takes long is measured."""
        return range(min(2, self.how_often))

    @property
    def many_rounds(self) -> range:
        """How often what varies from round to round is measured."""
        return range(2 * self.how_often - 1)

    def number(self, wanted: int) -> int:
        """Return how many there are to be, *wanted* in a full run."""
        return max(100, int(wanted * self.scale))
