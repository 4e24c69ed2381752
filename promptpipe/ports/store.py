"""Storage: one method is one transaction.

Every method may raise `StoreUnavailableError`. The call can then be repeated, and takes effect once: nearly always it
had no effect yet; when the connection was lost in the middle of a commit, nobody knows, and the repeated call finds out
(ADR 0016). A call that is canceled either had no effect, or has had it all and returns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from datetime import datetime

    from promptpipe.model.decisions import Decided, Delivery, FlowState
    from promptpipe.model.errors import LeaseLostError
    from promptpipe.model.history import Receipt, Response
    from promptpipe.model.ids import EventId, JobId, MessageId, ParticipantId, WorkerId
    from promptpipe.model.inbound import Enrollment, InboundBatch, IngestReport
    from promptpipe.model.jobs import Ending, Job, LeasedJob, NewJob
    from promptpipe.model.leases import Claim, Claimed, Extension, Lease
    from promptpipe.model.listing import JobFilter, MessageFilter, Page, PageRequest
    from promptpipe.model.messages import NewMessage, OutboxMessage, Resolution, SendOrder, SendRecord
    from promptpipe.model.participants import Address, Participant, ParticipantStatus, Profile
    from promptpipe.ports.aside import AsideStore
    from promptpipe.ports.importing import ImportStore
    from promptpipe.ports.instances import InstanceStore
    from promptpipe.ports.maintenance import MaintenanceStore
    from promptpipe.ports.orders import OrderStore
    from promptpipe.ports.queues import QueueStore
    from promptpipe.ports.recovery import RecoveryStore
    from promptpipe.ports.schedules import ScheduleStore


class JobStore(Protocol):
    """Jobs and timers."""

    async def enqueue(self, new: NewJob) -> tuple[Job, bool]:
        """Add a job; return it, or the live one with the same dedupe key, and whether it was created."""
        ...

    async def enqueue_many(self, new: Sequence[NewJob]) -> Sequence[tuple[JobId, bool]]:
        """Add jobs, all or none; return for each what `enqueue` would: whose id, and whether it was created."""
        ...

    async def get(self, job_id: JobId) -> Job:
        """Return a job, live or ended; raise `NotFoundError`."""
        ...

    async def list(self, wanted: JobFilter, page: PageRequest) -> Page[Job]:
        """Return jobs, live and ended, the newest first."""
        ...

    async def cancel(self, job_id: JobId) -> Job:
        """End a queued job; ask the worker of a running one to stop. Ended jobs stay as they are."""
        ...

    async def retry(self, job_id: JobId) -> Job:
        """Make a queued job due now, and a failed or canceled one live again, due now, its attempts counted anew.

        Raise `NotFoundError`, `PreconditionError` for one that runs or is done, and `AlreadyExistsError` when a live
        job has its dedupe key.
        """
        ...

    async def reschedule(self, job_id: JobId, run_at: datetime) -> Job:
        """Give a queued job another time; its attempts and its key stay.

        Raise `NotFoundError`, and `PreconditionError` for one that runs or has ended.
        """
        ...

    async def claim(self, claim: Claim) -> Claimed[LeasedJob]:
        """Lease due jobs, counting an attempt each; those out of attempts end as failed instead."""
        ...

    async def finish(self, endings: Sequence[Ending]) -> frozenset[Lease]:
        """Record the ends of leased jobs; return the leases that are no longer current, of which nothing was kept."""
        ...


class MailboxStore(Protocol):
    """Participants' events, handled one at a time per participant."""

    async def claim(self, claim: Claim) -> Claimed[Delivery]:
        """Lease due mailboxes and hand out their heads, counting an attempt each.

        Events out of attempts go aside.
        """
        ...

    async def decide(self, decided: Sequence[Decided]) -> Sequence[Delivery | Exception | None]:
        """Apply decisions about different mailboxes and remove their events, each all or nothing.

        Return for each the next event of its mailbox, or None when that was released (empty, or it was asked to be);
        or why the decision was not applied: `LeaseLostError`, `VersionConflictError` when the state is not the one it
        was made from, or whatever else makes it impossible. Those that can be are applied, in one commit as a rule.
        """
        ...

    async def retry(
        self, lease: Lease, event_id: EventId, *, error: str, delay: float, blocked: float, limit: float
    ) -> bool:
        """Release a mailbox whose head could not be handled, until *delay* seconds from now.

        *blocked* seconds are added to those for which the event has held up its conversation; when they reach
        *limit*, or its attempts are used up, it goes aside and the next is due. Return whether it went aside;
        raise `LeaseLostError`.
        """
        ...

    async def give_back(self, lease: Lease) -> None:
        """Release a mailbox at once, the attempt at its head not counted; raise `LeaseLostError`."""
        ...


