"""One transaction, as the code of this package sees it: statements by name, ids, fences, locks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeAlias, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager
    from datetime import datetime

    from promptpipe.model.ids import IdSource
    from promptpipe.model.leases import Claim, Lease, Work

T = TypeVar("T")


Row: TypeAlias = "Mapping[str, Any]"
"""A row by its columns' names. Instants are datetimes in UTC, spans timedeltas, JSON objects text."""


class ConflictError(Exception):
    """Another transaction came between; this one is to begin anew, and will then see what that has done."""


@dataclass(frozen=True, slots=True)
class Last(Generic[T]):
    """What a transaction returns whose result is made by *then* of the rows of its last statements, once it is over."""

    rows: Callable[[], Awaitable[list[Sequence[Row]]]]
    then: Callable[[list[Sequence[Row]]], T]

    async def result(self) -> T:
        """Return the result."""
        return self.then(await self.rows())


class Taking:
    """The lanes that a transaction leases for this process as it makes them due, as *claim* asks for them."""

    def __init__(self, claim: Claim) -> None:
        self.claim = claim
        self.leases: list[Lease] = []
        self._held = frozenset(claim.held)

    def among(self, keys: Iterable[str]) -> list[str]:
        """Return those of *keys* that may be taken yet."""
        free = [key for key in keys if key not in self._held]
        return free[: self.claim.limit - len(self.leases)]


class Transaction(ABC):
    """A write or read transaction.

    Statements take their values by name. `:now` is given to all of them by the back end: the instant of the
    transaction, that of the statement by the database's clock on PostgreSQL. Instants and spans are datetimes
    and timedeltas, lists are for SQL that asks whether a value is among them.
    """

    contended: ClassVar[bool]
    """Whether others may write at the same time."""

    def __init__(self, ids: IdSource) -> None:
        self.ids = ids
        self.woken: set[Work] = set()
        self.takings: Mapping[Work, Taking] = {}

    @abstractmethod
    async def run(self, statement: str, /, **values: object) -> None:
        """Run a statement for its effect; it may take place only with the next one that has a result."""

    @abstractmethod
    async def count(self, statement: str, /, **values: object) -> int:
        """Run a statement and return how many rows it changed."""

    @abstractmethod
    async def all(self, statement: str, /, **values: object) -> Sequence[Row]:
        """Run a statement and return its rows."""

    @abstractmethod
    async def several(self, *statements: tuple[str, Mapping[str, object]]) -> list[Sequence[Row]]:
        """Run statements that do not depend on each other, each with its values, and return the rows of each."""

    @abstractmethod
    async def last(
        self, *statements: tuple[str, Mapping[str, object]], then: Callable[[list[Sequence[Row]]], T]
    ) -> Last[T]:
        """Run statements as `several` does, for the transaction to return what *then* makes of their rows.

        Nothing in the transaction depends on these: it is committed without waiting for them, in the same round trip.
        """

    @abstractmethod
    async def now(self) -> datetime:
        """Return one instant for all of this transaction."""

    @abstractmethod
    def savepoint(self) -> AbstractAsyncContextManager[None]:
        """Return a context whose statements are undone when it is left by an exception."""

    @abstractmethod
    def is_permanent(self, error: Exception) -> bool:
        """Return whether *error* says that values can never be stored."""

    @abstractmethod
    async def lock_lanes(self, lanes: Collection[tuple[Work, str]]) -> None:
        """Lock those of *lanes* that exist, in the order in which everybody does, before anything of a later class."""

    @abstractmethod
    def lock_of(self, queue: str) -> list[tuple[str, Mapping[str, object]]]:
        """Return the statement, if one is needed, that locks a queue if it is limited.

        Whoever claims from it next then counts what this transaction has claimed.
        """

    @abstractmethod
    async def lock_names(self, names: Collection[str]) -> None:
        """Lock *names*, whatever they mean, before anything else; who locks them too comes before or after."""

    async def one(self, statement: str, /, **values: object) -> Row | None:
        """Run a statement and return its first row, or None."""
        rows = await self.all(statement, **values)
        return rows[0] if rows else None

    async def the(self, statement: str, /, **values: object) -> Row:
        """Run a statement that always finds its row, and return that; raise `LookupError` otherwise."""
        row = await self.one(statement, **values)
        if row is None:
            raise LookupError(f"{statement} found nothing")
        return row

    async def next_fence(self) -> int:
        """Return a number that no lease of this store had before."""
        fence: int = (await self.the("next_fence"))["value"]
        return fence

    def wake(self, work: Work) -> None:
        """Once this has committed, wake the runner of *work*."""
        self.woken.add(work)


class Database(Protocol):
    """Runs transactions."""

    async def write(self, function: Callable[[Transaction], Coroutine[Any, Any, T | Last[T]]]) -> T:
        """Run *function* in one durable transaction and return its result; its exceptions roll it back.

        It may be run more than once, each time in a new transaction. Raise `StoreUnavailableError` when the database
        cannot commit now.
        """
        ...

    async def read(self, function: Callable[[Transaction], Coroutine[Any, Any, T]]) -> T:
        """Run *function* on one consistent snapshot, beside writes, and return its result."""
        ...
