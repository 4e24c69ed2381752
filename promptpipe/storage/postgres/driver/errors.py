"""The errors that are the driver's own; all others are psycopg's."""

from __future__ import annotations

from psycopg import OperationalError


class PoolTimeoutError(OperationalError):
    """No connection could be had from a pool within the time allowed."""


class PoolClosedError(OperationalError):
    """The pool has been closed."""
