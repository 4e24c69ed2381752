"""`ports.store.Store` over a database of either kind."""

from __future__ import annotations

from typing import TYPE_CHECKING

from promptpipe.storage.transactions.aside import AsideTransactions
from promptpipe.storage.transactions.handing import HandingDatabase
from promptpipe.storage.transactions.history import HistoryTransactions
from promptpipe.storage.transactions.importing import ImportTransactions
from promptpipe.storage.transactions.inbound import InboundTransactions
from promptpipe.storage.transactions.job_queues import JobTransactions
from promptpipe.storage.transactions.leases import InstanceTransactions, LeaseTransactions
from promptpipe.storage.transactions.mailboxes import MailboxTransactions
from promptpipe.storage.transactions.maintenance import MaintenanceTransactions
from promptpipe.storage.transactions.orders import OrderTransactions
from promptpipe.storage.transactions.outbox import OutboxTransactions
from promptpipe.storage.transactions.participants import ParticipantTransactions
from promptpipe.storage.transactions.queues import QueueTransactions
from promptpipe.storage.transactions.recovery import RecoveryTransactions
from promptpipe.storage.transactions.schedules import ScheduleTransactions

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from promptpipe.model.ids import WorkerId
    from promptpipe.model.messages import InDoubtRules
    from promptpipe.ports.runners import Runners
    from promptpipe.storage.transactions.transaction import Database

    Task = Callable[[], Awaitable[None]]


class SqlStore:
    """`ports.store.Store`. *worker* is the name under which this process leases work, *runners* are those who do it."""

    def __init__(
        self,
        database: Database,
        worker: WorkerId,
        rules: InDoubtRules,
        runners: Runners,
        background: Sequence[Task] = (),
    ) -> None:
        self._database = database
        self.background = background
        handing = HandingDatabase(database, runners, rules)
        self.jobs = JobTransactions(database, handing)
        self.queues = QueueTransactions(database)
        self.schedules = ScheduleTransactions(database)
        self.mailboxes = MailboxTransactions(database, handing)
        self.aside = AsideTransactions(database)
        self.orders = OrderTransactions(handing)
        self.outbox = OutboxTransactions(database, handing, rules)
        self.inbound = InboundTransactions(handing)
        self.history = HistoryTransactions(database)
        self.imports = ImportTransactions(database)
        self.participants = ParticipantTransactions(handing)
        self.leases = LeaseTransactions(database, rules)
        self.instances = InstanceTransactions(database)
        self.maintenance = MaintenanceTransactions(database)
        self.recovery = RecoveryTransactions(database, worker, rules)

    async def probe(self) -> None:
        """See `Store.probe`."""
        await self._database.write(lambda tx: tx.run("probe"))
