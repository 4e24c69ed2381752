"""The schema's history: numbered SQL files, `NNNN_name.sql`, applied once each. The numbers are the same everywhere."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from promptpipe.model.errors import SchemaError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from importlib.resources.abc import Traversable

_NAME = re.compile(r"(\d{4})_\w+\.sql")


@dataclass(frozen=True, slots=True)
class Migration:
    """One step of the schema."""

    number: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        """SHA-256 of the SQL."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


def load_migrations(folder: Traversable) -> list[Migration]:
    """Return the migrations in *folder*, in order."""
    return [
        Migration(int(match[1]), match[0], file.read_text(encoding="utf-8"))
        for file in sorted(folder.iterdir(), key=lambda item: item.name)
        if (match := _NAME.fullmatch(file.name))
    ]


def require_none(missing: Sequence[Migration]) -> None:
    """Raise `SchemaError` when migrations are missing, for what only reads cannot apply them."""
    if missing:
        names = ", ".join(migration.name for migration in missing)
        raise SchemaError(f"the database lacks {names}: `promptpipe migrate` brings it up to date")


def missing_migrations(applied: Mapping[int, tuple[str, str]], known: Sequence[Migration]) -> list[Migration]:
    """Return those of *known* that are not *applied* yet, in order; *applied* has names and checksums by number.

    Raise `SchemaError` when something was applied that is not known, or is known differently.
    """
    checksums = {migration.number: migration.checksum for migration in known}
    for number, (name, checksum) in sorted(applied.items()):
        if number not in checksums:
            raise SchemaError(f"the database has migration {name}: it belongs to a newer PromptPipe than this")
        if checksums[number] != checksum:
            raise SchemaError(f"migration {name} was changed after it had been applied to this database")
    return [migration for migration in known if migration.number not in applied]
