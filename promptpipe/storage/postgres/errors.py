"""What PostgreSQL's errors mean to the store."""

from __future__ import annotations

from psycopg import DatabaseError, DataError, IntegrityError, OperationalError, errors

from promptpipe.model.errors import InvalidArgumentError, SettingsError, StoreUnavailableError
from promptpipe.storage.transactions.transaction import ConflictError

AGAIN = (
    ConflictError,
    errors.DeadlockDetected,
    errors.SerializationFailure,
    errors.UniqueViolation,  # someone else was first; the next time their row is found
    errors.FeatureNotSupported,  # a statement prepared before a migration ("cached plan must not change result type")
)
"""What a transaction that is simply run again does not meet a second time."""

_UNAVAILABLE = (
    OperationalError,  # connections, resources, shutdowns, time-outs
    errors.ReadOnlySqlTransaction,  # a primary that has become a standby
    errors.IdleInTransactionSessionTimeout,
)

_REFUSALS = (
    "password authentication failed",
    "no password supplied",
    "authentication failed",
    "no pg_hba.conf entry",
    "permission denied for database",
    "does not exist",  # the database, the role
    "is not permitted to log in",
    "does not support SSL",
    "SSL error",
    "root certificate file",
    "invalid port number",
)
"""Words of refusals that waiting does not change. libpq tells the reason of a failed connection in no other way."""


def is_stuck(error: DatabaseError) -> bool:
    """Return whether *error* will come again as long as the connection is the same.

    It leads to a server that takes no writes, or holds statements prepared before a migration.
    """
    return isinstance(error, errors.ReadOnlySqlTransaction | errors.FeatureNotSupported)


def is_permanent(error: Exception) -> bool:
    """Return whether *error* says that values can never be stored."""
    if isinstance(error, errors.UniqueViolation):
        return False
    return isinstance(
        error,
        DataError | IntegrityError | errors.ProgramLimitExceeded | UnicodeError | OverflowError | ValueError,
    )


def as_invalid(error: DatabaseError) -> InvalidArgumentError | None:
    """Return *error* as `InvalidArgumentError` when a value is one that PostgreSQL cannot hold, such as a NUL in text.

    Whatever is stored for good has been made storable before; this is about what is only looked for.
    """
    if isinstance(error, DataError):
        return InvalidArgumentError("request", "has a value that the database cannot hold, such as a NUL character")
    return None


def as_unavailable(error: DatabaseError) -> StoreUnavailableError | None:
    """Return *error* as `StoreUnavailableError` when the same transaction may succeed later."""
    if isinstance(error, _UNAVAILABLE) and not isinstance(error, errors.ProgramLimitExceeded):
        return StoreUnavailableError(f"PostgreSQL: {in_one_line(error)}")
    return None


def as_refusal(error: OperationalError) -> SettingsError | None:
    """Return the *error* of a connection as `SettingsError` when the server will never let us in like this."""
    text = str(error)
    if any(words in text for words in _REFUSALS):
        return SettingsError(f"PROMPTPIPE_DATABASE_URL: {in_one_line(error)}")
    return None


def in_one_line(error: Exception) -> str:
    """Return the text of *error* without line breaks."""
    return " ".join(str(error).split())
