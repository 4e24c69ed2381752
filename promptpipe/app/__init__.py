"""The composition root: it alone knows the concrete classes, and puts them together."""

from __future__ import annotations

from promptpipe.app.components import Components, open_components
from promptpipe.app.parts import make_recovery
from promptpipe.app.run import check, migrate, missing_migrations, run, serve, settle_memory

__all__ = [
    "Components",
    "check",
    "make_recovery",
    "migrate",
    "missing_migrations",
    "open_components",
    "run",
    "serve",
    "settle_memory",
]
