"""Every promise has a figure that moves when it is kept or broken: real runs, and what they leave on the page."""

from __future__ import annotations

import time
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

import pytest
import trio

from promptpipe.metrics import PrometheusMetrics
from promptpipe.model.errors import (
    CancelJobError,
    FailJobError,
    SignatureError,
    SnoozeJobError,
    StoreUnavailableError,
)
from promptpipe.model.ids import JobId
from promptpipe.model.inbound import InboundBatch, IngestReport
from promptpipe.model.jobs import NewJob, QueueStats
from promptpipe.model.messages import SendResult, Verdict
from promptpipe.model.recovery import ComponentReport
from promptpipe.services.inbound import Inbound
from promptpipe.services.observations import Observation, Observations
from promptpipe.storage.transactions.measured import MeasuredDatabase
from tests.support.echo import EchoFlow
from tests.support.people import inbound
from tests.support.runtime import FakeChannel, kind_of, open_runtime, running
from tests.support.scrape import counted, scraped
from tests.support.unreliable import Trouble

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from trio.testing import MockClock

    from promptpipe.flows.flow import FlowContext
    from promptpipe.model.decisions import Decision, FlowState
    from promptpipe.model.events import Event
    from promptpipe.model.jobs import Job
    from promptpipe.model.messages import Departure, SendOrder
    from promptpipe.ports.metrics import Metrics
    from tests.support.runtime import Runtime


async def enqueue(runtime: Runtime, kind: str = "work", *, after: float = 0.0, **other: object) -> None:
    at = runtime.clock.now() + timedelta(seconds=after)
    new = NewJob(id=JobId(runtime.new_id()), kind=kind, run_at=at, **other)  # type: ignore[arg-type]
    await runtime.store.jobs.enqueue(new)


