"""What is asked of one actor by who has no handle of it: a command, the dashboard. The node that it is on does it."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING, Any

from actors.events.event import LogPrinted
from actors.exceptions import ActorDiedError

if TYPE_CHECKING:
    from actors.address import Address
    from actors.events import ActorChanged
    from actors.node.members import Member, Members
    from actors.node.observatory import Observatory
    from actors.node.service import NodeService
    from actors.process import Process
    from actors.transport.acceptor import Visitor

STACK_SECONDS = 1.0
DUMP_SECONDS = 0.4  # until what a process writes on a signal is here


class Hosting:
    """The service ``"hosting"`` of a node.

    Args:
        process: the node's.
        members: the nodes it knows.
        service: what else it answers.
        observatory: which hears what its workers print.
    """

    def __init__(self, process: Process, members: Members, service: NodeService, observatory: Observatory) -> None:
        self._process = process
        self._members = members
        self._service = service
        self._observatory = observatory

    async def end(self, visitor: Visitor, actor: ActorChanged, no_restart: bool) -> None:
        """Ends an actor at once; returns when it has ended.

        Raises:
            ActorError: it is nowhere.
        """
        member = self._hosting(actor)
        if member is not self._members.me:
            await self._process.ask(member.where, "hosting", "end", actor, no_restart)
        elif actor.guest:
            await self._process.ask(self._address_of(actor), "lights", "kill", actor.guest, no_restart)
        else:
            await self._service.kill(visitor, actor.process, no_restart)

    async def stack(self, _: Visitor, actor: ActorChanged) -> tuple[bool, list[tuple[str, list[str]]]]:
        """Returns where an actor's code stands.

        Returns:
            Whether its process answered. If not, its interpreter is busy in one long step of C code that lets
            nobody else in; then what its threads stand at was written by a signal handler. And that, see
            `actors.inspection.Inspection.stacks`.

        Raises:
            ActorError: it is nowhere.
        """
        member = self._hosting(actor)
        found: tuple[bool, list[tuple[str, list[str]]]]
        if member is not self._members.me:
            found = await self._process.ask(member.where, "hosting", "stack", actor)
            return found
        address = self._address_of(actor)
        try:
            return True, await self._process.ask(address, "inspection", "stacks", actor.id, timeout=STACK_SECONDS)
        except TimeoutError:
            return False, [("written to its log by SIGUSR1", await self._dumped(actor))]

    async def _dumped(self, actor: ActorChanged) -> list[str]:
        journal = self._observatory.journal
        before = journal.last
        pid = self._observatory.pid_of(actor.process)
        os.kill(pid, signal.SIGUSR1)
        await asyncio.sleep(DUMP_SECONDS)
        events, _last, _missed = journal.after(before)
        return [e.text for e in events if isinstance(e, LogPrinted) and e.pid == pid and e.stream == "stderr"]

    async def debug(self, _: Visitor, actor: ActorChanged, what: str, *args: Any) -> Any:
        """Has the debugger in an actor's process do something; see `actors.debugging.Debugger`.

        Raises:
            ActorError: it is nowhere.
            ActorsError: the debugger refuses.
        """
        member = self._hosting(actor)
        if member is not self._members.me:
            return await self._process.ask(member.where, "hosting", "debug", actor, what, *args)
        return await self._process.ask(self._address_of(actor), "debugger", what, actor.id, *args)

    def _hosting(self, actor: ActorChanged) -> Member:
        """Returns the node that an actor is on.

        Raises:
            ActorError: it is on none just now.
        """
        for member in self._members.alive():
            if member.info.name == actor.node and actor.process:
                return member
        what = f"{actor.class_name} {actor.id} is {actor.state}"
        raise ActorDiedError(f"{what}: {actor.reason}" if actor.reason else f"{what}: it has no process")

    def _address_of(self, actor: ActorChanged) -> Address:
        worker = self._service.workers.get(actor.process)
        if worker is None or not worker.ready.done():
            raise ActorDiedError(f"the process of {actor.class_name} {actor.id} has ended")
        return worker.ready.result()
