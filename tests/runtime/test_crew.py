"""The crew: pieces of work in tasks that stay."""

from __future__ import annotations

import trio
import trio.testing

from promptpipe.runtime.crew import IN_A_ROW, Crew


async def test_work_that_waits_is_done_at_the_same_time() -> None:
    """Each piece has a task to itself for as long as it takes."""
    under_way, gate = 0, trio.Event()

    async def work(_: int, scope: trio.CancelScope) -> None:
        nonlocal under_way
        del scope
        under_way += 1
        await gate.wait()

    crew = Crew(work)
    async with trio.open_nursery() as nursery:
        for piece in range(50):
            crew.do(piece, nursery)
        await trio.testing.wait_all_tasks_blocked()
        assert under_way == 50
        gate.set()
        crew.dismiss()


async def test_work_is_begun_in_order() -> None:
    """Whether it waits or not."""
    begun = []

    async def work(piece: int, scope: trio.CancelScope) -> None:
        del scope
        begun.append(piece)
        if piece % 3 == 0:
            await trio.lowlevel.checkpoint()

    crew = Crew(work)
    async with trio.open_nursery() as nursery:
        for piece in range(100):
            crew.do(piece, nursery)
        await trio.testing.wait_all_tasks_blocked()
        crew.dismiss()
    assert begun == list(range(100))


async def test_work_that_never_waits_takes_few_tasks_and_lets_others_run() -> None:
    """One task does it all, and the event loop turns after every few pieces."""
    tasks, turns = set(), 0

    async def work(_: int, scope: trio.CancelScope) -> None:
        del scope
        tasks.add(trio.lowlevel.current_task())

    async def turn() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    crew = Crew(work)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(turn)
        await trio.lowlevel.checkpoint()
        before = turns
        for piece in range(10 * IN_A_ROW):
            crew.do(piece, nursery)
        while crew._todo:  # noqa: ASYNC110
            await trio.lowlevel.checkpoint()
        assert turns - before >= 2
        assert len(tasks) <= 12
        nursery.cancel_scope.cancel()


async def test_tasks_are_used_again() -> None:
    """Later pieces start none while there are idle ones."""
    tasks = set()

    async def work(_: int, scope: trio.CancelScope) -> None:
        del scope
        tasks.add(trio.lowlevel.current_task())
        await trio.lowlevel.checkpoint()

    crew = Crew(work)
    async with trio.open_nursery() as nursery:
        for piece in range(30):
            crew.do(piece, nursery)
            await trio.testing.wait_all_tasks_blocked()
        crew.dismiss()
    assert len(tasks) == 1


async def test_canceled_piece_ends_alone() -> None:
    """The scope is its own: the pieces before, beside and after it go on, by the same task too."""
    scopes: dict[int, trio.CancelScope] = {}
    done, gate = [], trio.Event()

    async def work(piece: int, scope: trio.CancelScope) -> None:
        scopes[piece] = scope
        await gate.wait()
        done.append(piece)

    crew = Crew(work)
    async with trio.open_nursery() as nursery:
        for piece in range(3):
            crew.do(piece, nursery)
        await trio.testing.wait_all_tasks_blocked()
        scopes[1].cancel()
        await trio.testing.wait_all_tasks_blocked()
        crew.do(3, nursery)
        await trio.testing.wait_all_tasks_blocked()
        assert len(set(map(id, scopes.values()))) == 4
        gate.set()
        crew.dismiss()
    assert sorted(done) == [0, 2, 3]


async def test_piece_that_ends_though_it_was_canceled_spoils_no_other() -> None:
    """One that shields itself, or has just ended, leaves its canceled scope behind."""
    done = []

    async def work(piece: int, scope: trio.CancelScope) -> None:
        if piece == 0:
            scope.cancel()
            return
        await trio.lowlevel.checkpoint()
        done.append(piece)

    crew = Crew(work)
    async with trio.open_nursery() as nursery:
        for piece in range(5):
            crew.do(piece, nursery)
        await trio.testing.wait_all_tasks_blocked()
        crew.dismiss()
    assert sorted(done) == [1, 2, 3, 4]


async def test_dismissed_crew_does_what_is_left() -> None:
    """And then nobody is there any more."""
    done = []

    async def work(piece: int, scope: trio.CancelScope) -> None:
        del scope
        await trio.lowlevel.checkpoint()
        done.append(piece)

    crew = Crew(work)
    async with trio.open_nursery() as nursery:
        for piece in range(5):
            crew.do(piece, nursery)
        crew.dismiss()
    assert sorted(done) == list(range(5))