class OutboxStore(Protocol):
    """Outgoing messages, in order per recipient."""

    async def enqueue(self, new: NewMessage) -> tuple[OutboxMessage, bool]:
        """Add a message; return it, or the one of the last 30 days with its dedupe key, and whether it was created."""
        ...

    async def get(self, message_id: MessageId) -> OutboxMessage:
        """Return a message; raise `NotFoundError`."""
        ...

    async def list(self, wanted: MessageFilter, page: PageRequest) -> Page[OutboxMessage]:
        """Return messages, the newest first."""
        ...

    async def resolve(self, message_id: MessageId, resolution: Resolution) -> OutboxMessage:
        """Settle a message in doubt as an operator decided.

        One to be sent again keeps its place in its lane, or goes to the tail when it had left it. Raise
        `NotFoundError`, and `PreconditionError` for one that is not in doubt.
        """
        ...

    async def retry(self, message_id: MessageId) -> OutboxMessage:
        """Queue a failed, expired or canceled message at the tail of its lane, its attempts counted anew.

        What had expired expires no more. Raise `NotFoundError`, and `PreconditionError` for any other, when the
        provider has one of its attempts after all, and when its person has withdrawn.
        """
        ...

    async def cancel(self, message_id: MessageId) -> OutboxMessage:
        """Cancel a queued message, which then never leaves; a canceled one stays as it is.

        Raise `NotFoundError`, and `PreconditionError` for one that may have left, or is settled.
        """
        ...

    async def count_in_doubt(self) -> int:
        """Return of how many messages nobody knows whether they were sent."""
        ...

    async def claim(self, claim: Claim) -> Claimed[Lease]:
        """Lease due recipients' lanes. Their messages stay as they are."""
        ...

    async def mark_sending(
        self, leases: Sequence[Lease], *, seconds: float
    ) -> Sequence[SendOrder | LeaseLostError | None]:
        """Mark the head of each lane SENDING and record the attempt, keeping the lease for most of *seconds* from now.

        What must not go out (expired, withdrawn, doubt dropped or held) is settled on the way. A lane in which nothing
        is to be sent now is released, and its answer None.
        """
        ...

    async def record(self, records: Sequence[SendRecord]) -> Sequence[SendOrder | LeaseLostError | None]:
        """Record what became of orders, of a lane each, and mark the next message of each SENDING in the same commit.

        A lane is released, and its answer None, when nothing is to be sent now or it is not to be held. An acceptance
        is kept even when the lease was lost; the answer is a `LeaseLostError` then, as it is for any other verdict.
        """
        ...


class InboundStore(Protocol):
    """What webhooks bring."""

    async def ingest(self, batch: InboundBatch, enrollment: Enrollment | None) -> IngestReport:
        """Keep every update of *batch* once, in one commit: responses, receipts, events, people enrolled.

        Unknown people are enrolled as *enrollment* says, or with None only stored. An update that cannot be
        stored as what it is, is stored raw.
        """
        ...


