"""How far something long has come: log entries now and then, and a bar on a terminal."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.progress import Progress as Bar

    from promptpipe.ports.clock import Clock
    from promptpipe.recovery import Tally

ENTRY_SECONDS = 5.0
"""Between two log entries."""

BAR_SECONDS = 0.1
"""Between two looks of the bar; what is over sooner has none."""

log = structlog.get_logger(__name__)


class Progress:
    """Tells how far the parts of *what* have come, one after the other."""

    def __init__(self, what: str, clock: Clock) -> None:
        self._what = what
        self._clock = clock
        self._shows_bar = False
        self._bar: Bar | None = None
        self._part: str | None = None
        self._began = self._entry_at = self._bar_at = 0.0

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Have a bar too while the context lasts, if stderr is a terminal."""
        self._shows_bar = sys.stderr.isatty()
        try:
            yield
        finally:
            self._shows_bar = False
            if self._bar is not None:
                self._bar.stop()
                self._bar = None

    def told(self, tally: Tally) -> None:
        """Tell how far the recovery of a component has come."""
        self.tell(tally.name, tally.checked, tally.expected, restored=tally.restored, failed=tally.failed)

    def tell(self, part: str, done: int, total: int | None, **counts: int) -> None:
        """Tell that *done* of *total* are, in a *part* of it all, and what else has been counted."""
        now = self._clock.boottime()
        if part != self._part:
            self._part, self._began = part, now
            self._entry_at, self._bar_at = now + ENTRY_SECONDS, now + BAR_SECONDS
        if now >= self._entry_at:
            self._entry_at = now + ENTRY_SECONDS
            rate = round(done / (now - self._began))
            log.info("under way", what=self._what, part=part, done=done, total=total, **counts, per_second=rate)
        if self._shows_bar and now >= self._bar_at:
            self._bar_at = now + BAR_SECONDS
            self._show(part, done, total)

    def _show(self, part: str, done: int, total: int | None) -> None:
        if self._bar is None:
            self._bar = _new_bar()
            self._bar.start()
        for task in self._bar.tasks:
            if task.description != part:
                self._bar.remove_task(task.id)
        task_id = self._bar.task_ids[0] if self._bar.task_ids else self._bar.add_task(part)
        self._bar.update(task_id, completed=done, total=total, refresh=True)


def _new_bar() -> Bar:
    from rich.console import Console  # noqa: PLC0415  a service without a terminal starts faster without it
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    # It is drawn when there is something new: by itself it would be in a thread of its own.
    return Progress(*columns, console=Console(file=sys.stderr), transient=True, auto_refresh=False)
