"""Bringing over what the first PromptPipe, which was written in Go, has in its database."""

from promptpipe.importing.planning import Planner, Target
from promptpipe.importing.run import Import
from promptpipe.importing.source import Source
from promptpipe.importing.sources import open_source

__all__ = ["Import", "Planner", "Source", "Target", "open_source"]
