"""Prompts: what a schedule says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from promptpipe.model.text import as_text

if TYPE_CHECKING:
    from collections.abc import Mapping

STATIC = "static"
SCHEDULED_PROMPT = "scheduled_prompt"
"""The kind of the jobs of schedules that prompt."""


@dataclass(frozen=True, slots=True)
class StaticPrompt:
    """A fixed text."""

    body: str

    @classmethod
    def in_payload(cls, payload: Mapping[str, object]) -> StaticPrompt | None:
        """Return the prompt in a schedule's payload; None when there is no such one."""
        body = as_text(payload, "body")
        return None if payload.get("prompt") != STATIC or body is None else cls(body)

    def as_payload(self) -> dict[str, object]:
        """Return the payload of a schedule that says this."""
        return {"prompt": STATIC, "body": self.body}
