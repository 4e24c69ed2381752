"""The webhook over HTTP: what is kept, what is refused, and with which status."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import httpx2
import pytest
import trio

from promptpipe.channels.whatsapp import WhatsAppChannel, WhatsAppConfig, signature
from promptpipe.net import listen
from promptpipe.services.inbound import Inbound
from promptpipe.services.readiness import Readiness
from promptpipe.web.app import MAX_BODY, make_app
from promptpipe.web.server import HttpServer
from tests.support.database import SqliteTestDatabase, running
from tests.support.people import ENROLLMENT, NUMBER_ID, text_webhook
from tests.support.unreliable import Trouble

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.database import Database

SECRET = "app-secret"
SAMPLES = Path(__file__).parents[1] / "data" / "whatsapp"
ALL_SAMPLES = sorted(
    path for folder in ("meta_docs", "meta_docs_bsuid", "meta_openapi") for path in (SAMPLES / folder).glob("*.json")
)


class Site:
    """The application behind its server, and a client to it."""

    def __init__(self, client: httpx2.AsyncClient, database: Database, readiness: Readiness, trouble: Trouble) -> None:
        self.client = client
        self.database = database
        self.readiness = readiness
        self.trouble = trouble

    async def post(self, body: bytes, header: str | None = "") -> int:
        """Post *body*, signed unless another *header* is given, and return the status."""
        value = signature.sign(SECRET, body) if header == "" else header
        headers = {} if value is None else {signature.HEADER: value}
        return (await self.client.post("/webhooks/whatsapp", content=body, headers=headers)).status_code

    def kept(self) -> list[tuple[object, ...]]:
        return self.database.rows("SELECT type, text FROM responses ORDER BY id")


@asynccontextmanager
async def open_site(folder: Path) -> AsyncIterator[Site]:
    config = WhatsAppConfig(
        api_url="http://127.0.0.1:1",
        phone_number_id=NUMBER_ID,
        access_token="a",
        app_secret=SECRET,
        verify_token="verify-me",
    )
    trouble = Trouble()
    readiness = Readiness()
    async with running(SqliteTestDatabase(folder / "test.db")) as database, WhatsAppChannel.opened(config) as channel:
        store = trouble.wrap(database.store)
        inbound = Inbound(channel, store.inbound, ENROLLMENT, readiness.store_failed)
        listener = listen("127.0.0.1", 0, "test")
        port = listener.getsockname()[1]
        server = HttpServer("test", make_app({"whatsapp": inbound}, readiness), listener, grace=1.0)
        async with trio.open_nursery() as nursery:
            await nursery.start(server.run)
            async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
                yield Site(client, database, readiness, trouble)
            server.stop()
        listener.close()


async def test_signed_message_is_kept_and_acknowledged(tmp_path: Path) -> None:
    """200, and it is in the database."""
    async with open_site(tmp_path) as site:
        assert await site.post(text_webhook()) == 200
        assert site.kept() == [("text", "hello")]


@pytest.mark.parametrize("header", [None, "sha256=" + "0" * 64, "nonsense"])
async def test_unsigned_message_is_refused_and_not_kept(tmp_path: Path, header: str | None) -> None:
    """Nothing of it is stored, not even raw."""
    async with open_site(tmp_path) as site:
        assert await site.post(text_webhook(), header) == 401
        assert site.kept() == []


@pytest.mark.parametrize("body", [b"", b"nonsense", b"[1]", b'"text"', b"{"])
async def test_signed_nonsense_is_refused(tmp_path: Path, body: bytes) -> None:
    """What is not a JSON object is 400."""
    async with open_site(tmp_path) as site:
        assert await site.post(body) == 400
        assert site.kept() == []


async def test_too_large_a_body_is_refused(tmp_path: Path) -> None:
    """With a length that says so, and without one."""

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(MAX_BODY // 65536 + 2):
            yield bytes(65536)

    async with open_site(tmp_path) as site:
        assert await site.post(bytes(MAX_BODY + 1)) == 413
        answer = await site.client.post("/webhooks/whatsapp", content=chunks())
        assert answer.status_code == 413
        assert await site.post(text_webhook()) == 200


async def test_large_webhook_is_kept(tmp_path: Path) -> None:
    """A thousand updates in three megabytes are what Meta may send."""
    messages = [json.loads(text_webhook("x" * 2800, f"wamid.{n}"))["entry"][0] for n in range(1000)]
    body = json.dumps({"entry": messages}).encode()
    assert 2_900_000 < len(body) < 3_200_000
    async with open_site(tmp_path) as site:
        assert await site.post(body) == 200
        assert len(site.kept()) == 1000


async def test_unknown_shapes_are_acknowledged_and_kept_raw(tmp_path: Path) -> None:
    """Refused, Meta would repeat them for a week."""
    async with open_site(tmp_path) as site:
        for body in (b"{}", b'{"object":"page","entry":[{"id":"1"}]}', b'{"entry":"x"}'):
            assert await site.post(body) == 200
        assert site.kept() == [("unparsed", "")] * 3
        raw = {row[0] for row in site.database.rows("SELECT raw FROM responses")}
        assert b'{"entry":"x"}' in raw


async def test_bad_update_among_good_ones_costs_them_nothing(tmp_path: Path) -> None:
    """NUL, lone surrogates, and an object that is none: all the good ones are kept."""
    body = json.loads(text_webhook("before"))
    messages = body["entry"][0]["changes"][0]["value"]["messages"]
    good = messages[0]
    messages += [{"id": 7}, {**good, "id": "wamid.2", "text": {"body": "a\x00\ud800b"}}, {**good, "id": "wamid.3"}]
    async with open_site(tmp_path) as site:
        assert await site.post(json.dumps(body).encode()) == 200
        texts = [text for kind, text in site.kept() if kind == "text"]
        assert texts == ["before", "a\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}b", "before"]


async def test_webhook_is_503_while_the_store_cannot_commit(tmp_path: Path) -> None:
    """The provider is told to come again; when it does, the message is kept once. Readiness says why."""
    async with open_site(tmp_path) as site:
        site.readiness.obstacle = None
        site.trouble.left = {"inbound.ingest": 2}
        answers = [await site.post(text_webhook()) for _ in range(3)]
        assert answers == [503, 503, 200]
        assert site.kept() == [("text", "hello")]
        health = await site.client.get("/readyz")
        assert (health.status_code, health.text) == (503, "the database is not available")


async def test_defect_is_500_without_a_word_about_it(tmp_path: Path) -> None:
    """Not acknowledged, so not lost; and nothing of the inside gets out."""
    async with open_site(tmp_path) as site:
        site.trouble.left = {"inbound.ingest": 1}
        site.trouble.error = RuntimeError("the password is hunter2")
        answer = await site.client.post(
            "/webhooks/whatsapp",
            content=text_webhook(),
            headers={signature.HEADER: signature.sign(SECRET, text_webhook())},
        )
        assert answer.status_code == 500
        assert "hunter2" not in answer.text
        assert await site.post(text_webhook()) == 200


async def test_same_webhook_fifty_times_from_ten_connections_is_one_event(tmp_path: Path) -> None:
    """All are acknowledged; one has an effect."""
    async with open_site(tmp_path) as site:
        statuses: list[int] = []

        async def post_five() -> None:
            nonlocal statuses
            async with httpx2.AsyncClient(base_url=site.client.base_url) as client:
                other = Site(client, site.database, site.readiness, site.trouble)
                statuses += [await other.post(text_webhook()) for _ in range(5)]

        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(post_five)
        assert statuses == [200] * 50
        assert site.database.rows("SELECT count(*) FROM mailbox_events") == [(1,)]


@pytest.mark.parametrize("path", ALL_SAMPLES, ids=lambda path: f"{path.parent.name}/{path.stem}")
async def test_every_sample_of_metas_is_accepted_and_kept(tmp_path: Path, path: Path) -> None:
    """Messages and everything else as responses, statuses as receipts."""
    async with open_site(tmp_path) as site:
        assert await site.post(path.read_bytes()) == 200
        responses, receipts = (site.database.rows(f"SELECT raw FROM {table}") for table in ("responses", "receipts"))
        assert [len(responses), len(receipts)] == ([0, 1] if "status_" in path.name else [1, 0])


async def test_handshake(tmp_path: Path) -> None:
    """The raw challenge to who knows the token, 403 to others."""
    async with open_site(tmp_path) as site:
        query = {"hub.mode": "subscribe", "hub.verify_token": "verify-me", "hub.challenge": "1158201444"}
        answer = await site.client.get("/webhooks/whatsapp", params=query)
        assert (answer.status_code, answer.text) == (200, "1158201444")
        assert answer.headers["Content-Type"].startswith("text/plain")
        query["hub.verify_token"] = "guess"
        assert (await site.client.get("/webhooks/whatsapp", params=query)).status_code == 403
        assert (await site.client.get("/webhooks/whatsapp")).status_code == 403


async def test_unknown_paths_and_methods(tmp_path: Path) -> None:
    """404 and 405, nothing else."""
    async with open_site(tmp_path) as site:
        assert (await site.client.post("/webhooks/pigeon", content=b"{}")).status_code == 404
        assert (await site.client.get("/")).status_code == 404
        assert (await site.client.delete("/webhooks/whatsapp")).status_code == 405


async def test_health(tmp_path: Path) -> None:
    """Alive from the start, ready when told."""
    async with open_site(tmp_path) as site:
        assert (await site.client.get("/livez")).status_code == 200
        answer = await site.client.get("/readyz")
        assert (answer.status_code, answer.text) == (503, "starting")
        site.readiness.obstacle = None
        assert (await site.client.get("/readyz")).status_code == 200
        site.readiness.drain()
        answer = await site.client.get("/readyz")
        assert (answer.status_code, answer.text) == (503, "draining")
