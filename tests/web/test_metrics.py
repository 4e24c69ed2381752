"""`/metrics` of the service as the product puts it together: who may see it, and what it is."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import httpx2
import pytest
import trio

from promptpipe.app.components import open_components
from promptpipe.app.parts import make_http_server
from promptpipe.config import load_settings
from promptpipe.net import listen
from promptpipe.services.readiness import Readiness
from tests.support.scrape import scraped

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

TOKEN = "s3cret-token"


@asynccontextmanager
async def open_site(folder: Path) -> AsyncIterator[httpx2.AsyncClient]:
    settings = load_settings(database_url=f"sqlite:///{folder}/test.db")
    async with open_components(settings) as components, trio.open_nursery() as nursery:
        with listen("127.0.0.1", 0, "test") as listener:
            server = make_http_server(components, Readiness(), listener)
            await nursery.start(server.run)
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            async with httpx2.AsyncClient(base_url=url, timeout=20) as client:
                yield client
            server.stop()


async def test_page_is_open_on_this_machine(tmp_path: Path) -> None:
    """In Prometheus's text format, queues and doubts included."""
    async with open_site(tmp_path) as client:
        await client.get("/livez")
        answer = await client.get("/metrics")
        assert (answer.status_code, answer.headers["Content-Type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
        values = scraped(answer.content)
        assert (values["ready"], values["messages_in_doubt"], values["events_aside"]) == (0, 0, 0)
        assert values["store_transactions_total{read}"] > 0
        assert (await client.post("/metrics")).status_code == 405


@pytest.mark.parametrize("bind", ["127.0.0.1:0", "0.0.0.0:0"])
async def test_token_is_needed_once_it_is_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bind: str) -> None:
    """As for every call; webhooks and health checks have none."""
    monkeypatch.setenv("PROMPTPIPE_ADMIN_TOKEN", TOKEN)
    beyond_loopback(monkeypatch, bind)
    async with open_site(tmp_path) as client:
        for header in (None, "Bearer wrong", f"Basic {TOKEN}", f"Digest {TOKEN}", TOKEN, "Bearer é"):
            headers = {} if header is None else {"Authorization": header.encode()}
            answer = await client.get("/metrics", headers=headers)  # type: ignore[arg-type]
            assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
            assert "promptpipe_" not in answer.text
        assert (await client.get("/metrics", headers={"Authorization": f"bearer {TOKEN}"})).status_code == 200
        assert (await client.get("/livez")).status_code == 200


async def test_without_a_token_nobody_beyond_this_machine_sees_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Webhooks are for everybody: there is no page beside them."""
    beyond_loopback(monkeypatch, "0.0.0.0:0")
    async with open_site(tmp_path) as client:
        assert (await client.get("/metrics")).status_code == 404
        assert (await client.get("/livez")).status_code == 200


def beyond_loopback(monkeypatch: pytest.MonkeyPatch, bind: str) -> None:
    """Set what a server that others reach has to have."""
    monkeypatch.setenv("PROMPTPIPE_HTTP_BIND", bind)
    for name in ("ACCESS_TOKEN", "APP_SECRET", "VERIFY_TOKEN"):
        monkeypatch.setenv(f"PROMPTPIPE_WHATSAPP__{name}", "ours")
