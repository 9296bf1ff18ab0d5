"""Draining: a node is emptied before its device is closed. Its actors go elsewhere, and nobody new comes."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from actors.exceptions import ActorDiedError, PlacementError

if TYPE_CHECKING:
    from actors.address import Address
    from actors.node.custody import Custody
    from actors.node.members import Members
    from actors.node.workers import WorkerProcess, Workers
    from actors.process import Process
    from actors.transport.acceptor import Visitor

TELL_SECONDS = 5.0
LOOK_SECONDS = 0.1


class Draining:
    """The service ``"draining"``. Each method's first argument is who asks.

    Args:
        process: the node's.
        members: the nodes that are known.
        workers: those of this node.
        custody: the detached actors that this node has charge of.
    """

    def __init__(self, process: Process, members: Members, workers: Workers, custody: Custody) -> None:
        self._process = process
        self._members = members
        self._workers = workers
        self._custody = custody

    async def drain(self, _: Visitor, node: str, timeout: float) -> dict[str, Any]:
        """Empties a node, given by name or id; returns when it is empty, or the time is over.

        Returns:
            ``node`` (its name), ``moved`` (labels of the actors that live elsewhere now), ``left`` (``label`` and
            ``why`` of those that are still there).

        Raises:
            PlacementError: no node is called so.
        """
        where = self._find(node)
        found: dict[str, Any] = await self._process.ask(where, "draining", "empty", timeout, timeout=None)
        return found

    async def undo(self, _: Visitor, node: str) -> str:
        """Lets actors be placed on a node again; returns its name."""
        where = self._find(node)
        await self._process.ask(where, "draining", "announce", False)
        return where.node_name

    def _find(self, node: str) -> Address:
        for member in self._members.alive():
            if node in {member.info.id, member.info.name}:
                return member.where
        there = ", ".join(member.info.name for member in self._members.alive())
        raise PlacementError(f"no node is called {node!r}; there are: {there}")

    # -- at the node itself -------------------------------------------------------------------------------------

    async def announce(self, _: Visitor, draining: bool) -> None:
        """Tells every node whether anything new may be placed on this one."""
        me = self._members.me
        me.info = replace(me.info, draining=draining)
        told = (self._tell(member.where, draining) for member in self._members.partners())
        await asyncio.gather(*told)

    async def _tell(self, where: Address, draining: bool) -> None:
        with contextlib.suppress(TimeoutError, ActorDiedError):  # then it is refused here, and told again
            await self._process.ask(
                where, "draining", "announced", self._members.me.info.id, draining, timeout=TELL_SECONDS
            )

    async def announced(self, _: Visitor, node: str, draining: bool) -> None:
        """Another node says whether anything new may be placed on it."""
        member = self._members.find(node)
        if member is not None:
            member.info = replace(member.info, draining=draining)

    async def empty(self, visitor: Visitor, timeout: float) -> dict[str, Any]:
        """Empties this node; see `drain`."""
        await self.announce(visitor, True)
        before = {worker.spec.label for worker in self._actors() if worker.spec is not None and not worker.spec.task}
        reasons: dict[str, str] = {}
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._send_away(reasons)
                withdrawn: set[str] = set()
                while any(self._waits_for(worker, reasons) for worker in self._actors()):
                    await self._withdraw_all(withdrawn)
                    await asyncio.sleep(LOOK_SECONDS)
        left = {worker.spec.label: worker.spec for worker in self._actors() if worker.spec is not None}
        return {
            "node": self._members.me.info.name,
            "moved": sorted(before - set(left)),
            "left": [
                {"label": label, "why": reasons.get(spec.id, "it was still at work")}
                for label, spec in sorted(left.items())
            ],
        }

    def _actors(self) -> list[WorkerProcess]:
        return self._workers.actors()

    @staticmethod
    def _waits_for(worker: WorkerProcess, reasons: dict[str, str]) -> bool:
        return worker.spec is not None and worker.spec.id not in reasons

    async def _send_away(self, reasons: dict[str, str]) -> None:
        """Has all go that can; notes why others cannot."""
        mine = set(self._custody.charged())
        away = [self._pass_on(actor, reasons) for actor in mine]
        away += [
            self._emigrate(worker, reasons)
            for worker in self._actors()
            if worker.spec is not None and not worker.spec.task and worker.spec.id not in mine
        ]
        await asyncio.gather(*away)

    async def _pass_on(self, actor: str, reasons: dict[str, str]) -> None:
        try:
            await self._custody.pass_on(actor)
        except Exception as error:
            reasons[actor] = str(error)

    async def _withdraw_all(self, withdrawn: set[str]) -> None:
        """Has workers of tasks end, those too that were on their way as nothing more was to come."""
        tasks = [worker for worker in self._actors() if worker.spec is not None and worker.spec.task]
        new = [worker for worker in tasks if worker.id not in withdrawn]
        withdrawn.update(worker.id for worker in new)
        await asyncio.gather(*(self._withdraw(worker) for worker in new))

    async def _withdraw(self, worker: WorkerProcess) -> None:
        """A program that has many tasks would give its warm workers one after the other, for ever."""
        with contextlib.suppress(ActorDiedError):
            await self._process.ask(worker.ready.result(), "worker", "withdraw", timeout=None)

    async def _emigrate(self, worker: WorkerProcess, reasons: dict[str, str]) -> None:
        assert worker.spec is not None
        try:
            await self._process.ask(worker.ready.result(), "worker", "emigrate", timeout=None)
        except ActorDiedError:
            return  # it has gone before it could answer
        except Exception as error:
            reasons[worker.spec.id] = str(error)
