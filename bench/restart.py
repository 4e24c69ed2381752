"""Restart after kill -9: from exec to the first job, and the memory that recovery takes, on SQLite.

The service dies with a thousand jobs in its hands; a hundred thousand more wait, and as many people are in a
conversation, each with a timer.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING

import trio

from bench import filling, jobs
from bench.databases import count, execute
from bench.figures import Figure, figure
from bench.worker import settings_for
from promptpipe import app
from promptpipe.flows.conversation.timers import REMINDER
from promptpipe.model.inbound import Enrollment
from promptpipe.model.participants import Address, AddressKind, Profile
from tests.support.service import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bench.suite import Suite

JOBS = 100_000
LEASED = 1_000
PEOPLE = 100_000
SLOTS = 100
PATIENCE = 60.0


@dataclass
class Started:
    """A process, and when it was started."""

    process: subprocess.Popen[str]
    said: IO[str]
    at: int

    def seconds_until(self, what: str) -> float:
        """Return when it says *what*, in seconds from its start."""
        at, said = self.said.readline().rstrip().split(" ", 1)
        if said != what:
            raise RuntimeError(f"the service says {said!r}, not {what!r}")
        return (int(at) - self.at) / 1e9

    def peak_memory(self) -> int:
        """Return the most bytes that it has had resident."""
        [kilobytes] = re.findall(r"VmHWM:\s*(\d+)", Path(f"/proc/{self.process.pid}/status").read_text())
        return int(kilobytes) * 1024


@contextmanager
def _started(url: str, log: Path, slots: int, *options: str) -> Iterator[Started]:
    binds = (f"127.0.0.1:{free_port()}" for _ in range(2))
    command = [sys.executable, "-m", "bench.restarted", url, *binds, str(slots), *options]
    with log.open("ab") as output:
        at = time.time_ns()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=output, text=True)
    try:
        yield Started(process, process.stdout, at)  # type: ignore[arg-type]
    finally:
        process.kill()
        process.communicate()


@dataclass(frozen=True)
class Round:
    """Seconds from exec, and bytes."""

    imported: float
    first_job: float
    recovered: float
    memory: int


def _fill(url: str, people: int, waiting: int) -> None:
    """Make people in a conversation, each with a timer, and jobs that are due."""
    trio.run(_first_rows, url)
    timer, job = "t.participant_id IS NOT NULL", "t.participant_id IS NULL"
    new_id = f"substr(t.participant_id, 1, 24) || {filling.N}"
    timer_id = f"(SELECT substr(id, 1, 24) FROM jobs t WHERE {timer}) || {filling.N}"  # noqa: S608
    state = f"json_set(t.state_data, '$.{REMINDER.data_key}', {timer_id})"
    filling.copy(url, "flow_states", people, {"participant_id": new_id, "state_data": state})
    filling.copy(url, "registered_hooks", people, {"participant_id": new_id})
    filling.copy(url, "participant_addresses", people, {"participant_id": new_id, "address": f"'+49' || {filling.N}"})
    filling.copy(url, "lanes", people, {"key": f"substr(t.key, 1, 24) || {filling.N}"}, where="t.kind = 'mailbox'")
    filling.copy(url, "conversation_participants", people, {"id": filling.ID})
    filling.copy(url, "jobs", people, {"id": filling.ID, "participant_id": new_id}, where=timer)
    filling.copy(url, "jobs", waiting, {"id": filling.ID}, where=job)
    filling.settle(url)


async def _first_rows(url: str) -> None:
    async with app.open_components(settings_for(url)) as components:
        flow, store = components.flows[0], components.store
        enrollment = Enrollment(flow.flow_type, flow.handler_type, flow.initial_state)
        address = Address("whatsapp", AddressKind.PHONE, "+16505551234")
        person = await store.participants.enroll(address, Profile(), enrollment)
        [job] = jobs.new_jobs(components, 1)
        [timer] = jobs.new_jobs(components, 1, jobs.MONTH)
        await store.jobs.enqueue_many([job, replace(timer, kind=REMINDER.kind, participant_id=person.id)])
    execute(url, "DELETE FROM mailbox_events", "UPDATE lanes SET due_at = NULL")


def _round(suite: Suite, people: int, waiting: int, leased: int) -> Round:
    url, log = suite.databases.new("sqlite"), suite.databases.folder / "restart.log"
    _fill(url, people, waiting + leased)
    with _started(url, log, leased, "--hang") as doomed:
        _wait(lambda: count(url, "SELECT count(*) FROM jobs WHERE status = 'running'") == leased)
        doomed.process.send_signal(signal.SIGKILL)
        doomed.process.wait()
    return _restarted(url, log)


def _restarted(url: str, log: Path) -> Round:
    reports = count(url, "SELECT count(*) FROM recovery_reports")
    with _started(url, log, SLOTS) as service:
        imported, first_job = service.seconds_until("imported"), service.seconds_until("first job")
        _wait(lambda: count(url, "SELECT count(*) FROM recovery_reports") > reports)
        recovered = (time.time_ns() - service.at) / 1e9
        return Round(imported, first_job, recovered, service.peak_memory())


def _wait(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > until:
            raise TimeoutError("what was waited for has not come")
        time.sleep(0.02)  # noqa: TID251


def figures(suite: Suite) -> Iterator[Figure]:
    """Yield how soon work goes on."""
    rounds, grown = [], []
    for _ in suite.rounds:
        full = _round(suite, suite.number(PEOPLE), suite.number(JOBS), suite.number(LEASED))
        small = _round(suite, 1, 100, 1)
        rounds.append(full)
        grown.append((full.memory - small.memory) / 1e6)
    for what, values, at_most in (
        ("exec to first job after kill -9", [one.first_job for one in rounds], 2.0),
        ("of these, until everything is imported", [one.imported for one in rounds], None),
        ("exec to recovery finished", [one.recovered for one in rounds], None),
    ):
        yield figure(values, group="restart", what=what, of="sqlite", unit="s", at_most=at_most)
    what = "peak memory, more than with one person and 100 jobs"
    yield figure(grown, group="restart", what=what, of="sqlite", unit="MB", at_most=150)
