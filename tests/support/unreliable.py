"""A store between the test and the real one, that can be made to fail."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from promptpipe.model.errors import StoreUnavailableError

if TYPE_CHECKING:
    from promptpipe.ports.store import Store


@dataclass
class Trouble:
    """How often each method (`mailboxes.decide`) is to fail before it works again, and by what."""

    left: dict[str, int] = field(default_factory=dict)
    error: Exception = field(default_factory=lambda: StoreUnavailableError("disk is full"))
    calls: list[str] = field(default_factory=list)

    def wrap(self, store: Store) -> Store:
        """Return *store* with this trouble before it."""
        return cast("Store", _Troubled(store, "", self))

    def arises(self, name: str) -> None:
        """Raise, if that is what *name* is to do."""
        self.calls.append(name)
        if self.left.get(name, 0) > 0:
            self.left[name] -= 1
            raise self.error


class _Troubled:
    def __init__(self, inner: object, name: str, trouble: Trouble) -> None:
        self._inner = inner
        self._path = name
        self._trouble = trouble

    def __getattr__(self, attribute: str) -> Any:
        value = getattr(self._inner, attribute)
        name = f"{self._path}.{attribute}".lstrip(".")
        if inspect.iscoroutinefunction(value):

            async def troubled(*args: object, **kwargs: object) -> object:
                self._trouble.arises(name)
                return await value(*args, **kwargs)

            return troubled
        return _Troubled(value, name, self._trouble) if attribute[0] != "_" and hasattr(value, "__dict__") else value
