"""Who is dead, and who merely cannot be seen."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress

from promptpipe.model.ids import WorkerId
from promptpipe.model.leases import Instance
from promptpipe.runtime.instances import BEAT_SECONDS, CONTACT_SECONDS, DEAD_SECONDS, Observer
from promptpipe.runtime.processes import has_ended, this_process

OTHER = WorkerId("other")


def still(beats: int = 1) -> dict[WorkerId, Instance]:
    return {OTHER: Instance("elsewhere", beats)}


def watch(observer: Observer, start: float, seconds: float) -> list[WorkerId]:
    """Look at somebody who gives no signs for *seconds*; return who was found dead in the end."""
    now = start
    found: list[WorkerId] = []
    while now <= start + seconds:
        found = observer.observe(now, still())
        now += BEAT_SECONDS
    return found


def test_dead_after_fifteen_seconds_of_uninterrupted_contact() -> None:
    """And not before."""
    observer = Observer(lambda _: False)
    assert watch(observer, 0.0, DEAD_SECONDS - BEAT_SECONDS) == []
    assert observer.observe(DEAD_SECONDS, still()) == [OTHER]


def test_every_sign_counts_anew() -> None:
    """One sign just before the end is enough."""
    observer = Observer(lambda _: False)
    watch(observer, 0.0, DEAD_SECONDS - BEAT_SECONDS)
    assert observer.observe(DEAD_SECONDS, still(2)) == []
    assert observer.observe(DEAD_SECONDS + BEAT_SECONDS, still(2)) == []


def test_outage_of_the_database_kills_nobody() -> None:
    """Who could not be seen is not judged: the count begins when contact is back."""
    observer = Observer(lambda _: False)
    watch(observer, 0.0, DEAD_SECONDS - BEAT_SECONDS)
    observer.lose_contact()
    assert observer.observe(DEAD_SECONDS, still()) == []
    assert watch(observer, DEAD_SECONDS, DEAD_SECONDS - BEAT_SECONDS) == []


def test_suspended_observer_kills_nobody() -> None:
    """A machine that slept finds everybody's signs where it left them; they had no chance to give more."""
    observer = Observer(lambda _: False)
    watch(observer, 0.0, DEAD_SECONDS - BEAT_SECONDS)
    assert observer.observe(DEAD_SECONDS + CONTACT_SECONDS, still()) == []


def test_who_left_is_forgotten() -> None:
    """Somebody of that name who comes back begins anew."""
    observer = Observer(lambda _: False)
    watch(observer, 0.0, DEAD_SECONDS - BEAT_SECONDS)
    assert observer.observe(DEAD_SECONDS, {}) == []
    assert observer.observe(DEAD_SECONDS + BEAT_SECONDS, still()) == []


def test_process_of_this_machine_that_has_ended_is_dead_at_once() -> None:
    """Nobody has to wait."""
    assert Observer(lambda process: process == "elsewhere").observe(0.0, still()) == [OTHER]


def test_processes_are_told_from_those_that_had_their_number_before() -> None:
    """A live one, a killed one that nobody has waited for, one that is gone, and one of another machine."""
    assert not has_ended(this_process())
    code = "from promptpipe.runtime.processes import this_process; print(this_process(), flush=True); input()"
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        name = child.stdout.readline().strip()
        assert not has_ended(name)
        os.kill(child.pid, signal.SIGKILL)
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert has_ended(name)
    finally:
        child.kill()
        with suppress(BrokenPipeError):
            child.communicate()
    assert has_ended(name)
    space, pid, started = this_process().rsplit("/", 2)
    assert has_ended(f"{space}/{pid}/{int(started) - 1}")
    assert not has_ended(f"other-{space}/{pid}/{int(started) - 1}")
    assert not has_ended("nonsense")
