"""Components that belong to no flow: what the store itself may have lost track of, or was edited into."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Sequence

    from promptpipe.recovery.registry import RecoveryRegistry

T = TypeVar("T")

PAGE = 500


class HandlersRecovery:
    """`Recoverable`: removes response handlers whose participant does not exist."""

    name = "response handlers"

    async def recover_state(self, registry: RecoveryRegistry) -> None:
        """See `Recoverable.recover_state`."""
        store = registry.store
        await _mend_all(
            registry,
            store.orphaned_handlers,
            lambda orphan: (orphan[0], f"a response handler ({orphan[1]}) without a participant"),
            lambda orphan: store.remove_orphaned_handler(*orphan),
        )


class LanesRecovery:
    """`Recoverable`: makes mailboxes and outboxes due that have something in them and nobody would come for."""

    name = "lanes"

    async def recover_state(self, registry: RecoveryRegistry) -> None:
        """See `Recoverable.recover_state`."""
        await _mend_all(
            registry,
            registry.store.stuck_lanes,
            lambda lane: (lane.key, f"{lane.work.value}: nobody would come for what is in it"),
            registry.store.rouse_lane,
        )


class MessagesRecovery:
    """`Recoverable`: puts messages in doubt that are marked as on the wire though nobody sends them."""

    name = "messages in doubt"

    async def recover_state(self, registry: RecoveryRegistry) -> None:
        """See `Recoverable.recover_state`."""
        store = registry.store
        await _mend_all(
            registry,
            store.stray_messages,
            lambda stray: (stray[0], "marked as on the wire, and nobody sends it"),
            lambda stray: store.doubt_stray_message(stray[1]),
        )


class FlowsRecovery:
    """`Recoverable`: names flows that people are in, though nobody here knows them; their conversations stand still."""

    name = "flows"

    def __init__(self, known: Collection[str]) -> None:
        self._known = known

    async def recover_state(self, registry: RecoveryRegistry) -> None:
        """See `Recoverable.recover_state`."""
        registry.tally.checked = len(self._known)
        for flow_type, count in await registry.store.unknown_flows(self._known):
            registry.tally.fail(flow_type, f"no flow is of this type; active participants in it: {count}")


async def _mend_all(
    registry: RecoveryRegistry,
    find: Callable[[int], Awaitable[Sequence[T]]],
    named: Callable[[T], tuple[str, str]],
    repair: Callable[[T], Awaitable[bool]],
) -> None:
    """Mend what *find* finds, a page at a time; *named* gives each its name, and what is wrong with it."""

    async def mend(item: T) -> None:
        await registry.mend(*named(item), partial(repair, item))

    while found := await find(PAGE):
        before = registry.tally.restored
        await registry.each(found, mend, lambda item: named(item)[0])
        registry.tally.checked += len(found)
        if registry.look_only or registry.tally.restored == before:
            return
