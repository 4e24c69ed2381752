"""What happens, told as it happens to whoever counts it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from promptpipe.model.leases import Work
    from promptpipe.model.messages import Verdict
    from promptpipe.model.recovery import ComponentReport

OTHER = "other"
"""The name of all kinds and queues that this instance does not serve, so that no label has a value for each."""


class Metrics:
    """Forgets everything; what counts overrides this. Calls never fail, and cost next to nothing. Times are seconds."""

    def claimed(self, work: Work, items: int) -> None:
        """Count a claim, and what it handed out."""

    def lease_lost(self, work: Work) -> None:
        """Count a lease that was lost while work went on under it."""

    def job_started(self, kind: str, queue: str, lag: float | None) -> None:
        """Count a run of a job, begun *lag* after it was due; None for one that was put off in between."""

    def job_ended(self, kind: str, outcome: str, seconds: float) -> None:
        """Count the end of a run, and what became of the job."""

    def event_ended(self, result: Literal["handled", "retried", "aside"], lag: float) -> None:
        """Count what became of a participant's event, *lag* after it arrived."""

    def sent(self, verdict: Verdict, seconds: float) -> None:
        """Count a send, and how long its answer took."""

    def generated(self, result: Literal["answered", "failed"], seconds: float, read: int, written: int) -> None:
        """Count an answer of a language model, how long it took, and the tokens that the model has read and written."""

    def webhook(self, result: Literal["kept", "refused", "unavailable", "failed"], seconds: float) -> None:
        """Count a webhook, and how long it took until it was committed or turned down."""

    def transaction(self, kind: Literal["read", "write"]) -> None:
        """Count a transaction that was asked for."""

    def transaction_retried(self) -> None:
        """Count one that was begun anew because another was in its way."""

    def store_unavailable(self) -> None:
        """Count one that the database could not do."""

    def recovered(self, report: ComponentReport) -> None:
        """Count what recovering a component has found."""


SILENT = Metrics()
"""For parts that nobody watches."""
