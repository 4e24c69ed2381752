"""How far recovery has come, as an operator sees it."""

from __future__ import annotations

import io
import logging
import sys
import threading
from typing import TYPE_CHECKING

from structlog.testing import capture_logs

from promptpipe.app.progress import Progress
from promptpipe.logs import set_up_logging
from promptpipe.recovery import Tally
from tests.support.clock import ManualClock

if TYPE_CHECKING:
    import pytest


class Terminal(io.StringIO):
    """A terminal that keeps what is drawn on it."""

    def isatty(self) -> bool:
        return True


def test_entries_come_every_five_seconds_with_counts_and_rate() -> None:
    """What is over sooner says nothing; another component begins anew."""
    clock = ManualClock()
    progress = Progress("recovery", clock)
    with capture_logs() as entries, progress.shown():
        for second in range(12):
            tally = Tally("flow", expected=10_000, checked=500 * second, restored=second, failed=1)
            progress.told(tally)
            clock.advance(1)
        progress.told(Tally("another", checked=1))
    shared = {"event": "under way", "log_level": "info", "what": "recovery", "part": "flow", "total": 10_000}
    assert entries == [
        {**shared, "done": 2500, "restored": 5, "failed": 1, "per_second": 500},
        {**shared, "done": 5000, "restored": 10, "failed": 1, "per_second": 500},
    ]


def test_terminal_has_a_bar_below_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is gone in the end, and nothing but what it tells draws it: there is no thread for it."""
    terminal, clock = Terminal(), ManualClock()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    handlers = logging.getLogger().handlers
    set_up_logging(as_json=False)
    progress = Progress("recovery", clock)
    threads = threading.active_count()
    try:
        with progress.shown():
            for done in (0, 400, 800):
                progress.told(Tally("flow", expected=1000, checked=done))
                clock.advance(1)
            logging.getLogger("elsewhere").warning("something happened")
            assert threading.active_count() == threads
        drawn = terminal.getvalue()
        progress.told(Tally("flow", expected=1000, checked=900))
    finally:
        logging.getLogger().handlers = handlers
    assert "400/1000" in drawn
    assert drawn.index("something happened") > drawn.index("800/1000")
    assert drawn.endswith("\x1b[2K")
    assert terminal.getvalue() == drawn
