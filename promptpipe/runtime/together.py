"""Calls of many tasks, committed together: those that come while a commit is on its way share the next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

import outcome
import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

Q = TypeVar("Q")
R = TypeVar("R")


class _Call(Generic[Q, R]):
    """What one task asks for, and its answer once there is one."""

    __slots__ = ("answer", "asked", "turn")

    def __init__(self, asked: Q) -> None:
        self.asked = asked
        self.answer: outcome.Outcome[R] | None = None
        self.turn = trio.Event()


class Together(Generic[Q, R]):
    """Turns a function of many into one that is called for each.

    *commit* returns for each of what it is given an answer or an exception, which is raised in the task that asked;
    what it raises itself is raised in all of them. There is no task of its own: whoever comes first commits for the
    others. A call canceled before its commit began has no effect; one that takes part in a commit is answered.
    """

    def __init__(self, commit: Callable[[Sequence[Q]], Awaitable[Sequence[R | Exception]]]) -> None:
        self._commit = commit
        self._waiting: list[_Call[Q, R]] = []
        self._committing = False

    async def __call__(self, asked: Q) -> R:
        """Return the answer to *asked*."""
        call: _Call[Q, R] = _Call(asked)
        self._waiting.append(call)
        try:
            while call.answer is None:
                if self._committing:
                    await self._wait(call)
                else:
                    await self._commit_for_all()
        finally:
            if call in self._waiting:
                self._waiting.remove(call)
            self._pass_on()
        return call.answer.unwrap()

    async def _wait(self, call: _Call[Q, R]) -> None:
        """Return when *call* is answered or it is its turn; what is on its way is waited for whatever happens."""
        try:
            await call.turn.wait()
        except trio.Cancelled:  # noqa: ASYNC103  answered meanwhile, it returns
            if call not in self._waiting:
                with trio.CancelScope(shield=True):
                    await call.turn.wait()
            if call.answer is None:
                raise
        if call.answer is None:
            call.turn = trio.Event()

    async def _commit_for_all(self) -> None:
        self._committing = True
        calls: list[_Call[Q, R]] = []
        try:
            await self._gather()
            calls, self._waiting = self._waiting, []
            answers = await self._commit([call.asked for call in calls])
            for call, answer in zip(calls, answers, strict=True):
                call.answer = outcome.Error(answer) if isinstance(answer, Exception) else outcome.Value(answer)
        except Exception as error:  # noqa: BLE001  each of them gets it
            for call in calls:
                call.answer = outcome.Error(error)
        finally:
            self._committing = False
            unanswered = [call for call in calls if call.answer is None]  # canceled, it had no effect
            self._waiting[:0] = unanswered
            for call in calls:
                call.turn.set()

    async def _gather(self) -> None:
        """Return as soon as a moment passes in which nobody else has come."""
        known = -1
        while known < len(self._waiting):
            known = len(self._waiting)
            await trio.lowlevel.checkpoint()

    def _pass_on(self) -> None:
        if self._waiting and not self._committing:
            self._waiting[0].turn.set()
