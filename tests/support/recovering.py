"""The application's recovery over a test's store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from promptpipe.app import Components, make_recovery
from promptpipe.config import load_settings
from promptpipe.flows.conversation import ConversationFlow, ConversationSettings
from promptpipe.metrics import PrometheusMetrics
from promptpipe.model.inbound import Enrollment
from promptpipe.recovery.manager import once
from promptpipe.runtime.wakeups import Wakeups

if TYPE_CHECKING:
    from promptpipe.recovery import Recoverable, RecoveryManager
    from promptpipe.recovery.manager import Persist
    from tests.support.database import Database

CONVERSATION = Enrollment("conversation", "conversation", "CONVERSATION_ACTIVE")


def manager(
    db: Database,
    *recoverables: Recoverable,
    metrics: PrometheusMetrics | None = None,
    persist: Persist = once,
    **how: Any,
) -> RecoveryManager:
    """Return the application's own recovery manager over a test's store; *how* is what its registry takes."""
    components = Components(
        metrics=metrics or PrometheusMetrics(()),
        settings=load_settings(),
        clock=db.clock,
        new_id=db.new_id,
        worker=db.worker,
        wakeups=Wakeups(),
        store=db.store,
        channels={},
        flows=[ConversationFlow(ConversationSettings())],
        recoverables=recoverables,
    )
    return make_recovery(components, persist, **how)
