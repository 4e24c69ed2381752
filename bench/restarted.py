"""The service that `bench.restart` kills and starts, without any import that it has no need of.

`URL HTTP GRPC SLOTS [--hang]`. It says when it has imported everything, and when its first job starts.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import trio

from promptpipe import app
from promptpipe.config import Settings
from promptpipe.logs import set_up_logging
from promptpipe.ports.jobs import JobKind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from promptpipe.model.jobs import Job

KIND = "bench"


async def serve(settings: Settings, *, hang: bool) -> None:
    """Serve until a signal; jobs take no time, or for ever."""
    first = True

    async def run(job: Job, payload: Mapping[str, object]) -> None:
        nonlocal first
        del job, payload
        if first:
            first = False
            say("first job")
        if hang:
            await trio.sleep_forever()

    async with app.open_components(settings) as opened:
        await app.run(replace(opened, job_kinds={KIND: JobKind(name=KIND, run=run)}))


def say(what: str) -> None:
    """Tell whoever started this process when something happened."""
    print(time.time_ns(), what, flush=True)


def main() -> None:
    say("imported")
    url, http, grpc, slots, *options = sys.argv[1:]
    settings = Settings(database_url=url, http_bind=http, grpc_bind=grpc, job_concurrency=int(slots), lease=3600.0)
    set_up_logging(as_json=False)
    trio.run(lambda: serve(settings, hang="--hang" in options))


if __name__ == "__main__":
    main()
