"""What a part does when the store cannot commit: wait, and try again."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import structlog
import trio

from promptpipe.model.errors import StoreUnavailableError
from promptpipe.model.retry import STORE_BACKOFF

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

log = structlog.get_logger(__name__)


class Persistence:
    """Repeats transactions until they commit, and knows whether the last one did."""

    def __init__(self, random: Callable[[], float], on_failure: Callable[[], None]) -> None:
        self._random = random
        self._on_failure = on_failure

    async def until_committed(self, transaction: Callable[[], Awaitable[T]]) -> T:
        """Return the result of *transaction*, called again while it raises `StoreUnavailableError`."""
        attempt = 0
        while True:
            try:
                return await transaction()
            except StoreUnavailableError as error:
                attempt += 1
                self.failed(error)
                await trio.sleep(STORE_BACKOFF.delay(attempt, self._random))

    def failed(self, error: StoreUnavailableError) -> None:
        """Note that the store could not commit."""
        log.warning("store unavailable", error=str(error))
        self._on_failure()
