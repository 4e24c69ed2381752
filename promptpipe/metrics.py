"""Metrics for Prometheus.

What is counted lies in plain numbers: of all that a job costs, counting it is to be the least. prometheus_client, which
takes a lock for each, and a while to import, comes in when somebody looks.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from itertools import accumulate
from typing import TYPE_CHECKING, Literal

from promptpipe.model.leases import Work
from promptpipe.model.messages import Verdict
from promptpipe.ports.metrics import OTHER, Metrics

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from prometheus_client import CollectorRegistry, Metric

    from promptpipe.model.jobs import QueueStats
    from promptpipe.model.recovery import ComponentReport
    from promptpipe.services.observations import Observation

SHORT = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
"""Seconds that a machine takes."""
LONG = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 15, 60, 300, 1800, 7200, 86400)
"""Seconds that work may wait."""
SIZES = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 5000)
STATES = ("scheduled", "ready", "running", "failed")


class Distribution:
    """How many values there were up to each bound."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def add(self, value: float) -> None:
        """Count a value; one that clocks make negative is 0."""
        value = max(value, 0.0)
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def buckets(self) -> tuple[list[tuple[str, float]], float]:
        """Return how many values there were up to each bound and in all, and their sum."""
        names = [*(f"{float(bound)}" for bound in self._bounds), "+Inf"]
        return list(zip(names, map(float, accumulate(self._counts)), strict=True)), self._sum


class Counts:
    """A family of counters, by the values of *labels*. *known* ones are there from the start."""

    def __init__(self, name: str, text: str, *labels: str, known: Iterable[tuple[str, ...]] = ()) -> None:
        self._name, self._text, self._labels = name, text, labels
        self.values: defaultdict[tuple[str, ...], int] = defaultdict(int, dict.fromkeys(known, 0))

    def family(self) -> Metric:
        """Return it for Prometheus."""
        from prometheus_client.core import CounterMetricFamily  # noqa: PLC0415

        family = CounterMetricFamily(self._name, self._text, labels=self._labels)
        for labels, value in self.values.items():
            family.add_metric(labels, value)
        return family


class Distributions:
    """A family of histograms, by the value of *label*. *known* ones are there from the start."""

    def __init__(self, name: str, text: str, bounds: tuple[float, ...], label: str, known: Iterable[str] = ()) -> None:
        self._name, self._text, self._bounds, self._label = name, text, bounds, label
        self._of = {value: Distribution(bounds) for value in known}

    def add(self, label: str, value: float) -> None:
        """Count a value."""
        try:
            found = self._of[label]
        except KeyError:
            found = self._of[label] = Distribution(self._bounds)
        found.add(value)

    def family(self) -> Metric:
        """Return it for Prometheus."""
        from prometheus_client.core import HistogramMetricFamily  # noqa: PLC0415

        family = HistogramMetricFamily(self._name, self._text, labels=[self._label])
        for value, distribution in self._of.items():
            family.add_metric([value], *distribution.buckets())
        return family


