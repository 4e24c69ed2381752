"""What every runner of one process works with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from promptpipe.ports.metrics import SILENT

if TYPE_CHECKING:
    from collections.abc import Callable

    from promptpipe.model.ids import WorkerId
    from promptpipe.ports.clock import Clock
    from promptpipe.ports.metrics import Metrics
    from promptpipe.runtime.lease_keeper import LeaseKeeper
    from promptpipe.runtime.persistence import Persistence
    from promptpipe.runtime.wakeups import Wakeups


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """This process, as one that leases work. *random* gives numbers in [0, 1)."""

    id: WorkerId
    clock: Clock
    keeper: LeaseKeeper
    wakeups: Wakeups
    persistence: Persistence
    random: Callable[[], float]
    metrics: Metrics = SILENT
