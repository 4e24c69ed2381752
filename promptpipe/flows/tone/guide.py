"""What a language model is told of the tone that somebody likes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from promptpipe.flows.tone.tone import STANCE

if TYPE_CHECKING:
    from promptpipe.flows.tone.tone import Tone

RULES = {
    "concise": "Keep answers short: two sentences unless more is asked for.",
    "detailed": "Explain your reasons and give examples.",
    "formal": "Write in complete sentences, without slang or contractions.",
    "casual": "Write as a friend would, in everyday words.",
    "no_emojis": "Use no emojis.",
    "emojis_ok": "An emoji now and then is welcome.",
    "bullet_points": "Put several points into a list.",
    "one_question_at_a_time": "Ask one question at a time, and wait for its answer.",
    "warm_supportive": "Be warm, and name what went well before anything else.",
    "neutral_professional": "Be matter-of-fact and professional.",
    "direct_coach": "Say plainly what you would do, and hold them to what they set out to do.",
    "gentle_coach": "Suggest rather than tell, and make it easy to say no.",
    "confirm_before_acting": "Ask before you change or schedule anything.",
    "default_actionable": "End with one next step that they can take at once.",
    "high_autonomy": "Offer choices and leave the decision to them.",
}
BY_DEFAULT = RULES["neutral_professional"]
ALWAYS = "Never mirror hostility: stay calm and respectful whatever is said."


def guide(tone: Tone) -> str:
    """Return the rules for the tags that are active; empty when none is."""
    if not tone.tags:
        return ""
    rules = [RULES[tag] for tag in tone.tags]
    if not set(tone.tags) & set(STANCE):
        rules.append(BY_DEFAULT)
    return "\n".join(["How this person likes to be talked to:", *(f"- {rule}" for rule in (*rules, ALWAYS))])