class PrometheusMetrics(Metrics):
    """Counts for one service, which serves *queues*."""

    def __init__(self, queues: Collection[str]) -> None:
        self._queues = frozenset(queues)
        self._registry: CollectorRegistry | None = None
        works = [work.value for work in (Work.JOB, Work.MAILBOX, Work.OUTBOX)]
        self._started = Counts("promptpipe_jobs_started", "Runs of jobs that were begun.", "kind")
        self._ended = Counts("promptpipe_jobs_ended", "Runs of jobs that have ended.", "kind", "outcome")
        self._lost = Counts(
            "promptpipe_leases_lost", "Leases lost while work went on.", "work", known=[(work,) for work in works]
        )
        self._transactions = Counts(
            "promptpipe_store_transactions", "Transactions asked for.", "kind", known=[("read",), ("write",)]
        )
        self._retries = Counts(
            "promptpipe_store_retries", "Transactions begun anew as others were in their way.", known=[()]
        )
        self._unavailable = Counts(
            "promptpipe_store_unavailable", "Transactions that the database could not do.", known=[()]
        )
        self._findings = Counts("promptpipe_recovery_findings", "What recovery found.", "component", "result")
        self._job_lag = Distributions(
            "promptpipe_job_start_lag_seconds",
            "From due (the first time) to started, retries left out.",
            LONG,
            "queue",
            queues,
        )
        self._job_run = Distributions("promptpipe_job_run_seconds", "From started to ended.", SHORT, "kind")
        self._claims = Distributions("promptpipe_claim_items", "What claims handed out.", SIZES, "work", works)
        self._events = Distributions(
            "promptpipe_mailbox_event_seconds",
            "From a participant's event to what became of it.",
            LONG,
            "result",
            ("handled", "retried", "aside"),
        )
        self._sends = Distributions(
            "promptpipe_outbox_send_seconds",
            "Sends, by what came of them.",
            SHORT,
            "verdict",
            [verdict.value for verdict in Verdict],
        )
        self._webhooks = Distributions(
            "promptpipe_webhook_seconds",
            "Webhooks, until they were committed or turned down.",
            SHORT,
            "result",
            ("kept", "refused", "unavailable", "failed"),
        )
        self._generations = Distributions(
            "promptpipe_generation_seconds",
            "Answers of language models, repeated requests included.",
            LONG,
            "result",
            ("answered", "failed"),
        )
        self._tokens = Counts(
            "promptpipe_generation_tokens",
            "Tokens that language models have read and written.",
            "direction",
            known=[("read",), ("written",)],
        )
        self._families = [family for family in vars(self).values() if isinstance(family, Counts | Distributions)]

    def claimed(self, work: Work, items: int) -> None:
        """See `Metrics`."""
        self._claims.add(work.value, items)

    def lease_lost(self, work: Work) -> None:
        """See `Metrics`."""
        self._lost.values[work.value,] += 1

    def job_started(self, kind: str, queue: str, lag: float | None) -> None:
        """See `Metrics`."""
        self._started.values[kind,] += 1
        if lag is not None:
            self._job_lag.add(queue, lag)

    def job_ended(self, kind: str, outcome: str, seconds: float) -> None:
        """See `Metrics`."""
        self._ended.values[kind, outcome] += 1
        self._job_run.add(kind, seconds)

    def event_ended(self, result: Literal["handled", "retried", "aside"], lag: float) -> None:
        """See `Metrics`."""
        self._events.add(result, lag)

    def sent(self, verdict: Verdict, seconds: float) -> None:
        """See `Metrics`."""
        self._sends.add(verdict.value, seconds)

    def generated(self, result: Literal["answered", "failed"], seconds: float, read: int, written: int) -> None:
        """See `Metrics`."""
        self._generations.add(result, seconds)
        self._tokens.values["read",] += read
        self._tokens.values["written",] += written

    def webhook(self, result: Literal["kept", "refused", "unavailable", "failed"], seconds: float) -> None:
        """See `Metrics`."""
        self._webhooks.add(result, seconds)

    def transaction(self, kind: Literal["read", "write"]) -> None:
        """See `Metrics`."""
        self._transactions.values[kind,] += 1

    def transaction_retried(self) -> None:
        """See `Metrics`."""
        self._retries.values[()] += 1

    def store_unavailable(self) -> None:
        """See `Metrics`."""
        self._unavailable.values[()] += 1

    def recovered(self, report: ComponentReport) -> None:
        """See `Metrics`."""
        self._findings.values[report.name, "restored"] += report.restored
        self._findings.values[report.name, "failed"] += report.failed

    def page(self, observation: Observation, *, ready: bool) -> bytes:
        """Return everything in Prometheus's text format; what could not be observed is not in it."""
        from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest  # noqa: PLC0415

        if self._registry is None:
            self._registry = CollectorRegistry(auto_describe=False)
            ProcessCollector(registry=self._registry)
            self._registry.register(self)
        self._observation, self._ready = observation, ready
        return generate_latest(self._registry)

    def describe(self) -> list[Metric]:
        """Return nothing: names are not checked against other collectors' before there are values."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Return every family, for `prometheus_client`."""
        from prometheus_client.core import GaugeMetricFamily  # noqa: PLC0415

        yield from (family.family() for family in self._families)
        yield GaugeMetricFamily("promptpipe_ready", "Whether webhooks can be taken.", float(self._ready))
        if self._observation.in_doubt is not None:
            text = "Messages of which nobody knows whether they were sent."
            yield GaugeMetricFamily("promptpipe_messages_in_doubt", text, self._observation.in_doubt)
        if self._observation.aside is not None:
            text = "Events that could not be handled and wait for an operator."
            yield GaugeMetricFamily("promptpipe_events_aside", text, self._observation.aside)
        if self._observation.queues is not None:
            yield from self._depths(self._observation.queues)

    def _depths(self, queues: Collection[QueueStats]) -> Iterator[Metric]:
        """Return what is in the queues, all that are not served here as one."""
        from prometheus_client.core import GaugeMetricFamily  # noqa: PLC0415

        jobs: defaultdict[tuple[str, str], int] = defaultdict(int)
        lags: defaultdict[str, float] = defaultdict(float)
        for queue in queues:
            name = queue.name if queue.name in self._queues else OTHER
            lags[name] = max(lags[name], queue.lag)
            for state in STATES:
                jobs[name, state] += getattr(queue, state)
        depth = GaugeMetricFamily("promptpipe_queue_jobs", "Jobs on all instances.", labels=["queue", "state"])
        for labels, count in jobs.items():
            depth.add_metric(labels, count)
        lag = GaugeMetricFamily("promptpipe_queue_lag_seconds", "Age of the oldest ready job.", labels=["queue"])
        for name, seconds in lags.items():
            lag.add_metric([name], seconds)
        yield depth
        yield lag
