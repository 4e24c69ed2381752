"""The compose file: it says what it needs, keeps what it is given, and shows itself to nobody but this machine."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from promptpipe.app.run import GIVE_BACK_SECONDS
from promptpipe.config import PREFIX, flat_names, load_settings
from tests.deploy.compose import REPOSITORY, REQUIRED, compose, resolved
from tests.deploy.dockerfile import describe

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

OF_OTHERS = {"CLIENT__", "SIMULATOR_", "GRPC_TLS__"}
"""Settings of other programs, and of TLS, which nobody needs on one machine."""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Give the file with nothing in `.env` but what is required."""
    return resolved(tmp_path_factory.mktemp("project"))


@pytest.fixture
def services(file: dict[str, Any]) -> dict[str, Any]:
    """Give its services."""
    answer: dict[str, Any] = file["services"]
    return answer


def test_what_is_required_is_enough(tmp_path: Path) -> None:
    """And is said by nobody: checking the file prints nothing."""
    checked = compose(tmp_path, "config", "--quiet", **REQUIRED)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


@pytest.mark.parametrize("name", REQUIRED)
def test_without_what_is_required_nothing_starts(tmp_path: Path, name: str) -> None:
    """Empty is as good as missing. The message names the variable, says where to get it, and shows no other."""
    refused = compose(tmp_path, "config", "--quiet", **REQUIRED | {name: ""})
    assert refused.returncode == 1
    assert f"${{{name}:?is needed in .env: " in refused.stderr
    assert re.search(r": is needed in \.env: \w.+$", refused.stderr.strip())
    assert [value for value in REQUIRED.values() if len(value) > 1 and value in refused.stderr] == []


def test_page_says_what_is_required() -> None:
    """So does the example of a `.env` file."""
    page = (REPOSITORY / "docs" / "deploying.md").read_text()
    assert set(re.findall(r"^    (\w+)=", page, re.MULTILINE)) == set(REQUIRED)
    example = (REPOSITORY / ".env.example").read_text()
    assert set(re.findall(r"^#?(\w+)=", example, re.MULTILINE)) >= set(REQUIRED)


def test_service_accepts_what_it_is_given(services: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the image and those of the file, by the product's own rules."""
    given = {**image_environment(), **environment(services)}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    settings = load_settings()
    assert (settings.http_bind, settings.grpc_bind) == ("0.0.0.0:8080", "0.0.0.0:50051")
    grace = seconds(services["promptpipe"]["stop_grace_period"])
    assert grace > settings.shutdown_grace + GIVE_BACK_SECONDS
    assert settings.channel.value == "whatsapp"


def test_every_setting_is_passed_on_or_decided(tmp_path: Path) -> None:
    """What stands in `.env` reaches the service, but for what only the container can know."""
    names = {PREFIX + name for name in flat_names() if not name.startswith(tuple(OF_OTHERS))}
    decided = {PREFIX + name for name in ("CHANNEL", "DATABASE_URL", "GRPC_BIND", "HTTP_BIND", "SHUTDOWN_GRACE")}
    chosen = dict.fromkeys(names - set(REQUIRED), "chosen")
    given = environment(resolved(tmp_path, **chosen)["services"])
    passed = {name for name, value in (chosen | REQUIRED).items() if given.get(name) == value}
    assert passed == names - decided


def test_no_password_is_written_down(services: dict[str, Any]) -> None:
    """The database's is the one required, on both sides, and in no URL, which would have to escape it."""
    postgres, promptpipe = services["postgres"], services["promptpipe"]
    password = REQUIRED["POSTGRES_PASSWORD"]
    assert (postgres["environment"]["POSTGRES_PASSWORD"], promptpipe["environment"]["PGPASSWORD"]) == (password,) * 2
    user, name = (postgres["environment"][f"POSTGRES_{what}"] for what in ("USER", "DB"))
    assert promptpipe["environment"][f"{PREFIX}DATABASE_URL"] == f"postgresql://{user}@postgres/{name}"
    text = (REPOSITORY / "docker-compose.yml").read_text()
    assert re.findall(r"(?:PASSWORD|TOKEN|SECRET): (?!\"\$\{\w+:\?)", text) == []


def test_data_is_where_down_does_not_reach(file: dict[str, Any]) -> None:
    """In volumes with names, mounted where the images declare theirs: nothing is left to a volume without a name."""
    mounts = {name: [mount.split(":") for mount in service["volumes"]] for name, service in file["services"].items()}
    [[postgres, postgres_folder, _]], [[promptpipe, promptpipe_folder, _]] = mounts["postgres"], mounts["promptpipe"]
    assert file["volumes"] == {postgres: {}, promptpipe: {}}
    assert (promptpipe_folder,) == describe((REPOSITORY / "Dockerfile").read_text()).volumes
    [major] = re.findall(r"^postgres:(\d+)", file["services"]["postgres"]["image"])
    assert postgres_folder == ("/var/lib/postgresql" if int(major) >= 18 else "/var/lib/postgresql/data")


def test_start_waits_for_the_database(services: dict[str, Any]) -> None:
    """For one that takes connections by TCP, as the one that the image only initializes with does not."""
    assert services["promptpipe"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    check = services["postgres"]["healthcheck"]["test"]
    assert check[:2] == ["CMD", "pg_isready"]
    assert "--host=127.0.0.1" in check
    assert "healthcheck" not in services["promptpipe"]  # the image's holds
    assert {service["restart"] for service in services.values()} == {"unless-stopped"}


def test_only_this_machine_reaches_it(services: dict[str, Any]) -> None:
    """And of it only webhooks, health and gRPC; the database's port is nobody's."""
    published = [str(port).removesuffix("/tcp").split(":") for port in services["promptpipe"]["ports"]]
    listening = describe((REPOSITORY / "Dockerfile").read_text()).ports
    assert published == [["127.0.0.1", port, port] for port in listening]
    assert "ports" not in services["postgres"]


def test_containers_may_do_little(services: dict[str, Any]) -> None:
    """No capabilities but those by which PostgreSQL's image becomes `postgres`; the service writes nowhere else."""
    for service in services.values():
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
    promptpipe = services["promptpipe"]
    assert (promptpipe["read_only"], promptpipe["tmpfs"], promptpipe["init"]) == (True, ["/tmp"], True)  # noqa: S108
    assert "cap_add" not in promptpipe


def environment(services: dict[str, Any]) -> dict[str, str]:
    """Return what the service gets from the file."""
    given: dict[str, str | None] = services["promptpipe"]["environment"]
    return {name: value for name, value in given.items() if value is not None}


def image_environment() -> dict[str, str]:
    """Return what the service gets from the image."""
    declared = describe((REPOSITORY / "Dockerfile").read_text()).environment
    return {name: value for name, value in declared.items() if name.startswith(PREFIX)}


def seconds(duration: str) -> int:
    """Return a duration of docker-compose in seconds."""
    [(minutes, rest)] = re.findall(r"^(?:(\d+)m)?(?:(\d+)s)?$", duration)
    return int(minutes or 0) * 60 + int(rest or 0)
