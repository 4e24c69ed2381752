"""Taking in what a provider's webhook brings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import structlog
import trio

from promptpipe.model.errors import StoreUnavailableError, WebhookError
from promptpipe.ports.metrics import SILENT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from promptpipe.model.inbound import Enrollment
    from promptpipe.ports.channel import Channel
    from promptpipe.ports.metrics import Metrics
    from promptpipe.ports.store import InboundStore

Result = Literal["kept", "refused", "unavailable", "failed"]

log = structlog.get_logger(__name__)


class Inbound:
    """One channel's webhook. Whoever writes without being enrolled is enrolled as *enrollment* says, or only stored."""

    def __init__(
        self,
        channel: Channel,
        store: InboundStore,
        enrollment: Enrollment | None,
        on_store_failure: Callable[[], None],
        metrics: Metrics = SILENT,
    ) -> None:
        self._channel = channel
        self._store = store
        self._enrollment = enrollment
        self._on_store_failure = on_store_failure
        self._metrics = metrics

    def handshake(self, query: Mapping[str, str]) -> str:
        """Return the answer to a verification request; raise `VerificationError`."""
        return self._channel.handshake(query)

    async def receive(self, headers: Mapping[str, str], body: bytes) -> None:
        """Keep what one webhook request brings; when this returns, it is committed.

        Raise `SignatureError` or `MalformedBodyError` when the request is not acceptable, and
        `StoreUnavailableError` when it could not be kept: the provider is to send it again.
        """
        began = trio.current_time()
        result: Result = "failed"
        try:
            await self._receive(headers, body)
            result = "kept"
        except WebhookError:
            result = "refused"
            raise
        except StoreUnavailableError:
            self._on_store_failure()
            result = "unavailable"
            raise
        finally:
            self._metrics.webhook(result, trio.current_time() - began)

    async def _receive(self, headers: Mapping[str, str], body: bytes) -> None:
        batch = self._channel.receive(headers, body)
        if batch.foreign:
            log.warning("updates for a number that is not ours", channel=self._channel.name, count=batch.foreign)
        if not batch.updates:
            return
        report = await self._store.ingest(batch, self._enrollment)
        if report.unmatched:
            log.info("statuses about no message of ours", channel=self._channel.name, count=report.unmatched)
        if report.unparsed:
            log.warning("updates kept unparsed", channel=self._channel.name, count=report.unparsed)
