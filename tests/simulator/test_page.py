"""How the simulator's page is served, to whom, and what it needs to know of the simulator."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest
import trio

from promptpipe.simulator.browser import FILES
from tests.simulator.simulated import ADA, SEND, TOKEN, open_simulated

JSON = {"Content-Type": "application/json"}


async def test_every_file_comes_with_its_type_and_strict_headers() -> None:
    """No script or style but the simulator's own files, nothing guessed, nothing kept without asking."""
    async with open_simulated() as simulated:
        for path, type_ in [("/", FILES["index.html"]), *((f"/page/{name}", FILES[name]) for name in FILES)]:
            answer = await simulated.client.get(path)
            assert answer.status_code == 200
            assert answer.headers["Content-Type"] == type_
            policy = answer.headers["Content-Security-Policy"].split("; ")
            assert policy == ["default-src 'self'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"]
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["Referrer-Policy"] == "no-referrer"
            assert answer.headers["Cache-Control"] == "no-cache"


@pytest.mark.parametrize(
    "path",
    ["/page/", "/page/app.py", "/page/../app.py", "/page/%2e%2e/app.py", "/page/..%2fapp.py", "/page//etc/passwd"],
)
async def test_nothing_else_is_served(path: str) -> None:
    """Whatever the path climbs to."""
    async with open_simulated() as simulated:
        assert (await simulated.client.get(path)).status_code == 404


def test_page_is_whole_and_its_own() -> None:
    """Every file is on the list, each that a file asks for is there, and none asks anybody else."""
    folder = files("promptpipe.simulator") / "page"
    contents = {file.name: file.read_text() for file in folder.iterdir()}
    assert contents.keys() == FILES.keys()
    asked = re.findall(r'(?:/page/|from "\./)([\w.]+)"', "\n".join(contents.values()))
    assert set(asked) == FILES.keys() - {"index.html"}
    links = re.findall(r"\w+://[^\s\"']+", "\n".join(contents.values()))
    assert set(links) == {"http://www.w3.org/2000/svg"}, "the name of SVG is not fetched; anything else would be"


# ---------------------------------------------------------------- the gate


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:8090", "localhost:8090", "LOCALHOST", "[::1]:8090"])
async def test_loopback_by_any_name_is_let_in(host: str) -> None:
    """Whatever the port, which a tunnel may change."""
    async with open_simulated() as simulated:
        answer = await simulated.client.get("/api/people", headers={"Host": host})
        assert answer.status_code == 200


@pytest.mark.parametrize(
    "host",
    ["", "evil.example", "evil.example:8090", "127.0.0.1.evil.example", "localhost.evil.example", "10.0.0.1", "["],
)
@pytest.mark.parametrize("path", ["/", "/api/people", "/livez", "/nowhere"])
async def test_other_names_are_refused(path: str, host: str) -> None:
    """A page that has its own name point at this machine reads nothing (DNS rebinding)."""
    async with open_simulated() as simulated:
        answer = await simulated.client.get(path, headers={"Host": host})
        assert answer.status_code == 403


async def test_own_page_may_change_things() -> None:
    """Its origin is the address it was fetched from."""
    async with open_simulated() as simulated:
        origin = str(simulated.client.base_url).rstrip("/")
        answer = await simulated.client.post("/api/people", json={"number": ADA}, headers={"Origin": origin})
        assert answer.status_code == 201


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1", "http://localhost:1"])
async def test_pages_of_others_change_nothing(origin: str) -> None:
    """Nobody is added, nothing is said, no knob turned, nothing sent (cross-site request forgery)."""
    async with open_simulated() as simulated:
        client, headers = simulated.client, {"Origin": origin}
        answers = [
            await client.post("/api/people", json={"number": ADA}, headers=headers),
            await client.post(f"/api/people/{ADA}/messages", json={"text": "hi"}, headers=headers),
            await client.put("/api/faults", json={"latency": 60}, headers=headers),
            await client.post(SEND, json={}, headers=TOKEN | headers),
        ]
        assert [answer.status_code for answer in answers] == [403] * 4
        assert simulated.stand_in.world.phones == {}
        assert simulated.stand_in.faults.latency == 0.0


@pytest.mark.parametrize("type_", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
async def test_api_takes_json_alone(type_: str | None) -> None:
    """A page can send anything else without asking first."""
    async with open_simulated() as simulated:
        headers = {} if type_ is None else {"Content-Type": type_}
        body = f'{{"number": "{ADA}"}}'.encode()
        answer = await simulated.client.post("/api/people", content=body, headers=headers)
        assert answer.status_code == 415
        assert simulated.stand_in.world.phones == {}
        answer = await simulated.client.post("/api/people", content=body, headers=JSON)
        assert answer.status_code == 201


# ---------------------------------------------------------------- what the page goes by


async def test_people_are_listed_with_how_much_they_received() -> None:
    """Whoever added them; what they said themselves does not count."""
    async with open_simulated() as simulated:
        await simulated.client.post("/api/people", json={"number": ADA, "name": "Ada"})
        await simulated.client.post("/api/people", json={"number": "+447911123456"})
        await simulated.send()
        await simulated.client.post(f"/api/people/{ADA}/messages", json={"text": "hi"})
        assert (await simulated.client.get("/api/people")).json() == [
            {"number": ADA, "name": "Ada", "received": 1},
            {"number": "+447911123456", "name": "+447911123456", "received": 0},
        ]


async def test_reader_of_a_phone_that_is_gone_learns_so_at_once() -> None:
    """Who has seen more than there is has seen another simulator, which has another name."""
    async with open_simulated() as first, open_simulated() as second:
        before = (await first.client.get(f"/api/people/{ADA}/messages")).json()
        with trio.fail_after(5):
            after = await second.client.get(f"/api/people/{ADA}/messages", params={"since": 7, "wait": 20})
        assert after.json()["changes"] == 0
        assert after.json()["world"] != before["world"]


@pytest.mark.parametrize("query", ["since=x", "since=inf", "wait=nan"])
async def test_what_is_no_number_is_refused(query: str) -> None:
    """With a reason."""
    async with open_simulated() as simulated:
        answer = await simulated.client.get(f"/api/people/{ADA}/messages?{query}")
        assert answer.status_code == 400
        assert "is not a number" in answer.json()["error"]
