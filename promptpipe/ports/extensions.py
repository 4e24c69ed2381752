"""What the code of other packages is given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from promptpipe.ports.clock import Clock
    from promptpipe.ports.generator import TextGenerator


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtensionContext:
    """What an extension is made with, once, before the service starts.

    *generator* is the language model, if there is one. *settings* are the package's own, by lower-case name:
    `PROMPTPIPE_EXTENSION__MOOD_DIARY__EVERY` is `every` for the package `mood-diary`. *clock* and *new_id* are for what
    is no flow: a flow gets the time and its ids with each event.
    """

    clock: Clock
    new_id: Callable[[], str]
    settings: Mapping[str, str]
    generator: TextGenerator | None = None
