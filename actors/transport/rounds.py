"""Rounds: calls that end when all ranks of a job have made them."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from grpc import StatusCode

from actors.transport.letterbox import Refused

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors.transport.letterbox import Member


@dataclass(slots=True)
class _Round:
    number: int
    outcome: asyncio.Future[Any]
    parts: dict[int, Any] = field(default_factory=dict)
    claim: tuple[int, str] | None = None
    held: int = 0
    served: int = 0


class Rounds:
    """All rounds of one kind of call: a rank's n-th call belongs to round n, which ends when all ranks are in it.

    A round that fails does so for all its ranks, those that come later included; the next round is not touched.

    Args:
        name: the call, for messages.
        member: this server.
        finish: makes the answer from the ranks' requests, in rank order; run on another thread.
    """

    def __init__(self, name: str, member: Member, finish: Callable[[list[Any]], Any]) -> None:
        self._name = name
        self._member = member
        self._finish = finish
        self._next: defaultdict[int, int] = defaultdict(lambda: 1)
        self._open: dict[int, _Round] = {}
        self._held = 0

    async def join(self, rank: int, request: Any, read: Callable[[], tuple[str, int]], patience: float) -> Any:
        """Brings a rank's request to its next round and waits for the answer.

        Args:
            rank: whose request.
            request: what it brings.
            read: checks the request; says in words what must be equal on all ranks, and how many bytes it holds. A
                `Refused` or `ValueError` of it fails the round.
            patience: seconds to wait for the other ranks.

        Raises:
            Refused: the round failed.
        """
        current = self._enter(rank)
        try:
            self._bring(current, rank, request, read)
            await self._settle(current, patience)
        except BaseException:  # cancelled, as a rule: its process ended, or its deadline came
            self._fail(current, StatusCode.ABORTED, f"rank {rank} gave up waiting")
            raise
        finally:
            self._leave(current)
        outcome = current.outcome.result()
        if isinstance(outcome, Refused):
            raise outcome
        return outcome

    def close(self, reason: str) -> None:
        """Fails every open round."""
        for current in self._open.values():
            self._fail(current, StatusCode.UNAVAILABLE, reason)

    def _enter(self, rank: int) -> _Round:
        number = self._next[rank]
        if number not in self._open:
            if len(self._open) >= self._member.limits.rounds:
                lead = f"rank {rank} is {len(self._open)} rounds of {self._name} ahead of another rank"
                raise Refused(StatusCode.RESOURCE_EXHAUSTED, f"{lead}, which is the limit")
            self._open[number] = _Round(number, asyncio.get_running_loop().create_future())
        self._next[rank] += 1
        return self._open[number]

    def _bring(self, current: _Round, rank: int, request: Any, read: Callable[[], tuple[str, int]]) -> None:
        if current.outcome.done():
            return
        try:
            claim, size = read()
        except Refused as refusal:
            self._fail(current, refusal.code, f"rank {rank}: {refusal.message}")
            return
        except ValueError as error:
            self._fail(current, StatusCode.INVALID_ARGUMENT, f"rank {rank}: {error}")
            return
        first, agreed = current.claim = current.claim or (rank, claim)
        if claim != agreed:
            sides = f"rank {first} has {agreed}, rank {rank} has {claim}"
            self._fail(current, StatusCode.INVALID_ARGUMENT, f"the ranks do not agree: {sides}")
            return
        current.parts[rank] = request
        current.held += size
        self._held += size
        if self._held > (limit := self._member.limits.held):
            self._fail(current, StatusCode.RESOURCE_EXHAUSTED, f"{self._held} bytes came, the limit is {limit}")

    async def _settle(self, current: _Round, patience: float) -> None:
        everyone = range(self._member.world_size)
        if current.outcome.done():
            return
        if len(current.parts) < len(everyone):
            await asyncio.wait({current.outcome}, timeout=patience)
            missing = [rank for rank in everyone if rank not in current.parts]
            self._fail(current, StatusCode.DEADLINE_EXCEEDED, f"ranks {missing} did not come within {patience:.3g} s")
            return
        try:
            # Large reductions take seconds, in which the loop has other calls to answer.
            answer = await asyncio.to_thread(self._finish, [current.parts[rank] for rank in everyone])
        except Exception as error:  # MemoryError, most likely; the other ranks must not wait for an answer
            self._fail(current, StatusCode.INTERNAL, f"rank {self._member.rank} could not finish it: {error!r}")
            return
        if not current.outcome.done():
            current.outcome.set_result(answer)

    def _fail(self, current: _Round, code: StatusCode, why: str) -> None:
        if not current.outcome.done():
            current.outcome.set_result(Refused(code, f"round {current.number} of {self._name} failed: {why}"))

    def _leave(self, current: _Round) -> None:
        self._held -= current.held
        current.held = 0
        current.parts.clear()
        current.served += 1
        if current.served == self._member.world_size:
            del self._open[current.number]
