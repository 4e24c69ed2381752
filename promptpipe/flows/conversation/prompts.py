"""Prompts: what is noted when one is sent, answered or not, and the polls that go with them."""

from __future__ import annotations

from dataclasses import replace
from enum import Enum, auto
from typing import TYPE_CHECKING

from promptpipe.flows.conversation import script
from promptpipe.flows.conversation.context import local_time
from promptpipe.flows.conversation.state import (
    FEEDBACK_STATE,
    LAST_HABIT_PROMPT,
    LAST_POLL_DATE,
    LAST_PROMPT_SENT_AT,
    PENDING,
    POLL,
    REMINDER_SENT_AT,
    RESPONDED_AT,
    FeedbackState,
    PendingPrompt,
)
from promptpipe.flows.conversation.timers import AUTO_FEEDBACK, FEEDBACK_FOLLOWUP, FEEDBACK_TIMEOUT, REMINDER
from promptpipe.flows.conversation.turn import FLOW_TYPE
from promptpipe.model.decisions import Say
from promptpipe.model.messages import Choice, Choices

if TYPE_CHECKING:
    from promptpipe.flows.conversation.turn import Turn
    from promptpipe.model.events import MessageFailed, MessageSent, Replied, TimerFired
    from promptpipe.model.ids import MessageId
    from promptpipe.model.messages import Content
    from promptpipe.model.prompts import PromptOrder

DONE, NOT_NOW = "done", "not_now"
"""What the choices of a prompt's poll are called, after their message."""
INTENSITY = "intensity"
"""What the choices of the poll about intensity begin with; the level follows."""


class Answered(Enum):
    """Which poll a reply answers."""

    DONE = auto()
    INTENSITY = auto()


def habit_prompt(text: str, message_id: MessageId) -> Choices:
    """Return a habit prompt with its poll."""
    return Choices(
        text, (Choice(f"{message_id}:{DONE}", script.DONE), Choice(f"{message_id}:{NOT_NOW}", script.NOT_NOW))
    )


def intensity_poll() -> Choices:
    """Return the poll about how hard it should be."""
    levels = (Choice(f"{INTENSITY}:{level}", label) for level, label in script.INTENSITIES.items())
    return Choices(script.INTENSITY_QUESTION, tuple(levels))


def send_own(turn: Turn, text: str) -> None:
    """Send a habit prompt in the course of a conversation."""
    message_id = turn.new_message_id()
    content = habit_prompt(text, message_id)
    turn.change(**{LAST_HABIT_PROMPT: text})
    turn.say.append(Say(id=message_id, content=content, awaited_by=FLOW_TYPE))
    _noted(turn, content, message_id)


def send_ordered(turn: Turn, order: PromptOrder, content: Content) -> None:
    """Send somebody else's prompt."""
    turn.say.append(order.say(content, awaited_by=FLOW_TYPE))
    _noted(turn, content, order.message_id)


def send_habit_prompt(turn: Turn, order: PromptOrder, text: str) -> None:
    """Send a habit prompt that is due, and once a day ask how hard it should be."""
    content = habit_prompt(text, order.message_id)
    turn.change(**{LAST_HABIT_PROMPT: text})
    send_ordered(turn, order, content)
    today = local_time(turn).date()
    if turn.state.last_poll_date != today:
        poll = replace(order.say(intensity_poll()), id=turn.new_message_id(), dedupe_key=None)
        turn.say.append(poll)
        turn.change(**{LAST_POLL_DATE: today.isoformat()})


def _noted(turn: Turn, content: Content, message_id: MessageId) -> None:
    turn.note(content)
    turn.stop(REMINDER)
    turn.change(
        **{
            PENDING: PendingPrompt(message_id, to=turn.person).to_data(),
            POLL: {"messageId": message_id, "done": False} if _has_poll(content, message_id) else None,
        }
    )


def _has_poll(content: Content, message_id: MessageId) -> bool:
    return isinstance(content, Choices) and content.choices[0].id == f"{message_id}:{DONE}"


def sent(turn: Turn, event: MessageSent) -> None:
    """Start the clocks of a prompt that has reached the provider, if it still waits for an answer."""
    turn.change(**{LAST_PROMPT_SENT_AT: event.sent_at.isoformat()})
    turn.state = turn.state.with_profile(total_prompts=turn.state.count("total_prompts") + 1)
    pending = turn.state.pending
    if pending is None or pending.message_id != event.message_id:
        return
    settings = turn.settings
    due_at = event.sent_at + settings.reminder_delay if settings.reminder_delay else None
    turn.change(**{PENDING: replace(pending, sent_at=event.sent_at, reminder_due_at=due_at).to_data()})
    if due_at is not None:
        turn.start(REMINDER, due_at, {"sentAt": event.sent_at.isoformat()})
    if settings.auto_feedback_delay:
        turn.start(AUTO_FEEDBACK, event.sent_at + settings.auto_feedback_delay)
    turn.stop(FEEDBACK_FOLLOWUP)
    if settings.feedback_timeout:
        turn.change(**{FEEDBACK_STATE: FeedbackState.WAITING.value})
        turn.start(FEEDBACK_TIMEOUT, event.sent_at + settings.feedback_timeout)


def failed(turn: Turn, event: MessageFailed) -> None:
    """Stop waiting for an answer to a prompt that will not arrive."""
    pending = turn.state.pending
    if pending is not None and pending.message_id == event.message_id:
        turn.stop(REMINDER, AUTO_FEEDBACK, FEEDBACK_TIMEOUT)
        turn.change(**{PENDING: None})


def heard(turn: Turn, reply: Replied) -> Answered | None:
    """Note a reply: in the history, as an answer to a poll (return which), and to the prompt that waits for one."""
    turn.state = turn.state.heard(reply.text, reply.said_at)
    answered = _answer_poll(turn, reply)
    if turn.state.pending is not None:
        turn.stop(REMINDER)
        turn.change(**{PENDING: None, RESPONDED_AT: turn.now.isoformat()})
    return answered


def _answer_poll(turn: Turn, reply: Replied) -> Answered | None:
    level = next((choice for choice in intensity_poll().choices if choice.id == reply.choice_id), None)
    if level is not None:
        turn.state = turn.state.with_profile(intensity=level.id.partition(":")[2])
        return Answered.INTENSITY
    if not _says_done(turn, reply):
        return None
    turn.state = turn.state.with_profile(success_count=turn.state.count("success_count") + 1)
    if reply.choice_id is None or reply.choice_id == f"{turn.state.poll.get('messageId')}:{DONE}":
        turn.change(**{POLL: {**turn.state.poll, "done": True}})
    return Answered.DONE


def _says_done(turn: Turn, reply: Replied) -> bool:
    """Whether a reply says of a prompt that it was followed, and says so for the first time.

    It does by the button of any prompt's poll, or in a word of the latest one that has a poll.
    """
    poll = turn.state.poll
    if reply.choice_id is None:
        return bool(poll) and not poll.get("done") and script.means_done(reply.text)
    message_id, _, choice = reply.choice_id.rpartition(":")
    return choice == DONE and (message_id != poll.get("messageId") or not poll.get("done"))


def remind(turn: Turn, event: TimerFired) -> None:
    """Remind, if the prompt for which this timer was started still waits for an answer."""
    turn.fired(REMINDER, event.job_id)
    pending = turn.state.pending
    if pending is None or pending.sent_at is None or event.payload.get("sentAt") != pending.sent_at.isoformat():
        return
    turn.change(**{PENDING: None, REMINDER_SENT_AT: turn.now.isoformat()})
    turn.answer(script.reminder(turn.state.profile))
