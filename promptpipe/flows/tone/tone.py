"""Tags of tone, and how their scores change with what a language model observes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from typing import TYPE_CHECKING

from promptpipe.model.errors import CorruptStateError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

STYLE = (
    "concise",
    "detailed",
    "formal",
    "casual",
    "no_emojis",
    "emojis_ok",
    "bullet_points",
    "one_question_at_a_time",
)
STANCE = ("warm_supportive", "neutral_professional", "direct_coach", "gentle_coach")
INTERACTION = ("confirm_before_acting", "default_actionable", "high_autonomy")
TAGS = (*STYLE, *STANCE, *INTERACTION)

EXCLUDING = (("concise", "detailed"), ("formal", "casual"), ("direct_coach", "gentle_coach"))
"""Pairs of which the lower gives way."""
BEATEN = ("no_emojis", "emojis_ok")
"""A pair of which the second does, whatever the scores."""

ACTIVE_FROM = 0.7
INACTIVE_FROM = 0.4
GIVEN_WAY = 0.39
KEPT = 0.85
"""What an implicit update leaves of a score; the rest is what was observed."""
QUIET = timedelta(minutes=3)
"""For so long after an update, implicit ones are ignored."""
LEAST = 0.01
"""Lower scores are forgotten."""


class UpdateSource(Enum):
    """Whether somebody has said how they want to be talked to, or it was observed."""

    EXPLICIT = "explicit"
    IMPLICIT = "implicit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tone:
    """The tags that are active, in the order of `TAGS`, and the scores (0 to 1) that make them so."""

    tags: tuple[str, ...] = ()
    scores: Mapping[str, float] = field(default_factory=dict)
    version: int = 0
    last_updated_at: datetime | None = None
    update_source: UpdateSource | None = None

    @classmethod
    def from_data(cls, data: object) -> Tone:
        """Return the tone in a profile (None: there is none yet); raise `CorruptStateError` when it is nothing like it.

        Tags and scores that nobody knows are passed over.
        """
        if data is None:
            return cls()
        if not isinstance(data, dict):
            raise CorruptStateError("the tone is not an object")
        try:
            scores = {tag: clamped(score) for tag, score in dict(data.get("scores") or {}).items() if tag in TAGS}
            at, source = data.get("last_updated_at"), data.get("update_source")
            return cls(
                tags=_in_order(data.get("tags") or ()),
                scores=scores,
                version=int(data.get("version") or 0),
                last_updated_at=None if at is None else datetime.fromisoformat(at),
                update_source=None if source is None else UpdateSource(source),
            )
        except (TypeError, ValueError) as error:
            raise CorruptStateError(f"the tone is malformed: {error}") from error

    def to_data(self) -> dict[str, object]:
        """Return it as a profile keeps it."""
        return {
            "tags": list(self.tags),
            "scores": dict(self.scores),
            "version": self.version,
            "last_updated_at": None if self.last_updated_at is None else self.last_updated_at.isoformat(),
            "update_source": None if self.update_source is None else self.update_source.value,
        }

    def updated(self, proposed: object, source: UpdateSource, now: datetime, confidence: float = 1.0) -> Tone:
        """Return the tone after a model proposed tags with such *confidence*; itself when that changes nothing."""
        observed = known_tags(proposed)
        if not observed:
            return self
        if source is UpdateSource.EXPLICIT:
            scores = {**self.scores, **dict.fromkeys(observed, clamped(confidence))}
        elif self.last_updated_at is not None and now - self.last_updated_at < QUIET:
            return self
        else:
            scores = {tag: KEPT * score for tag, score in self.scores.items()}
            for tag in observed:
                scores[tag] = scores.get(tag, 0.0) + (1 - KEPT) * clamped(confidence)
        scores = _settled(scores, observed)
        return Tone(
            tags=self._active(scores),
            scores={tag: round(scores[tag], 6) for tag in TAGS if scores.get(tag, 0.0) >= LEAST},
            version=self.version + 1,
            last_updated_at=now,
            update_source=source,
        )

    def _active(self, scores: Mapping[str, float]) -> tuple[str, ...]:
        """Return the tags whose scores make them active, and those that stay so in between."""
        active = {
            tag for tag, score in scores.items() if score >= ACTIVE_FROM or (score > INACTIVE_FROM and tag in self.tags)
        }
        for one, other in (*EXCLUDING, BEATEN):
            if active >= {one, other}:
                active.discard(_weaker(one, other, scores))
        return _in_order(active)


def known_tags(proposed: object) -> tuple[str, ...]:
    """Return the tags in what a model proposed: lower-cased, trimmed, each once, unknown ones left out."""
    if isinstance(proposed, str):
        proposed = proposed.split(",")
    if not isinstance(proposed, list | tuple):
        return ()
    cleaned = (item.strip().lower() for item in proposed if isinstance(item, str))
    return tuple(dict.fromkeys(tag for tag in cleaned if tag in TAGS))


def clamped(score: object) -> float:
    """Return a score between 0 and 1; what is no number is a `TypeError` or `ValueError`."""
    if not isinstance(score, int | float) or isinstance(score, bool):
        raise TypeError("a score is a number")
    if math.isnan(score):
        raise ValueError("a score is a number")
    return min(1.0, max(0.0, float(score)))


def _settled(scores: Mapping[str, float], observed: Sequence[str]) -> dict[str, float]:
    """Let one of each excluding pair give way; of two that are equal, the one that was not observed just now."""
    settled = dict(scores)
    for one, other in (*EXCLUDING, BEATEN):
        if min(settled.get(one, 0.0), settled.get(other, 0.0)) >= ACTIVE_FROM:
            equal = (one, other) != BEATEN and settled[one] == settled[other]
            weaker = one if equal and one not in observed else _weaker(one, other, settled)
            settled[weaker] = GIVEN_WAY
    return settled


def _weaker(one: str, other: str, scores: Mapping[str, float]) -> str:
    if (one, other) == BEATEN:
        return other
    return one if scores.get(one, 0.0) < scores.get(other, 0.0) else other


def _in_order(tags: Iterable[object]) -> tuple[str, ...]:
    wanted = set(tags)
    return tuple(tag for tag in TAGS if tag in wanted)
