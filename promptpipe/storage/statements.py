"""Named SQL statements, kept in `queries/*.sql` files: one header line `-- name: ...` before each.

The names are the same in both back ends.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from importlib.resources.abc import Traversable

_HEADER = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


def load_statements(folder: Traversable) -> Mapping[str, str]:
    """Return the statements in *folder*, by name; raise `ValueError` when a name is given twice."""
    statements: dict[str, str] = {}
    for file in sorted(folder.iterdir(), key=lambda item: item.name):
        if not file.name.endswith(".sql"):
            continue
        _, *parts = _HEADER.split(file.read_text(encoding="utf-8"))
        for name, sql in zip(parts[::2], parts[1::2], strict=True):
            if name in statements:
                raise ValueError(f"statement {name} is defined twice, the second time in {file.name}")
            statements[name] = sql.strip()
    return statements
