"""Kinds of jobs for fault tests."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import trio

from promptpipe.model.jobs import Effects, NewJob
from promptpipe.model.retry import Backoff
from promptpipe.ports.jobs import JobKind

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from promptpipe.app import Components
    from promptpipe.model.jobs import Job

TALLY = "tally"
"""A queue that nobody serves: what is put into it stays, to be counted."""


def deadly_kinds(components: Components) -> Sequence[JobKind[Any]]:
    """Return `deadly`, whose first attempt fails and each later one kills the process, and `tallied`.

    The latter takes its time and leaves a job in the queue `tally`, of its payload.
    """

    async def kill(job: Job, _: Mapping[str, object]) -> None:
        await trio.lowlevel.checkpoint()
        if job.attempt == 1:
            raise RuntimeError("a word before the end")
        os.kill(os.getpid(), signal.SIGKILL)

    async def tally(job: Job, payload: Mapping[str, object]) -> Effects:
        await trio.sleep(0.1)
        mark = NewJob(
            id=type(job.id)(components.new_id()),
            kind=TALLY,
            queue=TALLY,
            run_at=components.clock.now(),
            payload=payload,
        )
        return Effects(jobs=(mark,))

    quick = Backoff(base=0.1, cap=0.1)
    return [JobKind(name="deadly", run=kill, backoff=quick), JobKind(name="tallied", run=tally)]
