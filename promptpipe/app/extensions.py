"""What installed packages add to the service, found by their entry points.

An entry point names a factory, which is called once with an `ExtensionContext` and returns one object; its group says
of which kind. `docs/writing-a-flow.md` shows a package that has some of each.
"""

from __future__ import annotations

import inspect
import traceback
from dataclasses import dataclass
from importlib import metadata
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from promptpipe.config import without_passwords
from promptpipe.flows.prompts import PROMPTS, BranchHandler, GenAiHandler
from promptpipe.model.errors import ExtensionError, described
from promptpipe.model.prompts import SCHEDULED_PROMPT
from promptpipe.model.text import shortened
from promptpipe.ports.jobs import JobKind
from promptpipe.recovery import FlowsRecovery, HandlersRecovery, LanesRecovery, MessagesRecovery

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from promptpipe.flows.flow import Flow
    from promptpipe.flows.prompts import PromptGenerator, ResponseHandler
    from promptpipe.ports.extensions import ExtensionContext
    from promptpipe.recovery import Recoverable

OURS = "PromptPipe"
MAX_REASON = 500
"""Characters of why an extension cannot be used."""

WHATEVER = (Exception, SystemExit)
"""What foreign code may raise that is to be told in a line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What the objects of a group have to be: an instance of *of*, with *attributes* of a type and *coroutines*.

    *names* returns what nobody else may be called: the names of an object, each with what it is the name of.
    """

    of: type = object
    attributes: Mapping[str, type]
    coroutines: tuple[str, ...]
    names: Callable[[Any], Iterable[tuple[str, object]]]


def _names_of_flow(flow: Flow) -> list[tuple[str, object]]:
    kinds: list[tuple[str, object]] = [("job kind", kind) for kind in flow.job_kinds]
    return [("flow", flow.flow_type), ("response handler", flow.handler_type), *kinds]


SHAPES: Mapping[str, Shape] = {
    "promptpipe.flows": Shape(
        attributes={"flow_type": str, "handler_type": str, "initial_state": str, "job_kinds": frozenset},
        coroutines=("handle",),
        names=_names_of_flow,
    ),
    "promptpipe.prompt_generators": Shape(
        attributes={"name": str},
        coroutines=("generate",),
        names=lambda generator: [("prompt generator", generator.name)],
    ),
    "promptpipe.response_handlers": Shape(
        attributes={"handler_type": str},
        coroutines=("respond",),
        names=lambda handler: [("response handler", handler.handler_type)],
    ),
    "promptpipe.job_kinds": Shape(
        of=JobKind,
        attributes={"name": str},
        coroutines=("run",),
        names=lambda kind: [("job kind", kind.name)],
    ),
    "promptpipe.recoverables": Shape(
        attributes={"name": str},
        coroutines=("recover_state",),
        names=lambda recoverable: [("recoverable", recoverable.name)],
    ),
}
"""The groups, in the order in which they are loaded."""

RESERVED = (
    ("flow", PROMPTS),
    ("response handler", BranchHandler.handler_type),
    ("response handler", GenAiHandler.handler_type),
    ("job kind", SCHEDULED_PROMPT),
    *(("recoverable", part.name) for part in (HandlersRecovery, LanesRecovery, MessagesRecovery, FlowsRecovery)),
)
"""Names of ours that no object of these groups has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Extensions:
    """Objects of each group. *packages* says of whom, each with its version."""

    packages: tuple[str, ...] = ()
    flows: tuple[Flow, ...] = ()
    prompt_generators: tuple[PromptGenerator, ...] = ()
    response_handlers: tuple[ResponseHandler, ...] = ()
    job_kinds: tuple[JobKind[Any], ...] = ()
    recoverables: tuple[Recoverable, ...] = ()


class _UnusableError(Exception):
    """Why an extension cannot be used; it never leaves this module."""


class _Names:
    """Who has which name."""

    def __init__(self) -> None:
        self._owners: dict[tuple[str, object], str] = dict.fromkeys(RESERVED, OURS)

    def take(self, names: Iterable[tuple[str, object]], owner: str) -> None:
        """Note that *owner* has *names*; raise `_UnusableError` for what is no name, or somebody else's."""
        for what, name in names:
            if not isinstance(name, str) or not name:
                raise _UnusableError(f"{name!r} is no name for a {what}")
            if (what, name) in self._owners:
                raise _UnusableError(f"the {what} {name!r} is taken by {self._owners[what, name]}")
            self._owners[what, name] = owner


