"""`PromptService`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from promptpipe.model.ids import ParticipantId, ScheduleId
from promptpipe.model.recurrence import Recurrence
from promptpipe.model.schedules import Misfire
from promptpipe.rpc import convert
from promptpipe.rpc.handlers.choices import exactly_one
from promptpipe.rpc.paging import next_page_token, page_request
from promptpipe.rpc.pb.promptpipe import v1
from promptpipe.services.schedules import PromptRequest

if TYPE_CHECKING:
    from promptpipe.model.prompts import Prompt
    from promptpipe.services.participants import Participants
    from promptpipe.services.prompts import Prompts
    from promptpipe.services.schedules import Schedules


class PromptHandlers(v1.PromptServiceBase):
    """See `prompts.proto`."""

    def __init__(self, prompts: Prompts, schedules: Schedules, participants: Participants) -> None:
        self._prompts = prompts
        self._schedules = schedules
        self._participants = participants

    async def send_prompt(self, message: v1.SendPromptRequest) -> v1.SendPromptResponse:
        """Send a prompt now."""
        prompt, recipient = _prompt(message.prompt), await self._recipient(message)
        sent, created = await self._prompts.send(recipient, prompt, message.dedupe_key)
        return v1.SendPromptResponse(message=convert.message(sent), created=created)

    async def schedule_prompt(self, message: v1.SchedulePromptRequest) -> v1.SchedulePromptResponse:
        """Make a schedule."""
        request = PromptRequest(
            prompt=_prompt(message.prompt),
            recurrence=_recurrence(message),
            timezone=message.timezone,
            misfire=convert.enum_value("misfire", message.misfire, Misfire) or Misfire.RUN,
            participant_id=await self._recipient(message),
        )
        return v1.SchedulePromptResponse(schedule=convert.schedule(await self._schedules.prompt(request)))

    async def list_schedules(self, message: v1.ListSchedulesRequest) -> v1.ListSchedulesResponse:
        """List schedules."""
        participant_id = None if message.participant_id is None else ParticipantId(message.participant_id)
        page = await self._schedules.list(participant_id, page_request(message))
        return v1.ListSchedulesResponse(
            schedules=[convert.schedule(item) for item in page.items], next_page_token=next_page_token(message, page)
        )

    async def get_schedule(self, message: v1.GetScheduleRequest) -> v1.GetScheduleResponse:
        """Return a schedule."""
        found = await self._schedules.get(ScheduleId(message.schedule_id))
        return v1.GetScheduleResponse(schedule=convert.schedule(found))

    async def pause_schedule(self, message: v1.PauseScheduleRequest) -> v1.PauseScheduleResponse:
        """Let its times pass."""
        paused = await self._schedules.pause(ScheduleId(message.schedule_id))
        return v1.PauseScheduleResponse(schedule=convert.schedule(paused))

    async def resume_schedule(self, message: v1.ResumeScheduleRequest) -> v1.ResumeScheduleResponse:
        """Let it go on."""
        resumed = await self._schedules.resume(ScheduleId(message.schedule_id))
        return v1.ResumeScheduleResponse(schedule=convert.schedule(resumed))

    async def delete_schedule(self, message: v1.DeleteScheduleRequest) -> v1.DeleteScheduleResponse:
        """End it."""
        await self._schedules.delete(ScheduleId(message.schedule_id))
        return v1.DeleteScheduleResponse()

    async def _recipient(self, message: v1.SendPromptRequest | v1.SchedulePromptRequest) -> ParticipantId:
        if exactly_one(message, "to", "participant_id") == "to":
            return (await self._participants.with_number("to", message.to or "")).id
        return ParticipantId(message.participant_id or "")


def _prompt(message: v1.Prompt | None) -> Prompt:
    message = message or v1.Prompt()
    exactly_one(message, "static", "genai", "branch", "conversation", "custom")
    return convert.as_prompt(message)


def _recurrence(message: v1.SchedulePromptRequest) -> Recurrence:
    if exactly_one(message, "fields", "cron") == "cron":
        return Recurrence(cron=message.cron)
    fields = message.fields or v1.ScheduleFields()
    return Recurrence(
        minute=fields.minute, hour=fields.hour, day=fields.day, month=fields.month, weekday=fields.weekday
    )