class HistoryStore(Protocol):
    """What was said, and what became of it."""

    async def responses(self, participant_id: ParticipantId | None, page: PageRequest) -> Page[Response]:
        """Return what webhooks brought, the newest first; only that of one participant if given."""
        ...

    async def receipts(self, message_id: MessageId | None, page: PageRequest) -> Page[Receipt]:
        """Return delivery statuses, the newest first; only those of one message if given."""
        ...


class ParticipantStore(Protocol):
    """People and their conversations."""

    async def enroll(self, address: Address, profile: Profile, enrollment: Enrollment) -> Participant:
        """Make a participant with a state in the flow, its response handler, and an `Enrolled` event for it.

        Raise `AlreadyExistsError`, naming the participant who has the address.
        """
        ...

    async def find(self, address: Address) -> Participant:
        """Return the participant who has an address; raise `NotFoundError`."""
        ...

    async def list(self, status: ParticipantStatus | None, page: PageRequest) -> Page[Participant]:
        """Return participants, the newest first."""
        ...

    async def update(
        self, participant_id: ParticipantId, profile: Mapping[str, str | None], status: ParticipantStatus | None
    ) -> Participant:
        """Set the fields of `Profile` that *profile* names, and the status if given; raise `NotFoundError`."""
        ...

    async def erase(self, participant_id: ParticipantId) -> None:
        """Delete a participant, all that they said, and all that is there because of them, on its way included.

        Who was erased is kept, as an id: once more it does nothing. Raise `NotFoundError` for who never was there.
        """
        ...

    async def get(self, participant_id: ParticipantId) -> Participant:
        """Return a participant; raise `NotFoundError`."""
        ...

    async def flow_state(self, participant_id: ParticipantId, flow_type: str) -> FlowState:
        """Return a participant's state in a flow; raise `NotFoundError`."""
        ...

    async def flow_states(
        self, participant_id: ParticipantId | None, flow_type: str | None, page: PageRequest
    ) -> Page[FlowState]:
        """Return states, those of the newest participants first; only one participant's, or of one flow, if given."""
        ...


class LeaseStore(Protocol):
    """Leases of all kinds."""

    async def extend(self, leases: Sequence[Lease], seconds: float) -> Extension:
        """Move the ends of *leases* to *seconds* from now; say which are lost or are to be canceled."""
        ...

    async def give_back(self, worker: WorkerId) -> int:
        """Release all that *worker* holds, attempts not counted, strike it out, and return how much it was.

        Messages that are on the wire are in doubt.
        """
        ...


class Store(Protocol):
    """A database, by concern."""

    @property
    def jobs(self) -> JobStore: ...  # noqa: D102
    @property
    def queues(self) -> QueueStore: ...  # noqa: D102
    @property
    def maintenance(self) -> MaintenanceStore: ...  # noqa: D102
    @property
    def schedules(self) -> ScheduleStore: ...  # noqa: D102
    @property
    def mailboxes(self) -> MailboxStore: ...  # noqa: D102
    @property
    def aside(self) -> AsideStore: ...  # noqa: D102
    @property
    def orders(self) -> OrderStore: ...  # noqa: D102
    @property
    def outbox(self) -> OutboxStore: ...  # noqa: D102
    @property
    def inbound(self) -> InboundStore: ...  # noqa: D102
    @property
    def history(self) -> HistoryStore: ...  # noqa: D102
    @property
    def imports(self) -> ImportStore: ...  # noqa: D102
    @property
    def participants(self) -> ParticipantStore: ...  # noqa: D102
    @property
    def leases(self) -> LeaseStore: ...  # noqa: D102
    @property
    def instances(self) -> InstanceStore: ...  # noqa: D102
    @property
    def recovery(self) -> RecoveryStore: ...  # noqa: D102

    @property
    def background(self) -> Sequence[Callable[[], Awaitable[None]]]:
        """What is to run while the store is used, until canceled; without it work is found by polling alone."""
        ...

    async def probe(self) -> None:
        """Commit something small; raise `StoreUnavailableError` when that is not possible."""
        ...
