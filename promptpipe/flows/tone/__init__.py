"""How somebody likes to be talked to: learned from what they ask for and how they write."""

from promptpipe.flows.tone.guide import guide
from promptpipe.flows.tone.tone import TAGS, Tone, UpdateSource

__all__ = ["TAGS", "Tone", "UpdateSource", "guide"]
