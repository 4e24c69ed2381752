"""The conversation flow as the settings have it, and the language model that answers in it."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, nullcontext
from datetime import timedelta
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from promptpipe.config import PREFIX
from promptpipe.flows.conversation import ConversationSettings, Texts
from promptpipe.model.errors import SettingsError

if TYPE_CHECKING:
    from promptpipe.config import Settings
    from promptpipe.ports.generator import TextGenerator
    from promptpipe.ports.metrics import Metrics

MAX_PROMPT_FILE = 64 * 1024
"""Bytes: what a model is told to be travels with every request."""


def conversation_settings(settings: Settings) -> ConversationSettings:
    """Return what concerns the conversation; raise `SettingsError` when a file of a prompt cannot be used."""
    return ConversationSettings(
        reminder_delay=timedelta(seconds=settings.daily_prompt_reminder_delay),
        auto_feedback_delay=timedelta(seconds=settings.auto_feedback_delay),
        feedback_timeout=timedelta(seconds=settings.feedback_initial_timeout),
        feedback_followup_delay=timedelta(seconds=settings.feedback_followup_delay),
        prep_time=timedelta(minutes=settings.scheduler_prep_time_minutes),
        max_reply_age=timedelta(seconds=settings.max_reply_age),
        history_limit=settings.chat_history_limit,
        texts=Texts(
            intake=_text("intake", "INTAKE_PROMPT_FILE", settings.intake_prompt_file),
            feedback=_text("feedback", "FEEDBACK_PROMPT_FILE", settings.feedback_prompt_file),
            habit_prompt=_text("habit_prompt", "HABIT_PROMPT_FILE", settings.habit_prompt_file),
        ),
    )


def _text(name: str, setting: str, path: str | None) -> str:
    """Return a text of ours, or the one in the file that is to replace it."""
    if path is None:
        return files("promptpipe.flows.conversation").joinpath("texts", f"{name}.md").read_text(encoding="utf-8")
    try:
        content = Path(path).read_bytes()
        text = content.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{PREFIX}{setting}: the file cannot be used: {error}") from error
    if not text.strip() or len(content) > MAX_PROMPT_FILE or "\0" in text:
        raise SettingsError(f"{PREFIX}{setting}: the file must have text, of at most {MAX_PROMPT_FILE} bytes")
    return text


def open_generator(settings: Settings, metrics: Metrics) -> AbstractAsyncContextManager[TextGenerator | None]:
    """Return what gives the language model of the settings, or None without a key."""
    genai = settings.genai
    if genai.api_key is None:
        return nullcontext()
    from promptpipe.genai import GenAiConfig, OpenAiGenerator  # noqa: PLC0415  it takes a second to import

    config = GenAiConfig(
        api_key=genai.api_key.get_secret_value(),
        base_url=genai.base_url,
        model=genai.model,
        temperature=genai.temperature,
        max_tokens=genai.max_tokens,
        timeout=genai.timeout,
        retries=genai.retries,
        concurrency=genai.concurrency,
    )
    return OpenAiGenerator.opened(config, metrics)