async def test_jobs_are_counted_by_what_became_of_them(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Started and ended by kind, lag by queue; what nobody here knows is `other`, whatever it is called."""
    ends = {"snooze": SnoozeJobError(1.0), "fail": FailJobError(), "cancel": CancelJobError(), "retry": ValueError()}

    async def handler(job: Job) -> None:
        await trio.sleep(0.2)
        error = ends.pop(str(job.payload.get("end")), None)
        if error is not None:
            raise error

    metrics = PrometheusMetrics(["default"])
    async with open_runtime(tmp_path, kinds=[kind_of(handler)], metrics=metrics) as runtime, running(runtime):
        await runtime.hear("hello")  # enrolls, with a timer of the flow's kind
        for end in (None, *ends):
            await enqueue(runtime, payload={"end": end})
        await enqueue(runtime, payload={"end": "last"}, max_attempts=1)
        ends["last"] = ValueError()
        for number in range(5):
            await enqueue(runtime, f"secret-{number}")
        await trio.sleep(20)
    values = counted(metrics)
    outcomes = {"done": 3, "snoozed": 1, "failed": 2, "canceled": 1, "retried": 1}
    assert {name: values[f"jobs_ended_total{{work,{name}}}"] for name in outcomes} == outcomes
    assert values["jobs_started_total{work}"] == sum(outcomes.values())
    assert values["jobs_ended_total{other,snoozed}"] == 5
    assert values["job_run_seconds_count{work}"] == sum(outcomes.values())
    assert values["job_run_seconds_sum{work}"] == pytest.approx(0.2 * sum(outcomes.values()))
    assert not [name for name in values if "secret" in name]


async def test_lag_is_from_due_to_started(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Of one that was due an hour ago, and of one on time; not of a retry."""
    calls = []

    async def handler(job: Job) -> None:
        await trio.lowlevel.checkpoint()
        calls.append(job.attempt)
        if len(calls) == 1:
            raise ValueError("boom")

    metrics = PrometheusMetrics(["default"])
    async with open_runtime(tmp_path, kinds=[kind_of(handler)], metrics=metrics) as runtime:
        await enqueue(runtime)
        await trio.sleep(3600)
        async with running(runtime):
            await enqueue(runtime, after=2.0)
            await trio.sleep(60)
    values = counted(metrics)
    assert calls.count(2) == 1
    assert values["job_start_lag_seconds_count{default}"] == 2
    assert values["job_start_lag_seconds_bucket{0.05,default}"] == 1
    assert values["job_start_lag_seconds_sum{default}"] == pytest.approx(3600, abs=1)


async def test_claims_and_transactions_are_counted(tmp_path: Path, autojump_clock: MockClock) -> None:
    """How much a claim brought, and what the database was asked, and could not do."""

    async def handler(_: Job) -> None:
        await trio.lowlevel.checkpoint()

    metrics = PrometheusMetrics(["default"])
    async with open_runtime(tmp_path, kinds=[kind_of(handler)], metrics=metrics) as runtime:
        for _ in range(3):
            await enqueue(runtime)
        async with running(runtime):
            await trio.sleep(5)
    values = counted(metrics)
    assert (values["claim_items_sum{job}"], values["claim_items_bucket{0.0,job}"] >= 1) == (3, True)
    assert all(values[f"claim_items_count{{{work}}}"] > 1 for work in ("job", "mailbox", "outbox"))
    assert values["store_transactions_total{write}"] > values["claim_items_count{job}"]


class Stubborn(EchoFlow):
    """Fails twice at one word, the first time before it is the first in its mailbox, and always at another."""

    failures = 0

    async def handle(self, event: Event, state: FlowState, context: FlowContext) -> Decision:
        text = getattr(event, "text", "")
        if text == "never" or (text == "twice" and self.failures < 2):
            self.failures += text == "twice"
            raise ValueError(text)
        return await super().handle(event, state, context)


async def test_events_and_sends_are_counted(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Events by what became of them, and how long after they came; messages by what the provider said."""
    channel = FakeChannel(answers=[SendResult(verdict=Verdict.REFUSED, error="100"), slow_doubt])
    metrics = PrometheusMetrics(["default"])
    async with (
        open_runtime(tmp_path, flows=[Stubborn()], channel=channel, metrics=metrics) as runtime,
        running(runtime),
    ):
        await runtime.hear("fine", "twice", "never")
        await trio.sleep(60)
        assert (await Observations(runtime.store).latest()).in_doubt == 1
        await trio.sleep(600)
        assert (await Observations(runtime.store).latest()).in_doubt == 0
    values = counted(metrics)
    assert values["mailbox_event_seconds_count{aside}"] == 1
    assert values["mailbox_event_seconds_count{handled}"] > values["mailbox_event_seconds_bucket{0.1,handled}"] > 0
    assert values["mailbox_event_seconds_count{retried}"] > 1
    assert values["mailbox_event_seconds_sum{aside}"] > 60
    sends = {name: int(values.get(f"outbox_send_seconds_count{{{name}}}", 0)) for name in ("refused", "doubtful")}
    assert sends == {"refused": 1, "doubtful": 1}
    assert values["outbox_send_seconds_count{accepted}"] >= 1
    assert values["outbox_send_seconds_sum{doubtful}"] == pytest.approx(3.0)


async def slow_doubt(_: SendOrder, departure: Departure) -> SendResult:
    departure.note()
    await trio.sleep(3.0)
    return SendResult(verdict=Verdict.DOUBTFUL, error="ReadTimeout")


@pytest.mark.parametrize("how", ["extending", "finishing"])
async def test_lost_leases_are_counted_once_each(tmp_path: Path, autojump_clock: MockClock, how: str) -> None:
    """Whether the keeper finds out, or the end of the job."""

    async def handler(_: Job) -> None:
        await trio.sleep(5 if how == "finishing" else 60)

    metrics = PrometheusMetrics(["default"])
    async with open_runtime(tmp_path, kinds=[kind_of(handler)], metrics=metrics) as runtime, running(runtime):
        await enqueue(runtime)
        await trio.sleep(1)
        runtime.change("UPDATE jobs SET fence = fence + 1000, due_at = due_at + 3600000000")
        await trio.sleep(100)
    values = counted(metrics)
    assert values["leases_lost_total{job}"] == 1
    assert values[f"jobs_ended_total{{work,{'done' if how == 'finishing' else 'dropped'}}}"] == 1


async def test_what_the_store_cannot_do_is_counted(tmp_path: Path, autojump_clock: MockClock) -> None:
    """As often as it was asked."""
    metrics = PrometheusMetrics(["default"])
    async with open_runtime(tmp_path, metrics=metrics) as runtime:
        runtime.store.jobs._database._database._writer._connection.execute("PRAGMA query_only = ON")  # type: ignore[attr-defined]
        with pytest.raises(StoreUnavailableError):
            await enqueue(runtime)
    assert counted(metrics)["store_unavailable_total"] == 1


@pytest.mark.parametrize("kind", ["read", "write"])
async def test_failures_of_reading_and_writing_count_alike(kind: Literal["read", "write"]) -> None:
    """Whoever asked."""

    class Full:
        async def write(self, _: object) -> None:
            await trio.lowlevel.checkpoint()
            raise StoreUnavailableError("full")

        read = write

    async def nothing(_: object) -> None:
        await trio.lowlevel.checkpoint()

    metrics = PrometheusMetrics(["default"])
    database = MeasuredDatabase(Full(), metrics)  # type: ignore[arg-type]
    with pytest.raises(StoreUnavailableError):
        await getattr(database, kind)(nothing)
    values = counted(metrics)
    assert (values["store_unavailable_total"], values[f"store_transactions_total{{{kind}}}"]) == (1, 1)


async def test_webhooks_are_counted_by_what_became_of_them(autojump_clock: MockClock) -> None:
    """And timed; a defect of ours is counted too."""

    class Pages:
        name = "whatsapp"

        def receive(self, headers: Mapping[str, str], body: bytes) -> InboundBatch:
            if body != b"signed":
                raise SignatureError("no")
            return InboundBatch((inbound(),))

    class Store:
        errors: list[Exception | None]

        async def ingest(self, *_: object) -> IngestReport:
            await trio.sleep(0.3)
            error = self.errors.pop(0)
            if error is not None:
                raise error
            return IngestReport()

    metrics, store = PrometheusMetrics([]), Store()
    store.errors = [None, StoreUnavailableError("full"), ValueError("defect")]
    webhook = Inbound(Pages(), store, None, lambda: None, metrics)  # type: ignore[arg-type]
    for body in (b"signed", b"signed", b"signed", b"other"):
        with suppress(StoreUnavailableError, ValueError, SignatureError):
            await webhook.receive({}, body)
    values = counted(metrics)
    for result in ("kept", "unavailable", "failed", "refused"):
        assert values[f"webhook_seconds_count{{{result}}}"] == 1
    assert values["webhook_seconds_sum{kept}"] == pytest.approx(0.3)


async def test_looking_asks_the_store_now_and_then(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Many who look at once ask once; what could not be found is not on the page."""
    trouble = Trouble()
    metrics = PrometheusMetrics(["default"])
    async with open_runtime(tmp_path, wrap=trouble.wrap) as runtime:
        observations = Observations(runtime.store)
        for queue in ("default", "hidden-1", "hidden-2"):
            await enqueue(runtime, queue=queue)
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(observations.latest)
        await trio.sleep(4)
        values = counted(metrics, await observations.latest())
        assert trouble.calls.count("queues.stats") == 1
        assert (values["queue_jobs{default,ready}"], values["queue_jobs{other,ready}"]) == (1, 2)
        assert not [name for name in values if "hidden" in name]
        await trio.sleep(1)
        trouble.left["queues.stats"] = 1
        page = scraped(metrics.page(await observations.latest(), ready=False))
        assert trouble.calls.count("queues.stats") == 2
        assert (page["ready"], [name for name in page if "queue_" in name]) == (0, [])
        await trio.sleep(5)
        assert "queue_lag_seconds{default}" in counted(metrics, await observations.latest())


async def test_slow_store_is_asked_less_often_and_not_waited_for(autojump_clock: MockClock) -> None:
    """Looking takes at most a tenth of its time."""
    asked = []

    class Queues:
        async def stats(self) -> list[QueueStats]:
            asked.append(trio.current_time())
            await trio.sleep(2.0 if len(asked) < 3 else 60.0)
            return []

    class Store:
        queues = Queues()

        class outbox:  # noqa: N801
            @staticmethod
            async def count_in_doubt() -> int:
                await trio.lowlevel.checkpoint()
                return 0

        class aside:  # noqa: N801
            @staticmethod
            async def count() -> int:
                await trio.lowlevel.checkpoint()
                return 0

    observations = Observations(Store())  # type: ignore[arg-type]
    for _ in range(60):
        await observations.latest()
        await trio.sleep(1)
    assert asked == [0.0, 22.0, 44.0]
    assert await observations.latest() == Observation()


def test_lag_of_hidden_queues_is_that_of_the_oldest_job() -> None:
    """In whatever order the database names them."""
    waiting: dict[str, Any] = {
        "scheduled": 0,
        "ready": 1,
        "running": 0,
        "failed": 0,
        "paused": False,
        "concurrency": None,
    }
    queues = [QueueStats(name=f"hidden-{lag}", lag=lag, **waiting) for lag in (1.0, 9.0, 5.0)]
    page = scraped(PrometheusMetrics(["default"]).page(Observation(queues, 0), ready=True))
    assert page["queue_lag_seconds{other}"] == 9.0


def test_recovery_is_counted_by_component() -> None:
    """What was restored, and what could not be."""
    metrics = PrometheusMetrics([])
    for _ in range(2):
        metrics.recovered(ComponentReport(name="flow", checked=9, restored=2, failed=1))
    values = counted(metrics)
    assert (values["recovery_findings_total{flow,restored}"], values["recovery_findings_total{flow,failed}"]) == (4, 2)


def test_what_is_known_beforehand_is_there_from_the_start() -> None:
    """A rate needs its zero."""
    page = scraped(PrometheusMetrics(["default", "mail"]).page(Observation(), ready=True))
    for name in (
        "leases_lost_total{job}",
        "store_retries_total",
        "store_unavailable_total",
        "job_start_lag_seconds_count{mail}",
        "webhook_seconds_count{unavailable}",
        "outbox_send_seconds_count{doubtful}",
        "mailbox_event_seconds_count{aside}",
    ):
        assert page[name] == 0
    assert page["ready"] == 1
    assert {"messages_in_doubt", "events_aside"}.isdisjoint(page)
    assert page["process_resident_memory_bytes"] > 0


def test_counting_costs_next_to_nothing() -> None:
    """Ten times the microsecond that it may cost per job; and not a byte more the more there are."""
    metrics: Metrics = PrometheusMetrics(["default"])
    runs, best = 10_000, float("inf")
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(runs):
            metrics.job_started("noop", "default", 0.003)
            metrics.job_ended("noop", "done", 0.0002)
        best = min(best, (time.perf_counter() - began) / runs)
    assert best < 20e-6
