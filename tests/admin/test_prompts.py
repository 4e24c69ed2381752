"""PromptService."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from grpclib.const import Status

from promptpipe.client import v1
from promptpipe.model.ids import ScheduleId
from promptpipe.model.recurrence import Recurrence
from promptpipe.model.schedules import NewSchedule
from tests.support.admin import ADA, BOB, Admin, open_admin, refused, resource, violation

if TYPE_CHECKING:
    from tests.support.service import Home

STRETCH = v1.Prompt(static=v1.PromptStatic(body="Time to stretch"))
AT_NINE = v1.ScheduleFields(hour=9, minute=0)


async def schedule(admin: Admin, **values: Any) -> v1.Schedule:
    wanted: dict[str, Any] = {"to": ADA, "prompt": STRETCH, "fields": AT_NINE, **values}
    answer = await admin.prompts.schedule_prompt(v1.SchedulePromptRequest(**wanted))
    assert answer.schedule is not None
    return answer.schedule


async def test_prompt_is_scheduled_as_asked_for(home: Home) -> None:
    """And comes back as it went, by id."""
    async with open_admin(home) as admin:
        ada = await admin.enroll()
        made = await schedule(admin, timezone="Europe/Berlin", misfire=v1.ScheduleMisfire.SKIP)
        assert (made.participant_id, made.prompt, made.fields, made.cron) == (ada.id, STRETCH, AT_NINE, None)
        assert (made.timezone, made.misfire, made.paused, made.version) == (
            "Europe/Berlin",
            v1.ScheduleMisfire.SKIP,
            False,
            1,
        )
        assert made.created_at is not None
        assert made.next_at is not None
        assert made.last_at is None
        recurrence = Recurrence(hour=9, minute=0, zone="Europe/Berlin")
        assert made.next_at == recurrence.next_after(made.created_at)
        assert (await admin.prompts.get_schedule(v1.GetScheduleRequest(schedule_id=made.id))).schedule == made


async def test_rule_by_cron_line(home: Home) -> None:
    """By the participant's id, too; without wishes, in UTC, and misfires run."""
    async with open_admin(home) as admin:
        ada = await admin.enroll()
        made = await schedule(admin, to=None, participant_id=ada.id, fields=None, cron="*/5 9-17 * * MON-FRI")
        assert (made.cron, made.fields, made.timezone) == ("*/5 9-17 * * MON-FRI", None, "UTC")
        assert made.misfire is v1.ScheduleMisfire.RUN


async def test_zone_is_the_participants_unless_another_is_given(home: Home) -> None:
    """Theirs, then UTC."""
    async with open_admin(home) as admin:
        await admin.enroll(ADA, timezone="America/Toronto")
        await admin.enroll(BOB)
        zones = [(await schedule(admin, **values)).timezone for values in ({}, {"timezone": "Asia/Tokyo"}, {"to": BOB})]
        assert zones == ["America/Toronto", "Asia/Tokyo", "UTC"]


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("to", {"to": "12"}),
        ("to", {"to": None}),
        ("to", {"participant_id": "x"}),
        ("static", {"prompt": None}),
        ("static", {"prompt": v1.Prompt()}),
        ("static", {"prompt": v1.Prompt(static=v1.PromptStatic(body="x"), genai=v1.PromptGenAi())}),
        ("prompt.genai.user_prompt", {"prompt": v1.Prompt(genai=v1.PromptGenAi(user_prompt=""))}),
        ("prompt.branch.body", {"prompt": v1.Prompt(branch=v1.PromptBranch())}),
        ("prompt.branch.options", {"prompt": v1.Prompt(branch=v1.PromptBranch(body="?"))}),
        ("prompt.custom.generator", {"prompt": v1.Prompt(custom=v1.PromptCustom(generator="x"))}),
        ("prompt.static.body", {"prompt": v1.Prompt(static=v1.PromptStatic(body=" "))}),
        ("prompt.static.body", {"prompt": v1.Prompt(static=v1.PromptStatic(body="x" * 4097))}),
        ("fields", {"fields": None}),
        ("fields", {"cron": "* * * * *"}),
        ("fields.hour", {"fields": v1.ScheduleFields(hour=24)}),
        ("fields", {"fields": v1.ScheduleFields(day=30, month=2)}),
        ("cron", {"fields": None, "cron": "often"}),
        ("cron", {"fields": None, "cron": ""}),
        ("cron", {"fields": None, "cron": "0 0 30 2 *"}),
        ("timezone", {"timezone": "Mars/Olympus"}),
        ("timezone", {"timezone": "../../etc/passwd"}),
        ("misfire", {"misfire": v1.ScheduleMisfire(9)}),
    ],
)
async def test_bad_value_is_refused_by_name(home: Home, field: str, values: dict[str, Any]) -> None:
    """INVALID_ARGUMENT says which field; nothing was scheduled."""
    async with open_admin(home) as admin:
        await admin.enroll()
        assert violation(await refused(schedule(admin, **values), Status.INVALID_ARGUMENT))[0] == field
        assert (await admin.prompts.list_schedules(v1.ListSchedulesRequest())).schedules == []


