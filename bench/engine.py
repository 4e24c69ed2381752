"""The durable engine, as in production: a group of measurements after the other.

Run it with `make bench` or `python -m bench.engine [--only GROUP] [--json] [--quick] [URL]`. A server of its own, with
PostgreSQL's default settings; the service, the producers and the server share the machine. Figures are medians of
rounds.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from bench import beside, conversation, growth, jobs, lanes, latency, outbox, restart, webhook
from bench.databases import open_databases
from bench.figures import Figure, parser, show, show_machine
from bench.machine import machine
from bench.suite import Suite

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

GROUPS: Mapping[str, Callable[[Suite], Iterator[Figure]]] = {
    "jobs": jobs.figures,
    "latency": latency.figures,
    "beside": beside.figures,
    "outbox": outbox.figures,
    "lanes": lanes.figures,
    "webhook": webhook.figures,
    "conversation": conversation.figures,
    "restart": restart.figures,
    "growth": growth.figures,
}


def main() -> None:
    options = parser(__doc__)
    options.add_argument("url", nargs="?", help="a PostgreSQL server; without, one is started")
    options.add_argument("--only", choices=GROUPS, action="append", help="this group, and others that are named so")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as folder, open_databases(Path(folder), chosen.url) as databases:
        show_machine(machine(databases.server_url), as_json=chosen.json, quick=chosen.quick)
        suite = Suite.made(databases, quick=chosen.quick)
        for group in chosen.only or GROUPS:
            begun = time.perf_counter()
            show(GROUPS[group](suite), as_json=chosen.json)
            print(f"{group}: {time.perf_counter() - begun:.0f} s", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
