"""Delivering webhooks as Meta does: signed, repeated until answered 200, in no promised order."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import TYPE_CHECKING

import httpx2
import structlog
import trio

from promptpipe.channels.whatsapp import signature
from promptpipe.model.errors import described
from promptpipe.model.retry import Backoff

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from promptpipe.simulator.faults import Faults

RETRY = Backoff(base=0.2, cap=2.0)
"""Meta repeats less and less often for seven days; here the pace is that of someone who watches."""
OVERTAKEN_SECONDS = 0.5

log = structlog.get_logger(__name__)


class Webhooks:
    """Posts webhooks to the service."""

    def __init__(self, client: httpx2.AsyncClient, url: str, app_secret: str, random: Callable[[], float]) -> None:
        self._client = client
        self._url = url
        self._app_secret = app_secret
        self._random = random

    async def deliver(self, payload: Mapping[str, object], faults: Faults) -> None:
        """Deliver *payload* in whatever way the faults have it, and return when it was answered 200."""
        if faults.disorder.happens(self._random):
            await trio.sleep(OVERTAKEN_SECONDS * self._random())
        # Meta signs its escaped form.
        body = json.dumps(payload, ensure_ascii=True).encode()
        await self._post(body)
        if faults.duplicates.happens(self._random):
            await self._post(body)

    async def _post(self, body: bytes) -> None:
        headers = {
            "Content-Type": "application/json",
            signature.HEADER: signature.sign(self._app_secret, body),
        }
        attempt = 0
        while True:
            attempt += 1
            try:
                response = await self._client.post(self._url, content=body, headers=headers)
                if response.status_code == HTTPStatus.OK:
                    return
                reason = f"HTTP {response.status_code}"
            except httpx2.RequestError as error:
                reason = described(error)
            if attempt == 1:
                log.warning("webhook not taken, will be repeated", url=self._url, reason=reason)
            await trio.sleep(RETRY.delay(attempt, self._random))
