"""TLS of the gRPC plane by settings, from the service's start to an operator's command."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
import trustme

from tests.support.service import SERVE, Home, Service, open_service

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow


async def list_jobs(service: Service, **settings: str) -> subprocess.CompletedProcess[str]:
    """Ask the service for its jobs, as an operator with these settings does."""
    command = [sys.executable, "-m", "promptpipe", "jobs", "list", "--json"]
    environment = service.environment(**settings)
    return await trio.to_thread.run_sync(
        partial(subprocess.run, command, env=environment, capture_output=True, text=True, check=False, timeout=30)
    )


async def test_operators_and_service_know_each_other_by_certificate(tmp_path: Path) -> None:
    """Who has none is not let in; neither is who trusts another authority."""
    ours, theirs = trustme.CA(), trustme.CA()
    server, client = ours.issue_cert("127.0.0.1"), ours.issue_cert("operator@example.org")
    files = {name: tmp_path / f"{name}.pem" for name in ("ca", "other", "cert", "key", "client")}
    ours.cert_pem.write_to_path(files["ca"])
    theirs.cert_pem.write_to_path(files["other"])
    server.cert_chain_pems[0].write_to_path(files["cert"])
    server.private_key_pem.write_to_path(files["key"])
    client.private_key_and_cert_chain_pem.write_to_path(files["client"])
    tls = {"CERT_FILE": files["cert"], "KEY_FILE": files["key"], "CLIENT_CA_FILE": files["ca"]}
    settings = {f"GRPC_TLS__{name}": str(file) for name, file in tls.items()}
    known = {"CLIENT__CA_FILE": str(files["ca"]), "CLIENT__CERT_FILE": str(files["client"])}
    async with open_service(Home.on_sqlite(tmp_path), **settings) as (service, _):
        service.start()
        await service.wait_ready()
        welcome = await list_jobs(service, **known)
        assert (welcome.returncode, welcome.stdout) == (0, "[]\n"), welcome.stderr
        for stranger in (
            {},
            {"CLIENT__CA_FILE": known["CLIENT__CA_FILE"]},
            known | {"CLIENT__CA_FILE": files["other"]},
        ):
            refused = await list_jobs(service, **{name: str(value) for name, value in stranger.items()})
            assert (refused.returncode, "UNAVAILABLE" in refused.stderr) == (1, True), refused.stderr
        assert await service.stop() == 0


async def test_files_that_are_no_certificates_stop_the_start(tmp_path: Path) -> None:
    """The setting is named; exit code 2."""
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("nothing of the kind")
    settings = {"GRPC_TLS__CERT_FILE": str(nonsense), "GRPC_TLS__KEY_FILE": str(nonsense)}
    async with open_service(Home.on_sqlite(tmp_path), **settings) as (service, _):
        service.start(SERVE)
        assert await service.wait_ended() == 2
        assert "PROMPTPIPE_GRPC_TLS__" in service.log()
