"""What a database must look like to be one of the first PromptPipe's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from promptpipe.importing.tables import PARTICIPANTS, STATES
from promptpipe.model.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping


def check_shape(columns: Mapping[str, frozenset[str]], shown: str) -> None:
    """Raise `SettingsError` when the tables of the database that is *shown* like this are not the old ones."""
    people, states = columns.get(PARTICIPANTS.name, frozenset()), columns.get(STATES.name, frozenset())
    if "schema_migrations" in columns and "phone_number" not in people:
        raise SettingsError(f"--from: {shown} is a database of this PromptPipe, not of the first one")
    if not {"id", "phone_number", "status"} <= people or not {"participant_id", "state_data"} <= states:
        raise SettingsError(f"--from: {shown} is no database of the first PromptPipe: it lacks its tables")
