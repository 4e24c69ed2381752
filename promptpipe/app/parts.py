"""What the supervisor runs: the runners and the servers, made of components."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from promptpipe.config import is_loopback
from promptpipe.flows.prompts import BranchHandler, GenAiHandler, PromptComposer
from promptpipe.flows.registry import FlowRegistry
from promptpipe.model.decisions import Hook
from promptpipe.model.errors import SettingsError
from promptpipe.model.inbound import Enrollment
from promptpipe.model.jobs import JobStatus
from promptpipe.recovery import (
    FlowsRecovery,
    HandlersRecovery,
    LanesRecovery,
    MessagesRecovery,
    RecoveryManager,
    RecoveryRegistry,
)
from promptpipe.recovery.manager import once
from promptpipe.rpc.auth import bearer_token, everyone
from promptpipe.rpc.handlers import (
    FlowHandlers,
    HistoryHandlers,
    JobHandlers,
    OutboxHandlers,
    ParticipantHandlers,
    PromptHandlers,
    RecoveryHandlers,
)
from promptpipe.rpc.health import Health
from promptpipe.rpc.reflection import service_name, with_reflection
from promptpipe.rpc.server import RpcServer, tls_context
from promptpipe.runtime.exclusive_recovery import ExclusiveRecovery
from promptpipe.runtime.instances import InstanceWatch
from promptpipe.runtime.job_runner import JobRunner
from promptpipe.runtime.lease_keeper import LeaseKeeper
from promptpipe.runtime.mailbox_runner import MailboxRunner
from promptpipe.runtime.maintenance import Maintenance
from promptpipe.runtime.outbox_sender import OutboxSender
from promptpipe.runtime.persistence import Persistence
from promptpipe.runtime.schedule_runner import ScheduleRunner
from promptpipe.runtime.worker import Worker
from promptpipe.services.conversations import Conversations
from promptpipe.services.flows import Flows
from promptpipe.services.inbound import Inbound
from promptpipe.services.jobs import Jobs, Queues
from promptpipe.services.messages import Messages
from promptpipe.services.observations import Observations
from promptpipe.services.participants import Participants
from promptpipe.services.prompts import PromptRules, Prompts
from promptpipe.services.recoveries import Recoveries
from promptpipe.services.schedules import Schedules
from promptpipe.services.tokens import bearer_check
from promptpipe.web.app import make_app
from promptpipe.web.server import HttpServer

if TYPE_CHECKING:
    import socket
    import ssl

    from promptpipe.app.components import Components
    from promptpipe.config import Settings
    from promptpipe.recovery import Recoverable, ResponseHandlerRecoveryInfo, TimerRecoveryInfo
    from promptpipe.recovery.manager import Persist
    from promptpipe.rpc.auth import Authenticate
    from promptpipe.rpc.server import Service
    from promptpipe.runtime.supervisor import Part
    from promptpipe.services.readiness import Readiness


def make_worker(components: Components, readiness: Readiness) -> Worker:
    """Return this process as one that leases work."""
    chance = random.SystemRandom().random
    persistence = Persistence(chance, readiness.store_failed)
    keeper = LeaseKeeper(
        components.store.leases,
        components.clock,
        persistence,
        lease_seconds=components.settings.lease,
        metrics=components.metrics,
    )
    return Worker(
        id=components.worker,
        clock=components.clock,
        keeper=keeper,
        wakeups=components.wakeups,
        persistence=persistence,
        random=chance,
        metrics=components.metrics,
    )


def make_runners(components: Components, worker: Worker) -> list[Part]:
    """Return what works off schedules, jobs, mailboxes and the outbox."""
    settings, store = components.settings, components.store
    flows = _flows(components)
    conversations = Conversations(flows, _composer(components), components.clock, components.new_id)
    retention = settings.retention
    kept = {
        JobStatus.DONE: retention.done,
        JobStatus.FAILED: retention.failed,
        JobStatus.CANCELED: retention.canceled,
    }
    return [
        Maintenance(store.maintenance, worker.persistence, kept),
        ScheduleRunner(store.schedules, worker),
        JobRunner(
            store.jobs,
            components.job_kinds,
            flows.job_kinds,
            worker,
            slots=settings.job_concurrency,
            queues=settings.queue_names,
        ),
        MailboxRunner(
            store.mailboxes,
            conversations.decide,
            worker,
            slots=settings.mailbox_concurrency,
            quick=components.generator is None,
        ),
        OutboxSender(store.outbox, components.channels, worker, slots=settings.outbox_concurrency),
    ]


def make_recovery(components: Components, persist: Persist = once, **how: Any) -> RecoveryManager:
    """Return the recovery manager with every recoverable registered, and callbacks that repair by way of the store.

    *persist* is the manager's, *how* what `RecoveryRegistry` takes.
    """
    store, clock = components.store.recovery, components.clock
    retention = components.settings.retention.done
    forgotten = timedelta(seconds=retention) if retention else None

    async def restore_timer(info: TimerRecoveryInfo, remaining: float | None) -> bool:
        # The participant's flow starts it again, under the mailbox's lease and with its state's version.
        return await store.report_lost_timer(info.lost, info.flow_type, info.data_key, remaining)

    async def restore_handler(info: ResponseHandlerRecoveryInfo) -> bool:
        hook = Hook(
            participant_id=info.participant_id,
            handler_type=info.handler_type,
            flow_type=info.flow_type,
            expires_at=None if info.ttl is None else clock.now() + info.ttl,
        )
        return await store.register_hook(hook)

    registry = RecoveryRegistry(store, clock, forgotten=forgotten, **how)
    registry.register_timer_recovery(restore_timer)
    registry.register_handler_recovery(restore_handler)
    manager = RecoveryManager(registry, clock, components.metrics, persist)
    known = [flow.flow_type for flow in components.flows]
    ours: list[Recoverable] = [HandlersRecovery(), LanesRecovery(), MessagesRecovery(), FlowsRecovery(known)]
    for recoverable in [*ours, *components.recoverables]:
        manager.register(recoverable)
    return manager


def make_exclusive_recovery(components: Components, worker: Worker, manager: RecoveryManager) -> ExclusiveRecovery:
    """Return what runs the manager's recovery on one instance at a time."""
    return ExclusiveRecovery(manager, components.store.recovery, worker)


