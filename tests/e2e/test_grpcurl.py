"""The README's session, with a real grpcurl against a real service; and the admin commands beside it."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

from tests.support.commands import run_command
from tests.support.eventually import eventually
from tests.support.service import Home, open_service

if TYPE_CHECKING:
    from tests.support.service import Service

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[2]
GRACE = "+4917012345678"
TOKEN = "s3cret-token"


def session() -> list[list[str]]:
    """Return the commands of the README's chapter, as a shell would split them."""
    chapter = (REPOSITORY / "README.md").read_text().split("## A hand on it")[1].split("\n## ")[0]
    text = chapter.replace("\\\n", " ")
    return [shlex.split(line) for line in re.findall(r"^    (\.venv.*)$", text, re.MULTILINE)]


async def command(service: Service, *words: str) -> Any:
    """Return what an admin command answers as JSON; fail with what it says."""
    environment = {**os.environ, "PROMPTPIPE_CLIENT__SERVER": f"127.0.0.1:{service.grpc_port}"}
    ended = await run_command([*words, "--json"], environment, REPOSITORY)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


async def run(service: Service, arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a command of the session against *service*."""
    program, *rest = arguments
    here = [argument.replace("127.0.0.1:50051", f"127.0.0.1:{service.grpc_port}") for argument in rest]
    environment = {**os.environ, "PROMPTPIPE_CLIENT__SERVER": f"127.0.0.1:{service.grpc_port}"}
    if program.endswith("/promptpipe"):
        return await run_command(here, environment, REPOSITORY)
    command = [str(REPOSITORY / program), *here]
    return await trio.to_thread.run_sync(
        partial(subprocess.run, command, capture_output=True, text=True, check=False, env=environment, timeout=30)
    )


async def grpcurl(service: Service, method: str, request: dict[str, Any] | None = None, *options: str) -> Any:
    """Call a method and return the answer; fail with what grpcurl says."""
    data = ["-d", json.dumps(request or {})]
    arguments = [".venv/bin/grpcurl", "-plaintext", *options, *data, "127.0.0.1:50051", f"promptpipe.v1.{method}"]
    ended = await run(service, arguments)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


async def run_session(service: Service) -> dict[str, list[str]]:
    """Run the commands of the README, each with what the one before it has made, and return what each has said."""
    said: dict[str, list[str]] = {}
    made = {"ID": "", "PARTICIPANT": ""}
    for arguments in session():
        concrete = [re.sub('"(ID|PARTICIPANT)"', lambda name: f'"{made[name[1]]}"', argument) for argument in arguments]
        name = arguments[-1] if "grpcurl" in arguments[0] else " ".join(arguments[1:])
        ended = await run(service, concrete)
        assert ended.returncode == 0, (arguments, ended.stderr)
        said.setdefault(name, []).append(ended.stdout)
        for method, key, field in (
            ("EnrollParticipant", "PARTICIPANT", "participant"),
            ("EnqueueJob", "ID", "job"),
            ("SchedulePrompt", "ID", "schedule"),
        ):
            if name.endswith(method):
                made[key] = json.loads(ended.stdout)[field]["id"]
    return said


async def test_session_of_the_readme(tmp_path: Path) -> None:
    """Every command of it does what the text around it says, in its order."""
    async with open_service(Home.on_sqlite(tmp_path)) as (service, stand_in):
        service.start()
        await service.wait_ready()
        answers = await run_session(service)

        services = answers["list"][0].split()
        assert {"promptpipe.v1.JobService", "promptpipe.v1.FlowService", "grpc.health.v1.Health"} <= set(services)
        assert "rpc EnqueueJob (" in answers["promptpipe.v1.JobService"][0]
        enrolled = json.loads(answers["promptpipe.v1.ParticipantService/EnrollParticipant"][0])["participant"]
        assert (enrolled["phoneNumber"], enrolled["name"], enrolled["status"]) == (GRACE, "Grace", "ACTIVE")
        enqueued = json.loads(answers["promptpipe.v1.OutboxService/EnqueueMessage"][0])
        assert (enqueued["created"], enqueued["message"]["recipient"]) == (True, GRACE)
        prompted = json.loads(answers["promptpipe.v1.PromptService/SendPrompt"][0])
        assert (prompted["created"], prompted["message"]["text"]) == (True, "How are you?\n1. Well\n2. Badly")
        [place] = json.loads(answers["promptpipe.v1.FlowService/ListFlowStates"][0])["flowStates"]
        assert (place["participantId"], place["flowType"]) == (enrolled["id"], "conversation")
        moved = json.loads(answers["promptpipe.v1.FlowService/TransitionFlow"][0])["flowState"]
        assert moved["stateData"]["conversationState"] == "FEEDBACK"
        first, second = (json.loads(answer) for answer in answers["promptpipe.v1.JobService/EnqueueJob"])
        assert (first["created"], second.get("created", False)) == (True, False)
        assert (first["job"]["id"], first["job"]["runAt"]) == (second["job"]["id"], "2100-01-01T09:00:00Z")
        [listed] = json.loads(answers["promptpipe.v1.JobService/ListJobs"][0])["jobs"]
        assert listed["id"] == first["job"]["id"]
        canceled = json.loads(answers["promptpipe.v1.JobService/CancelJob"][0])["job"]
        assert (canceled["id"], canceled["status"]) == (first["job"]["id"], "CANCELED")
        scheduled = json.loads(answers["promptpipe.v1.PromptService/SchedulePrompt"][0])["schedule"]
        paused = json.loads(answers["promptpipe.v1.PromptService/PauseSchedule"][0])["schedule"]
        assert (scheduled["id"], "nextAt" in scheduled) == (paused["id"], True)
        assert (paused["paused"], "nextAt" in paused) == (True, False)
        assert "0 0 1 1 *" in answers["schedules list"][0]
        for method in ("GetLastReport", "RunRecovery"):
            report = json.loads(answers[f"promptpipe.v1.RecoveryService/{method}"][0])["report"]
            assert "conversation flow" in [component["name"] for component in report["components"]]
        assert GRACE in answers["participants list"][0]
        assert "Grace" in answers[f"participants get {GRACE}"][0]
        assert "Hello from the terminal" in [item["text"] for item in json.loads(answers["outbox list --json"][0])]

        phone = stand_in.world.phone(GRACE)
        await eventually(lambda: ("service", "Hello from the terminal") in phone.transcript())
        assert phone.transcript()[0][1].startswith("Hello Grace!")
        assert await service.stop() == 0


async def test_job_lists_are_paged_by_token(tmp_path: Path) -> None:
    """The pages of a list, fetched as an operator does it, hold every job once."""
    async with open_service(Home.on_sqlite(tmp_path)) as (service, _):
        service.start()
        await service.wait_ready()
        ids = []
        for number in range(5):
            request = {"kind": "noop", "run_at": "2100-01-01T09:00:00Z", "dedupe_key": f"k{number}"}
            ids.append((await grpcurl(service, "JobService/EnqueueJob", request))["job"]["id"])
        pages: list[list[str]] = []
        token = ""
        while not pages or token:
            page = await grpcurl(service, "JobService/ListJobs", {"page_size": 2, "page_token": token})
            pages.append([job["id"] for job in page["jobs"]])
            token = page.get("nextPageToken", "")
        assert pages == [ids[4:2:-1], ids[2:0:-1], ids[:1]]


async def test_wrong_token_is_refused(tmp_path: Path) -> None:
    """No token, a wrong one: UNAUTHENTICATED, for reflection too; the right one is let in, and is in no log."""
    async with open_service(Home.on_sqlite(tmp_path), ADMIN_TOKEN=TOKEN) as (service, _):
        service.start()
        await service.wait_ready()
        for header in ([], ["-H", "authorization: Bearer wrong"], ["-H", f"authorization: Basic {TOKEN}"]):
            for rest in (["list"], ["promptpipe.v1.JobService/ListJobs"], ["grpc.health.v1.Health/Check"]):
                ended = await run(service, [".venv/bin/grpcurl", "-plaintext", *header, "127.0.0.1:50051", *rest])
                assert ended.returncode != 0
                assert "Unauthenticated" in ended.stderr or "authorization" in ended.stderr, ended.stderr
        right = ["-H", f"authorization: Bearer {TOKEN}"]
        assert await grpcurl(service, "JobService/ListJobs", {}, *right) == {}
        refused = await run(service, [".venv/bin/promptpipe", "jobs", "list"])
        assert (refused.returncode, "UNAUTHENTICATED" in refused.stderr) == (1, True)
        assert await service.stop() == 0
        assert TOKEN not in service.log()


async def test_job_enqueued_over_grpc_runs(tmp_path: Path) -> None:
    """The runner is woken: nobody waits for a poll."""
    async with open_service(Home.on_sqlite(tmp_path)) as (service, _):
        service.start()
        await service.wait_ready()
        job_id = (await grpcurl(service, "JobService/EnqueueJob", {"kind": "noop"}))["job"]["id"]
        await eventually(lambda: service.rows("SELECT status FROM job_history WHERE id = ?", job_id) == [("done",)])
        job = (await grpcurl(service, "JobService/GetJob", {"job_id": job_id}))["job"]
        assert (job["status"], job["attempt"]) == ("DONE", 1)


async def test_admin_commands_change_jobs_and_queues(tmp_path: Path) -> None:
    """Each answers with what it has changed; times without a zone are UTC."""
    async with open_service(Home.on_sqlite(tmp_path)) as (service, _):
        service.start()
        await service.wait_ready()
        request = {"kind": "noop", "run_at": "2100-01-01T09:00:00Z"}
        job_id = (await grpcurl(service, "JobService/EnqueueJob", request))["job"]["id"]
        for time in ("2101-02-03T04:05:06", "2101-02-03T06:05:06+0200"):
            moved = await command(service, "jobs", "reschedule", job_id, time)
            assert moved["runAt"] == "2101-02-03T04:05:06Z"
        assert (await command(service, "jobs", "cancel", job_id))["status"] == "CANCELED"
        await command(service, "queues", "pause", "default")
        assert (await command(service, "jobs", "retry", job_id))["status"] == "QUEUED"
        [limited] = await command(service, "queues", "limit", "default", "3")
        assert (limited["name"], limited["paused"], limited["concurrency"], limited["ready"]) == (
            "default",
            True,
            3,
            "1",
        )
        assert [queue["name"] for queue in await command(service, "jobs", "stats")] == ["default"]
        shown = await run(service, [".venv/bin/promptpipe", "queues", "list"])
        heads, row = shown.stdout.splitlines()
        assert heads.split() == ["NAME", "PAUSED", "CONCURRENCY", "SCHEDULED", "READY", "RUNNING", "FAILED", "LAG"]
        assert row.split()[:-2] == ["default", "yes", "3", "0", "1", "0", "0"]
        [unlimited] = await command(service, "queues", "limit", "default")
        assert unlimited["concurrency"] is None
        await command(service, "queues", "resume", "default")
        await eventually(lambda: service.rows("SELECT status FROM job_history") == [("done",)])


async def test_admin_commands_change_messages(tmp_path: Path) -> None:
    """One that waits is taken back, and sent again; a doubt that is none is refused."""
    async with open_service(Home.on_sqlite(tmp_path)) as (service, stand_in):
        service.start()
        await service.wait_ready()
        await grpcurl(service, "ParticipantService/EnrollParticipant", {"phone_number": GRACE})
        phone = stand_in.world.phone(GRACE)
        await eventually(lambda: len(phone.transcript()) > 0)
        service.home.change("INSERT INTO channels VALUES ('whatsapp', 32503680000000000, 'a test')")
        request = {"to": GRACE, "text": "once"}
        message_id = (await grpcurl(service, "OutboxService/EnqueueMessage", request))["message"]["id"]
        assert (await command(service, "outbox", "cancel", message_id))["status"] == "CANCELED"
        service.home.change("DELETE FROM channels")
        assert (await command(service, "outbox", "retry", message_id))["status"] == "QUEUED"
        await eventually(lambda: ("service", "once") in phone.transcript())
        settled = await run(service, [".venv/bin/promptpipe", "outbox", "resolve", message_id, "drop"])
        assert (settled.returncode, "FAILED_PRECONDITION" in settled.stderr) == (1, True)


async def test_admin_commands_about_people_and_recovery(tmp_path: Path) -> None:
    """Somebody is enrolled, recovered and erased; erasing asks first."""
    async with open_service(Home.on_sqlite(tmp_path)) as (service, stand_in):
        service.start()
        await service.wait_ready()
        grace = await command(service, "participants", "enroll", GRACE, "--name", "Grace")
        assert (grace["phoneNumber"], grace["name"]) == (GRACE, "Grace")
        await eventually(lambda: stand_in.world.phone(GRACE).transcript() != [])
        service.home.change("DELETE FROM registered_hooks")
        report = await command(service, "recovery", "run")
        assert sum(int(component["restored"]) for component in report["components"]) == 1
        assert await command(service, "recovery", "last") == report
        assert (await command(service, "recovery", "list"))[0] == report
        promptpipe = ".venv/bin/promptpipe"
        shown = await run(service, [promptpipe, "recovery", "last"])
        assert shown.stdout.split("\n")[0].split() == [
            "NAME",
            "CHECKED",
            "RESTORED",
            "FAILED",
            "DURATION",
            "REPAIRS",
            "FAILURES",
        ]
        assert (await run(service, [promptpipe, "participants", "delete", grace["id"]])).returncode == 1
        assert (await run(service, [promptpipe, "participants", "delete", grace["id"], "--yes"])).returncode == 0
        assert await command(service, "participants", "list") == []


async def test_admin_commands_about_events(tmp_path: Path) -> None:
    """One that no version here knows is tried again, set aside again, and dropped."""
    async with open_service(Home.on_sqlite(tmp_path)) as (service, _):
        service.start()
        await service.wait_ready()
        await grpcurl(service, "ParticipantService/EnrollParticipant", {"phone_number": GRACE})
        service.home.change(
            "INSERT INTO mailbox_events"
            " (id, participant_id, kind, payload, attempt, max_attempts, last_error, created_at)"
            " SELECT 'e1', id, 'from_the_future', '{}', 20, 20, 'boom', created_at FROM conversation_participants"
        )
        [event] = await command(service, "events", "list")
        assert (event["kind"], event["attempts"], event["lastError"]) == ("from_the_future", 20, "boom")
        promptpipe = ".venv/bin/promptpipe"
        assert (await run(service, [promptpipe, "events", "retry", "e1"])).returncode == 0
        known = "SELECT last_error FROM mailbox_events WHERE seq IS NULL AND attempt = 0"
        await eventually(lambda: service.rows(known) != [])
        assert "is unknown to this version" in str(service.rows(known))
        assert (await run(service, [promptpipe, "events", "drop", "e1"])).returncode == 0
        assert await command(service, "events", "list") == []
        again = await run(service, [promptpipe, "events", "retry", "e1"])
        assert (again.returncode, again.stderr) == (1, "promptpipe: NOT_FOUND: there is no event e1\n")


async def test_admin_commands_about_conversations(tmp_path: Path) -> None:
    """Each order is answered with where the conversation is then; what cannot be done is told with the reason."""
    async with open_service(Home.on_sqlite(tmp_path)) as (service, stand_in):
        service.start()
        await service.wait_ready()
        person = await command(service, "participants", "enroll", GRACE)
        assert [flow["name"] for flow in await command(service, "flows", "types")] == ["conversation"]
        moved = await command(service, "flows", "move", person["id"], "FEEDBACK", "--reason", "a test")
        assert moved["stateData"]["conversationState"] == "FEEDBACK"
        assert await command(service, "flows", "get", person["id"]) == moved
        assert "conversationState" not in (await command(service, "flows", "reset", person["id"]))["stateData"]
        promptpipe = ".venv/bin/promptpipe"
        refused = await run(service, [promptpipe, "flows", "signal", person["id"], "visited", "--payload", "{}"])
        reason = "FAILED_PRECONDITION: the conversation knows no event 'visited'"
        assert (refused.returncode, refused.stderr) == (1, f"promptpipe: {reason}\n")
        again = await run(service, [promptpipe, "flows", "start", person["id"]])
        assert (again.returncode, again.stderr.startswith("promptpipe: ALREADY_EXISTS: ")) == (1, True)
        nonsense = await run(service, [promptpipe, "flows", "signal", person["id"], "visited", "--payload", "[]"])
        assert (nonsense.returncode, nonsense.stderr) == (2, "promptpipe: --payload: must be a JSON object\n")
        sent = await command(
            service, "prompts", "send", person["id"], "Shall we?", "--option", "Yes=Good.", "--option", "No=Fine."
        )
        assert sent["text"] == "Shall we?\n1. Yes\n2. No"
        phone = stand_in.world.phone(GRACE)
        await eventually(lambda: ("service", "Shall we?\n[Yes] [No]") in phone.transcript())


async def test_admin_commands_fail_in_one_line(tmp_path: Path) -> None:
    """Exit code 1 for what the service says, 2 for what the operator typed."""
    async with open_service(Home.on_sqlite(tmp_path)) as (service, _):
        command = ".venv/bin/promptpipe"
        nobody = await run(service, [command, "jobs", "list"])
        assert (nobody.returncode, nobody.stderr.count("\n")) == (1, 1)
        assert f"cannot connect to 127.0.0.1:{service.grpc_port}" in nobody.stderr
        service.start()
        await service.wait_ready()
        unknown = await run(service, [command, "jobs", "get", "x"])
        assert (unknown.returncode, unknown.stderr) == (1, "promptpipe: NOT_FOUND: there is no job x\n")
        for typed in ("participants get +1", "jobs list --status dead", "outbox list -x"):
            assert (await run(service, [command, *typed.split()])).returncode == 2