async def test_unknown_schedules_and_people_are_not_found(home: Home) -> None:
    """By number, by id, by every method."""
    async with open_admin(home) as admin:
        await admin.enroll()
        for values in ({"to": BOB}, {"to": None, "participant_id": "nobody"}):
            assert resource(await refused(schedule(admin, **values), Status.NOT_FOUND))[0] == "participant"
        made = await schedule(admin)
        deleted = v1.DeleteScheduleRequest(schedule_id=made.id)
        await admin.prompts.delete_schedule(deleted)
        for call in (
            admin.prompts.get_schedule(v1.GetScheduleRequest(schedule_id=made.id)),
            admin.prompts.pause_schedule(v1.PauseScheduleRequest(schedule_id=made.id)),
            admin.prompts.resume_schedule(v1.ResumeScheduleRequest(schedule_id=made.id)),
            admin.prompts.delete_schedule(deleted),
        ):
            assert resource(await refused(call, Status.NOT_FOUND)) == ("schedule", made.id)


async def test_paused_schedule_has_no_next_time_until_it_is_resumed(home: Home) -> None:
    """The answers show it."""
    async with open_admin(home) as admin:
        await admin.enroll()
        made = await schedule(admin)
        paused = (await admin.prompts.pause_schedule(v1.PauseScheduleRequest(schedule_id=made.id))).schedule
        assert paused is not None
        assert (paused.paused, paused.next_at, paused.version) == (True, None, 1)
        resumed = (await admin.prompts.resume_schedule(v1.ResumeScheduleRequest(schedule_id=made.id))).schedule
        assert resumed == made


async def test_list_goes_on_where_the_page_before_ended(home: Home) -> None:
    """The newest first; of all, or of one participant's."""
    async with open_admin(home) as admin:
        ada, _ = await admin.enroll(ADA), await admin.enroll(BOB)
        ids = [(await schedule(admin, to=number)).id for number in (ADA, BOB, ADA)][::-1]
        first = await admin.prompts.list_schedules(v1.ListSchedulesRequest(page_size=2))
        request = v1.ListSchedulesRequest(page_size=2, page_token=first.next_page_token)
        second = await admin.prompts.list_schedules(request)
        assert [[item.id for item in page.schedules] for page in (first, second)] == [ids[:2], ids[2:]]
        assert second.next_page_token == ""
        of_ada = await admin.prompts.list_schedules(v1.ListSchedulesRequest(participant_id=ada.id))
        assert [item.id for item in of_ada.schedules] == [ids[0], ids[2]]


async def test_schedule_of_another_kind_is_shown_without_a_prompt(home: Home) -> None:
    """Whatever makes such ones."""
    async with open_admin(home) as admin:
        new = NewSchedule(id=ScheduleId("x"), kind="noop", recurrence=Recurrence(minute=5))
        await admin.components.store.schedules.create(new)
        shown = (await admin.prompts.get_schedule(v1.GetScheduleRequest(schedule_id="x"))).schedule
        assert shown is not None
        assert (shown.prompt, shown.participant_id, shown.fields) == (None, "", v1.ScheduleFields(minute=5))