def make_instance_watch(
    components: Components, worker: Worker, manager: RecoveryManager, readiness: Readiness
) -> InstanceWatch:
    """Return what keeps this process among the instances and takes over from those that died."""
    return InstanceWatch(components.store.instances, worker, ready=lambda: readiness.ready, take_over=manager.repair)


def make_http_server(components: Components, readiness: Readiness, listener: socket.socket) -> HttpServer:
    """Return the server of webhooks, health checks and metrics."""
    observations = Observations(components.store)

    async def metrics() -> bytes:
        return components.metrics.page(await observations.latest(), ready=readiness.ready)

    settings, webhooks = components.settings, _webhooks(components, readiness)
    if settings.admin_token is not None:
        admits = bearer_check(settings.admin_token.get_secret_value())
        app = make_app(webhooks, readiness, metrics, admits)
    else:
        # Webhooks are for everybody, and so would this be: without a token it is for this machine alone.
        app = make_app(webhooks, readiness, metrics if is_loopback(settings.http_bind) else None)
    return HttpServer("HTTP server", app, listener, grace=components.settings.shutdown_grace)


def make_rpc_server(
    components: Components, readiness: Readiness, recovery: ExclusiveRecovery, listener: socket.socket
) -> RpcServer:
    """Return the gRPC server; raise `SettingsError` when its TLS files cannot be used."""
    settings = components.settings
    recoveries = Recoveries(recovery.run_all, components.store.recovery)
    return RpcServer(
        _services(components, readiness, recoveries),
        listener,
        grace=settings.shutdown_grace,
        authenticate=_gate(settings),
        tls=_grpc_tls(settings),
    )


def _webhooks(components: Components, readiness: Readiness) -> dict[str, Inbound]:
    enrollment = _enrollment(components) if components.settings.auto_enroll else None
    return {
        name: Inbound(channel, components.store.inbound, enrollment, readiness.store_failed, components.metrics)
        for name, channel in components.channels.items()
    }


def _enrollment(components: Components) -> Enrollment:
    flow = components.flows[0]
    return Enrollment(flow.flow_type, flow.handler_type, flow.initial_state)


def _flows(components: Components) -> FlowRegistry:
    return FlowRegistry(components.flows, [BranchHandler(), GenAiHandler(components.generator), *components.handlers])


def _composer(components: Components) -> PromptComposer:
    return PromptComposer(components.generator, components.prompt_generators)


def _services(components: Components, readiness: Readiness, recoveries: Recoveries) -> list[Service]:
    """Return the services of the gRPC plane, with health and reflection."""
    store, new_id = components.store, components.new_id
    channel = next(iter(components.channels))
    flows, composer = _flows(components), _composer(components)
    rules = PromptRules(composer.custom, has_model=composer.has_model)
    people = Participants(store.participants, channel, _enrollment(components))
    jobs = Jobs(
        store.jobs,
        store.participants,
        kinds=components.job_kinds,
        timer_kinds=flows.job_kinds,
        queues=components.settings.queue_names,
        clock=components.clock,
        new_id=new_id,
    )
    services: list[Service] = [
        ParticipantHandlers(people),
        JobHandlers(jobs, Queues(store.queues)),
        OutboxHandlers(Messages(store.outbox, store.participants, new_id), people),
        HistoryHandlers(store.history),
        FlowHandlers(Flows(flows, store.orders, store.participants), store.aside),
        RecoveryHandlers(recoveries),
        PromptHandlers(
            Prompts(store.orders, store.outbox, rules, new_id),
            Schedules(store.schedules, store.participants, rules, new_id),
            people,
        ),
    ]
    return with_reflection([*services, Health(readiness, map(service_name, services))])


def _gate(settings: Settings) -> Authenticate:
    token = settings.admin_token
    return everyone if token is None else bearer_token(token.get_secret_value())


def _grpc_tls(settings: Settings) -> ssl.SSLContext | None:
    """Return the TLS context that the settings ask for; raise `SettingsError` when its files cannot be used."""
    tls = settings.grpc_tls
    if tls.cert_file is None or tls.key_file is None:
        return None
    try:
        return tls_context(tls.cert_file, tls.key_file, tls.client_ca_file)
    except OSError as error:
        raise SettingsError(f"PROMPTPIPE_GRPC_TLS__…: the files cannot be used: {error}") from error