def load_extensions(ours: Extensions, context_for: Callable[[str], ExtensionContext]) -> Extensions:
    """Return *ours* with what the installed packages add, in the order of the packages' names.

    *context_for* returns what the factories of a package are given. Raise `ExtensionError` when something cannot be
    used: it cannot be imported, its factory fails, what that returns is not what the group is for, or has a name that
    somebody else has.
    """
    names = _Names()
    objects: dict[str, list[Any]] = {}
    for group, shape in SHAPES.items():
        objects[group] = list(getattr(ours, _field_of(group)))
        for made in objects[group]:
            names.take(shape.names(made), OURS)
    packages: dict[str, None] = {}
    for entry, package, version in _found():
        try:
            made = _made(entry, context_for(package))
            _check(made, SHAPES[entry.group])
            names.take(SHAPES[entry.group].names(made), f"{entry.name!r} of {package}")
        except _UnusableError as reason:
            raise ExtensionError(
                f"extension {package} {version}: entry point {entry.name!r} of {entry.group}: {reason}"
            ) from reason.__cause__
        objects[entry.group].append(made)
        packages[f"{package} {version}"] = None
    fields = {_field_of(group): tuple(made) for group, made in objects.items()}
    return Extensions(packages=tuple(packages), **fields)


def _field_of(group: str) -> str:
    """Return the field of `Extensions` that holds the objects of a group."""
    return group.rpartition(".")[2]


def _found() -> list[tuple[metadata.EntryPoint, str, str]]:
    """Return the entry points of our groups, each with the name and version of its package, in a settled order."""
    try:
        every = metadata.entry_points()
        found = [
            (entry, entry.dist.name, entry.dist.version)
            for group in SHAPES
            for entry in every.select(group=group)
            if entry.dist is not None
        ]
    except Exception as error:
        raise ExtensionError(f"the installed packages' entry points cannot be read: {_told(error)}") from error
    order = list(SHAPES)
    return sorted(found, key=lambda item: (item[1], order.index(item[0].group), item[0].name))


def _made(entry: metadata.EntryPoint, context: ExtensionContext) -> object:
    """Return what an entry point's factory makes."""
    try:
        factory = entry.load()
    except WHATEVER as error:
        raise _UnusableError(f"{entry.value} cannot be imported: {_told(error)}") from error
    if not callable(factory):
        raise _UnusableError(f"{entry.value} is no factory, but an object of type {type(factory).__name__}")
    try:
        return factory(context)
    except WHATEVER as error:
        raise _UnusableError(f"{entry.value} failed: {_told(error)}") from error


def _check(made: object, shape: Shape) -> None:
    """Raise `_UnusableError` when what a factory made is not what its group is for."""
    what = f"what it returned, of type {type(made).__name__},"
    if not isinstance(made, shape.of):
        raise _UnusableError(f"{what} is no {shape.of.__name__}")
    try:
        values = {name: getattr(made, name, None) for name in (*shape.attributes, *shape.coroutines)}
    except WHATEVER as error:
        raise _UnusableError(f"{what} failed: {_told(error)}") from error
    for name, wanted in shape.attributes.items():
        if not isinstance(values[name], wanted):
            raise _UnusableError(f"{what} has no {name} that is a {wanted.__name__}")
    for name in shape.coroutines:
        if not inspect.iscoroutinefunction(values[name]):
            raise _UnusableError(f"{what} has no async function {name}")


def _told(error: BaseException) -> str:
    """Return an error in one line, with the place where it was raised, and without passwords."""
    told = " ".join(without_passwords(described(error)).split())
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if frame.filename != __file__ and "importlib" not in frame.filename]
    place = f" ({PurePath(theirs[-1].filename).name}, line {theirs[-1].lineno})" if theirs else ""
    return shortened(told, MAX_REASON) + place
