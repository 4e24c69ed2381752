"""Job queues of others beside PromptPipe's: enqueued, drained and started on the same server, in turn.

Run it with `make bench-peers`. Each gets an empty database, a process for its worker, and the settings that served it
best; where several are named, they are tried first. Rounds go through all, so that each is measured in the same
weather. A job does nothing and is done when the database says so.
"""

from __future__ import annotations

import logging
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import jobs, latency
from bench.databases import count, open_databases
from bench.figures import Figure, figure, parser, percentiles, show, show_machine
from bench.machine import OURS, machine
from bench.peers.dbos import Dbos
from bench.peers.huey import Huey
from bench.peers.peer import open_peer
from bench.peers.pgqueuer import PgQueuer
from bench.peers.procrastinate import Procrastinate
from bench.suite import Suite

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bench.peers.peer import Peer

ON_POSTGRES: Sequence[Sequence[Peer]] = (
    [
        PgQueuer(consumers=1, batch_size=10),
        PgQueuer(consumers=1, batch_size=250),
        PgQueuer(consumers=1, batch_size=1000),
        PgQueuer(consumers=2, batch_size=250),
        PgQueuer(consumers=2, batch_size=1000),
        PgQueuer(consumers=4, batch_size=100),
    ],
    [Procrastinate(concurrency=5), Procrastinate(concurrency=20)],
    [Dbos(polling_seconds=0.1)],
)
ON_SQLITE: Sequence[Sequence[Peer]] = ([Huey(workers=1), Huey(workers=4)],)
"""Each with the settings to try."""

US = "PromptPipe"
AT_REST = "enqueue to start, at rest"
LATE = 100
GAP_SECONDS = 0.02
WARM_UP = 20


@dataclass(frozen=True)
class Measured:
    """What one of them did in a round."""

    enqueued: float
    """Jobs per second."""

    drained: float
    """Jobs per second."""

    cpu_micros: float
    """The worker's CPU for each."""

    late: Sequence[float]
    """Seconds from just before the call that enqueued a job to its first line, at rest."""


class Comparison:
    """Measures PromptPipe and the others on one back end."""

    def __init__(self, suite: Suite, back_end: str) -> None:
        self._suite = suite
        self._back_end = back_end

    def figures(self, peers: Sequence[Sequence[Peer]]) -> Iterator[Figure]:
        """Find the best settings of each, and measure all in rounds, in turn."""
        chosen = []
        for tries in peers:
            best = tries[0]
            if len(tries) > 1:
                rates = {peer: self._jobs(peer)[1] for peer in tries}
                best = max(rates, key=rates.__getitem__)
                for peer, rate in rates.items():
                    yield self._figure([rate], peer.name, what="no-op jobs drained, a try", unit="/s", note=told(peer))
            chosen.append(best)
        ours, theirs = [], {peer: [] for peer in chosen}
        for _ in self._suite.many_rounds:
            ours.append(self._us())
            for peer in chosen:
                theirs[peer].append(Measured(*self._jobs(peer), self._late(peer)))
        yield from self._told(US, ours, f"job_concurrency={jobs.SLOTS}")
        for peer in chosen:
            yield from self._told(peer.name, theirs[peer], told(peer))
            yield from self._ratios(peer, ours, theirs[peer])

    def _us(self) -> Measured:
        number, url = self._suite.number(jobs.NUMBER), self._suite.databases.new(self._back_end)
        enqueued = jobs.enqueue(url, number)
        drained, cpu_micros = jobs.drain(url, number)
        late = latency.at_rest(self._suite.databases.new(self._back_end), WARM_UP + self._suite.number(LATE))
        return Measured(enqueued, drained, cpu_micros, late[WARM_UP:])

    def _jobs(self, peer: Peer) -> tuple[float, float, float]:
        """Return the jobs that *peer* enqueued and drained per second, and its worker's CPU µs for each."""
        number, url = self._suite.number(peer.number), self._suite.databases.new(self._back_end)
        peer.set_up(url)
        begun = time.perf_counter()
        peer.enqueue(url, number)
        enqueued = number / (time.perf_counter() - begun)
        with open_peer(peer, url) as worker:
            begun = time.perf_counter()
            worker.go(number)
            worker.wait_handled()
            while count(url, peer.unfinished):
                time.sleep(0.01)
            drained = number / (time.perf_counter() - begun)
            return enqueued, drained, worker.stop().cpu_seconds / number * 1e6

    def _late(self, peer: Peer) -> list[float]:
        url = self._suite.databases.new(self._back_end)
        peer.set_up(url)
        number = WARM_UP + self._suite.number(LATE)
        with open_peer(peer, url) as worker:
            worker.go(number)
            time.sleep(latency.REST_SECONDS)
            with peer.enqueuing(url) as enqueue:
                for _ in range(number):
                    enqueue(str(time.time_ns()))
                    time.sleep(GAP_SECONDS)
            worker.wait_handled()
            return worker.stop().latencies[WARM_UP:]

    def _figure(self, values: Sequence[float], name: str, **rest: Any) -> Figure:
        return figure(values, group="peers", of=f"{name}, {self._back_end}", **rest)

    def _told(self, name: str, rounds: Sequence[Measured], settings: str) -> Iterator[Figure]:
        new = partial(self._figure, name=name, note=settings)
        yield new([one.enqueued for one in rounds], what="jobs enqueued", unit="/s")
        yield new([one.drained for one in rounds], what="no-op jobs drained", unit="/s")
        yield new([one.cpu_micros for one in rounds], what="the worker's CPU for each", unit="µs")
        late = [seconds for one in rounds for seconds in one.late]
        yield from percentiles(late, what=AT_REST, group="peers", of=f"{name}, {self._back_end}", note=settings)

    def _ratios(self, peer: Peer, ours: Sequence[Measured], theirs: Sequence[Measured]) -> Iterator[Figure]:
        new = partial(self._figure, name=f"{US} / {peer.name}", unit="x")
        pairs = list(zip(ours, theirs, strict=True))
        least = 1.0 if isinstance(peer, PgQueuer) else None
        yield new([us.enqueued / them.enqueued for us, them in pairs], what="jobs enqueued")
        yield new([us.drained / them.drained for us, them in pairs], what="no-op jobs drained", at_least=least)
        late = [statistics.median(us.late) / statistics.median(them.late) for us, them in pairs]
        most = 1.0 if self._back_end == "postgres" else None
        yield new(late, what=f"{AT_REST}, p50", at_most=most)


def told(peer: Peer) -> str:
    """Return a peer's settings as people read them."""
    return ", ".join(f"{name}={value}" for name, value in asdict(peer).items())  # type: ignore[call-overload]


def main() -> None:
    options = parser(__doc__)
    options.add_argument("url", nargs="?", help="a PostgreSQL server; without, one is started")
    chosen = options.parse_args()
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder, open_databases(Path(folder), chosen.url) as databases:
        peers = [peer for tries in (*ON_POSTGRES, *ON_SQLITE) for peer in tries]
        packages = sorted({package for peer in peers for package in peer.packages})
        show_machine(machine(databases.server_url, (*OURS, *packages)), as_json=chosen.json, quick=chosen.quick)
        suite = Suite.made(databases, quick=chosen.quick)
        for back_end, peers_there in (("postgres", ON_POSTGRES), ("sqlite", ON_SQLITE)):
            show(Comparison(suite, back_end).figures(peers_there), as_json=chosen.json)


if __name__ == "__main__":
    main()
