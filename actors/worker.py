"""A worker: the process of one actor. Started by a node as ``python -m actors.worker``."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import faulthandler
import os
import signal
import sys
import threading
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actors import runtime
from actors.address import Address
from actors.debugging import enable as enable_debugging
from actors.exceptions import ActorDiedError, ActorUnavailableError
from actors.instance import NOTHING, Ending, Instance
from actors.jsonlog import log_as_wished
from actors.parent import read_orders, watch
from actors.process import Process
from actors.runtime import Incarnation
from actors.shortage import NoThreadError
from actors.stdio import print_whole_lines

if TYPE_CHECKING:
    from actors.spec import Construction, GroupSpec
    from actors.transport.acceptor import Visitor

FAREWELL_SECONDS = 2.0
EXIT_SECONDS = 10.0
IDLE_SECONDS = 0.5  # after which a spare loads ahead; before, many actors may be about to be made
AHEAD = "numpy"
"""The module that spares load ahead on a node that has an actor which needs it: most do that need any large one, and it
takes longer than all else that there is to do until an actor is made."""
HANDOVER_SECONDS = 20.0  # for callers that cannot be reached just now


class Worker:
    """Waits for the node to say which actor it shall be, then is that actor until it ends."""

    def __init__(self, orders: dict[str, Any]) -> None:
        self._home = Address(**{**orders["home"], "doors": tuple(orders["home"]["doors"])})
        self._loads_ahead: bool = orders["loads_ahead"]
        self._node_name: str = orders["node_name"]
        folder = Path(orders["folder"])
        self.process = Process(orders["id"], folder, self._home.node, self._node_name, _credentials(orders))
        self.process.home = self._home
        self.process.directory[self._home.node] = self._home
        self.process.serve("worker", self)
        self.process.on_gone = self._visitor_gone
        self._instance: Instance | None = None
        self._construction: Construction | None = None  # what it was made by, but for what is large
        self._assigned = threading.Event()

    async def assign(self, _: Visitor, actor: str, namespace: str, node_name: str) -> None:
        """Service call of the node, which is called so now: this process is to be the actor with this id."""
        self.process.namespace = namespace
        self._node_name = node_name
        self.process.address = replace(self.process.address, node_name=node_name)
        self.process.holdings.myself.add(actor)
        self._instance = Instance(actor, self._node_name, self._born, self._abort, self._rooted)
        self.process.targets[actor] = self._instance
        self._assigned.set()

    async def rename(self, _: Visitor, actor: str, name: str) -> None:
        """Service call of the node: the actor has lost its name to another one."""
        runtime.rename(actor, name)

    async def emigrate(self, _: Visitor) -> None:
        """Service call of the node, which is to be closed: the actor asks whoever has charge of it to move it."""
        if self._construction is None or self._construction.keeper is None:
            raise ActorUnavailableError("it is just being made")
        keeper, id = self._construction.keeper, self._construction.spec.id
        await self.process.ask(keeper, "keeper", "move", id, None, timeout=None)

    async def withdraw(self, _: Visitor) -> None:
        """Service call of the node, which is to be closed: this worker of tasks ends after the one that it runs."""
        if self._instance is not None:
            self._instance.withdraw()

    async def enter_group(self, _: Visitor, spec: GroupSpec) -> None:
        """Service call of whoever makes a group of actors that exist: this one is a member of it."""
        from actors.collective.wire import enter_group

        await enter_group(self.process, spec)

    async def leave_group(self, _: Visitor, group: str) -> None:
        """Service call of whoever ends a group: this process's end of it is closed."""
        from actors.collective.context import remove_group

        remove_group(group)

    def _born(self, construction: Construction) -> Incarnation:
        assert self._instance is not None
        self._construction = replace(construction, code=NOTHING, arguments=NOTHING, state=None)
        actor = Incarnation(construction.spec, construction.group, self._node_name, self._instance.leave)
        runtime.become(actor)
        if not self._loads_ahead and AHEAD in sys.modules:
            self.process.portal.start(self._tell_need())
        if construction.group is not None:
            from actors.collective.wire import join_group

            join_group(self.process, construction.group)
        return actor

    async def _tell_need(self) -> None:
        with contextlib.suppress(ActorDiedError):
            await self.process.ask(self._home, "node", "load_ahead")

    def _rooted(self) -> str | None:
        """Returns why the actor cannot live in another process, if so."""
        from actors.collective.context import groups

        if group := next(iter(groups()), None):
            return f"it is in the group {group}, whose members have their places"
        if made := [charge.spec for charge in self.process.keeper.charges.values() if not charge.spec.task]:
            return f"it has made {made[0].label}, which ends with its process: make it with lifetime='detached'"
        return None

    def _abort(self, ending: Ending) -> None:
        """Ends this process while a method runs that nothing else stops. On the I/O loop."""
        self._aborting = self.process.loop.create_task(self._end_now(ending))

    async def _end_now(self, ending: Ending) -> None:
        await self._leave(ending)
        self._exit(ending.code)

    def _visitor_gone(self, visitor: Visitor) -> None:
        if self._instance is not None:
            self._instance.visitor_gone(visitor.session)

    def serve(self) -> int:
        """Runs until the actor ends by itself. Returns the exit code."""
        runtime.join(self.process)
        self.process.portal.run(self._start())
        if not self._assigned.wait(IDLE_SECONDS) and self._loads_ahead:
            with contextlib.suppress(Exception):  # the actor will say what is wrong with it, if it needs it
                import_module(AHEAD)
        self._assigned.wait()
        assert self._instance is not None
        ending = self._instance.run()
        self.process.portal.run(self._leave(ending))
        return ending.code

    async def _start(self) -> None:
        await self.process.listen()
        await self.process.ask(self._home, "node", "ready", self.process.address)

    async def _leave(self, ending: Ending) -> None:
        # Calls and replies on their way are let out; whoever does not take them in time will find the process ended.
        moved = ending.moved and await self._has_told_all()
        with contextlib.suppress(TimeoutError, ActorDiedError):
            self.process.recorder.flush()
            async with asyncio.timeout(FAREWELL_SECONDS):
                last = (self.process.id, ending.epitaph, ending.intended, moved)
                await self.process.ask(self._home, "node", "ending", *last)
                await self.process.flushed()

    async def _has_told_all(self) -> bool:
        """Waits until every caller has its answers; then what it has no answer to was never begun here."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(HANDOVER_SECONDS):
                await self.process.flushed()
                while not self.process.acceptor.idle:  # noqa: ASYNC110 - nothing tells of it
                    await asyncio.sleep(0.05)
        return self.process.acceptor.idle and not self.process.acceptor.has_lost

    def parent_gone(self) -> None:
        """The node has ended, or wants this process to end."""
        self._exit(0)

    def close(self, code: int) -> None:
        """Ends this process as a program ends, with its exit handlers, for which it has a while."""
        self.process.later(EXIT_SECONDS, partial(self._exit, code))
        # By hand, since the interpreter itself would first wait for threads that a method has left behind.
        atexit._run_exitfuncs()  # noqa: SLF001 - there is no public way
        with contextlib.suppress(TimeoutError):  # they may have called somebody
            self.process.portal.run(self.process.flushed(), FAREWELL_SECONDS)
        sys.stdout.flush()
        sys.stderr.flush()
        self._exit(code)

    def _exit(self, code: int) -> None:
        with contextlib.suppress(OSError):
            os.unlink(self.process.address.socket)
        if self.process.arena is not None:
            self.process.arena.clear()
        os._exit(code)


def _credentials(orders: dict[str, Any]) -> Any:
    if orders["identity"] is None:
        return None
    from actors.membership import credentials_from

    return credentials_from(Path(orders["identity"]))


def _extend_path(folders: list[str]) -> None:
    """Puts the folders of a `runtime_env` before all others, for this process and those it starts.

    Not earlier: a queue.py in one of them is not meant for what this process needs to start.
    """
    if folders:
        sys.path[:0] = folders
        inherited = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = os.pathsep.join([*folders, *([inherited] if inherited else [])])


def main() -> None:
    """Runs a worker by the orders on standard input."""
    print_whole_lines()
    # What it stands at, for one whose interpreter is busy in one long step; see `actors.inspection`.
    faulthandler.register(signal.SIGUSR1, file=2, all_threads=True)
    log_as_wished()
    orders, parent = read_orders()
    try:
        worker = Worker(orders)
        watch(parent, worker.parent_gone)
    except NoThreadError as error:
        sys.exit(str(error))
    enable_debugging(worker.process)
    _extend_path(orders["path"])
    worker.close(worker.serve())


if __name__ == "__main__":
    main()
