"""Opening a source by its URL."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from promptpipe.importing.sqlite_source import open_sqlite_source
from promptpipe.model.errors import SettingsError

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from promptpipe.importing.source import Source

_POSTGRES = re.compile("postgres(ql)?://")
_SQLITE = "sqlite:///"


def open_source(url: str) -> AbstractAsyncContextManager[Source]:
    """Return what opens the database at *url*: `postgresql://...`, `sqlite:///path`, or a path.

    It raises `SettingsError` when there is no database of the first PromptPipe, and `StoreUnavailableError`.
    """
    if _POSTGRES.match(url):
        from promptpipe.importing.postgres_source import open_postgres_source  # noqa: PLC0415  only when it is needed

        return open_postgres_source(url)
    path = url.removeprefix(_SQLITE).removeprefix("file:").partition("?")[0]
    if not path or "://" in path:
        raise SettingsError("--from: must look like sqlite:///state.db, a path, or postgresql://host/database")
    return open_sqlite_source(Path(path))
