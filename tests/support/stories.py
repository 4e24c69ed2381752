"""Stories that Hypothesis tells: a store beside a model, on each back end."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import datetime
from typing import TYPE_CHECKING, Any

import psycopg
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

from tests.support.database import EMPTY_EVERYTHING, PostgresTestDatabase, SqliteTestDatabase
from tests.support.portal import opened

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.database import Database
    from tests.support.lanes import LaneState


class Story(RuleBasedStateMachine):
    """A machine whose rules do the same to an empty store, by `portal`, and to a model."""

    make: Callable[[], Database]

    def __init__(self) -> None:
        super().__init__()
        self._stack = ExitStack()
        self.db, self.portal = self._stack.enter_context(opened(type(self).make))
        self.began = self.db.clock.now()

    def lanes(self, kind: str) -> dict[str, LaneState]:
        """Return the lanes of a kind, as `lanes.states` has them."""
        rows = self.db.rows("SELECT key, due_at, pace_at, worker, leased, crashes FROM lanes WHERE kind = ?", kind)
        return {
            key: (self.seconds(due_at), max(0.0, self.seconds(pace_at) or 0.0), worker, bool(leased), crashes)
            for key, due_at, pace_at, worker, leased, crashes in rows
        }

    def seconds(self, instant: datetime | float | None) -> float | None:
        """Return a stored instant as seconds since the story began."""
        match instant:
            case datetime():
                return (instant - self.began).total_seconds()
            case int():
                return round(instant / 1e6 - self.began.timestamp(), 6)
            case _:
                return None

    def teardown(self) -> None:
        self._stack.close()


def tell_on_sqlite(story: type[Story], folder: Path, *, stories: int) -> None:
    """Tell so many stories of fifty steps on SQLite, each on a file of its own in *folder*."""
    files = iter(range(100_000))
    _tell(story, lambda: SqliteTestDatabase(folder / f"{next(files)}.db"), stories)


def tell_on_postgres(story: type[Story], url: str, *, stories: int) -> None:
    """Tell the same stories on PostgreSQL."""

    def empty() -> Database:
        with psycopg.connect(url) as connection:
            connection.execute(EMPTY_EVERYTHING)
        return PostgresTestDatabase(url)

    _tell(story, empty, stories)


def _tell(story: type[Story], make: Callable[[], Database], stories: int) -> None:
    bounds: Any = settings(
        max_examples=stories,
        stateful_step_count=50,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        derandomize=True,
        phases=[Phase.generate],  # to make a failing story shorter takes minutes
    )
    run_state_machine_as_test(type(story.__name__, (story,), {"make": staticmethod(make)}), settings=bounds)
