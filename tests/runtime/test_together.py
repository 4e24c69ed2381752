"""Calls committed together: each is answered as if it were alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from promptpipe.runtime.together import Together

if TYPE_CHECKING:
    from collections.abc import Sequence


class Store:
    """Doubles numbers, when it is let; refuses those below zero."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.errors: list[Exception] = []
        self.gate = trio.Event()

    async def commit(self, numbers: Sequence[int]) -> list[int | Exception]:
        self.batches.append(list(numbers))
        await self.gate.wait()
        if self.errors:
            raise self.errors.pop(0)
        return [ValueError(f"{number}") if number < 0 else 2 * number for number in numbers]


async def test_those_that_come_together_share_a_commit_and_later_ones_the_next() -> None:
    """The first does not wait for others; whoever comes meanwhile does not wait for more."""
    store, answers = Store(), {}
    double = Together(store.commit)

    async def ask(number: int) -> None:
        answers[number] = await double(number)

    async with trio.open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(ask, number)
        await trio.testing.wait_all_tasks_blocked()
        for number in range(3, 7):
            nursery.start_soon(ask, number)
        await trio.testing.wait_all_tasks_blocked()
        assert [sorted(batch) for batch in store.batches] == [[0, 1, 2]]
        store.gate.set()
    assert [sorted(batch) for batch in store.batches] == [[0, 1, 2], [3, 4, 5, 6]]
    assert answers == {number: 2 * number for number in range(7)}


async def test_each_gets_its_own_error() -> None:
    """One that is refused costs the others nothing."""
    store = Store()
    answers: dict[int, int | str] = {}
    store.gate.set()
    double = Together(store.commit)

    async def ask(number: int) -> None:
        try:
            answers[number] = await double(number)
        except ValueError as error:
            answers[number] = str(error)

    async with trio.open_nursery() as nursery:
        for number in (1, -1, 2):
            nursery.start_soon(ask, number)
    assert answers == {1: 2, -1: "-1", 2: 4}


async def test_commit_that_fails_fails_for_all_of_it() -> None:
    """And the next is another."""
    store, failed = Store(), []
    store.errors.append(OSError("disk"))
    store.gate.set()
    double = Together(store.commit)

    async def ask(number: int) -> None:
        with pytest.raises(OSError, match="disk"):
            await double(number)
        failed.append(number)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, 1)
        nursery.start_soon(ask, 2)
    assert sorted(failed) == [1, 2]
    assert await double(3) == 6


async def test_canceled_before_its_commit_it_has_no_effect() -> None:
    """It is not in the next one."""
    store = Store()
    double = Together(store.commit)
    scope = trio.CancelScope()

    async def ask(number: int) -> None:
        await double(number)

    async def ask_canceled() -> None:
        with scope:
            await double(7)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, 1)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(ask_canceled)
        nursery.start_soon(ask, 2)
        await trio.testing.wait_all_tasks_blocked()
        scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert scope.cancelled_caught
        store.gate.set()
    assert store.batches == [[1], [2]]


async def test_canceled_in_a_commit_it_is_answered() -> None:
    """Its effect has taken place, and whoever asked must know."""
    store, answers = Store(), []
    double = Together(store.commit)
    scope = trio.CancelScope()

    async def ask(number: int) -> None:
        await double(number)

    async def ask_canceled() -> None:
        with scope:
            answers.append(await double(7))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, 1)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(ask_canceled)
        nursery.start_soon(ask, 2)
        await trio.testing.wait_all_tasks_blocked()
        first, store.gate = store.gate, trio.Event()
        first.set()
        await trio.testing.wait_all_tasks_blocked()
        assert sorted(store.batches[1]) == [2, 7]
        scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert answers == []
        store.gate.set()
    if not scope.cancelled_caught:
        assert answers == [14]
    else:
        assert sorted(store.batches[2]) == [2]  # it led the commit itself: that had no effect, and the other goes on


async def test_who_leads_and_is_canceled_leaves_the_others_to_themselves() -> None:
    """The commit had no effect; the next of them makes it."""
    store, answers = Store(), {}
    double = Together(store.commit)
    scope = trio.CancelScope()

    async def ask(number: int) -> None:
        answers[number] = await double(number)

    async def lead() -> None:
        with scope:
            await double(7)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(lead)
        await trio.testing.wait_all_tasks_blocked()
        for number in range(3):
            nursery.start_soon(ask, number)
        await trio.testing.wait_all_tasks_blocked()
        scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert scope.cancelled_caught
        assert [sorted(batch) for batch in store.batches] == [[7], [0, 1, 2]]
        store.gate.set()
    assert answers == {0: 0, 1: 2, 2: 4}


async def test_nobody_waits_for_ever_whoever_is_canceled() -> None:
    """All at once, in any order, again and again."""
    store = Store()
    store.gate.set()
    double = Together(store.commit)
    answered = 0

    async def ask(number: int) -> None:
        nonlocal answered
        with trio.CancelScope() as scope:
            if number % 3 == 0:
                scope.cancel()
            assert await double(number) == 2 * number
            answered += 1

    with trio.fail_after(10):
        for _ in range(20):
            async with trio.open_nursery() as nursery:
                for number in range(30):
                    nursery.start_soon(ask, number)
    assert answered >= 20 * 20
