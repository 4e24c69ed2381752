"""The health check of a container, against the product's own HTTP server."""

from __future__ import annotations

import pytest
import trio

from promptpipe import health
from promptpipe.net import listen
from promptpipe.services.readiness import Readiness
from promptpipe.web.app import make_app
from promptpipe.web.server import HttpServer


@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.1", "[::1]"])  # noqa: S104
@pytest.mark.parametrize("obstacle", [None, "the database is not available"])
async def test_health_is_readiness(
    host: str, obstacle: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Wherever the service listens; what is in the way is said."""
    readiness = Readiness()
    readiness.obstacle = obstacle
    with listen(host.strip("[]"), 0, "test") as listener:
        monkeypatch.setenv("PROMPTPIPE_HTTP_BIND", f"{host}:{listener.getsockname()[1]}")
        server = HttpServer("test", make_app({}, readiness), listener, grace=1.0)
        async with trio.open_nursery() as nursery:
            await nursery.start(server.run)
            code = await trio.to_thread.run_sync(health.main)
            server.stop()
    assert (code, capsys.readouterr().out) == ((0, "ready\n") if obstacle is None else (1, f"{obstacle}\n"))


def test_nobody_there_is_unhealthy(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """In one line, without a traceback."""
    with listen("127.0.0.1", 0, "test") as listener:
        port = listener.getsockname()[1]
    monkeypatch.setenv("PROMPTPIPE_HTTP_BIND", f"127.0.0.1:{port}")
    assert health.main() == 1
    assert capsys.readouterr().out.startswith("no answer: ")
