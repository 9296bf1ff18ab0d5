"""The host: the actor whose process light actors share."""

from __future__ import annotations

import asyncio
import os
from collections import OrderedDict
from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn

from actors import runtime
from actors.exceptions import ActorDiedError, Verdict
from actors.instance import Ending
from actors.light import LightInstance, Stage
from actors.messages import CONSTRUCT, WATCH, Call, Cancel, Outcome, Payload, Reply
from actors.process import LOBBY
from actors.runtime import Incarnation
from actors.serialize import dumps
from actors.transport.peer import Death

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors.messages import Calls, Message
    from actors.process import Process
    from actors.runtime import Running
    from actors.spec import ActorSpec, Construction
    from actors.transport.acceptor import Visitor
    from actors.transport.answers import Answers
    from actors.transport.bell import Bell

REMEMBERED_ENDS = 10_000
_LONG_GONE = Ending(0, "it has ended long ago", intended=True)

Key = tuple[str, int]


class Host:
    """Makes its process one that takes light actors in, and is otherwise idle."""

    def __init__(self) -> None:
        process, me = runtime.joined(), runtime.myself()
        assert process is not None
        assert me is not None
        # Threads that light actors start by themselves belong to none of them, as far as can be told.
        runtime.become(replace(me, leave=_refuse_to_leave))
        process.portal.run(self._open(process, me))

    @staticmethod
    async def _open(process: Process, me: Incarnation) -> None:
        lobby = Lobby(process, me.node)
        process.targets[LOBBY] = lobby
        process.serve("lights", Lights(lobby))
        before = process.on_gone

        def gone(visitor: Visitor) -> None:
            lobby.visitor_gone(visitor)
            if before is not None:
                before(visitor)

        process.on_gone = gone

    def pid(self) -> int:
        """Returns its process's id: light actors can come."""
        return os.getpid()


def _refuse_to_leave() -> NoReturn:
    raise TypeError("exit_actor() was called on a thread of a light actor's own, which does not say whose: call it in "
                    "the method itself")  # fmt: skip


class Gate:
    """Lets the answers of light actors out to one visitor. See `actors.job.Visitor`."""

    def __init__(self, visitor: Visitor, answered: Callable[[Key], None]) -> None:
        self.session, self.process, self.minor = visitor.session, visitor.process, visitor.minor
        self._visitor = visitor
        self._answered = answered

    def post(self, message: Message) -> None:
        """Sends a message, from any thread."""
        if isinstance(message, Reply):
            self._answered((self.session, message.number))
        self._visitor.post(message)

    def lead(self, done: Callable[[], bool], seconds: float, bell: Bell) -> None:
        """See `actors.job.Visitor`."""
        self._visitor.lead(done, seconds, bell)


class Lobby:
    """Takes the calls for the light actors of this process; see `actors.service.Target`. Only on the I/O loop.

    The owner numbers their lives in the order in which it has them made. A call for a number that is still to come
    has overtaken the owner's, and waits; one for a number that was and is no more is refused.

    Args:
        process: this process.
        node: name of its node.
    """

    def __init__(self, process: Process, node: str) -> None:
        self._process = process
        self._node = node
        self._stage = Stage(process.later)
        self._guests: dict[str, _Guest] = {}
        self._ends: OrderedDict[str, tuple[Ending, ActorDiedError | None]] = OrderedDict()
        self._routes: dict[Key, _Guest] = {}
        self._gates: dict[str, Gate] = {}
        self._last = 0

    # -- as the target of calls ---------------------------------------------------------------------------------

    def called(self, call: Call, visitor: Visitor) -> None:
        """See `Target`."""
        number = _number(call.target)
        if number is None:
            error = ActorDiedError(f"{call.target} is not here any more", verdict=Verdict.NEVER_STARTED)
            visitor.post(Reply(call.number, Outcome.NEVER_STARTED, dumps(error)))
            return
        guest = self._guests.get(call.target)
        if guest is None:
            if number <= self._last or call.target in self._ends:
                self._answer_for_the_dead(call, visitor)
                return
            guest = self._guests[call.target] = _Guest(self, call.target)
        if call.method == CONSTRUCT:
            self._last = number
        if call.method == WATCH:
            guest.watchers.append((visitor, call.number))
            return
        gate = self._gates.get(visitor.session)
        if gate is None:
            gate = self._gates[visitor.session] = Gate(visitor, self._answered)
        self._routes[visitor.session, call.number] = guest
        guest.instance.called(call, gate)

    def called_together(self, _calls: Calls, _visitor: Answers) -> bool:
        """See `Target`."""
        return False

    def anywhere(self, _: Call | Calls) -> bool:
        """See `Target`."""
        return False

    def _answered(self, key: Key) -> None:
        self._routes.pop(key, None)

    def _answer_for_the_dead(self, call: Call, visitor: Visitor) -> None:
        ending, refusal = self._ends.get(call.target, (_LONG_GONE, None))
        if call.method == WATCH:
            visitor.post(Reply(call.number, Outcome.VALUE, self._death(ending)))
        else:
            never = Verdict.NEVER_STARTED
            error = refusal or ActorDiedError(f"{call.target}: {ending.epitaph}", node=self._node, verdict=never)
            visitor.post(Reply(call.number, Outcome.ENDED, dumps(error)))

    def credited(self, session: str, number: int, upto: int) -> None:
        """See `Target`."""
        guest = self._routes.get((session, number))
        if guest is not None:
            guest.instance.credited(session, number, upto)

    def cancelled(self, session: str, cancel: Cancel) -> None:
        """See `Target`."""
        guest = self._routes.get((session, cancel.number))
        if guest is not None:
            guest.instance.cancelled(session, cancel)

    def in_the_way(self, key: Key) -> Running | None:
        """See `Target`."""
        guest = self._routes.get(key)
        return guest.instance.in_the_way(key) if guest is not None else None

    def visitor_gone(self, visitor: Visitor) -> None:
        """Nobody reads the answers of this session any more."""
        session = visitor.session
        self._gates.pop(session, None)
        for key in [key for key in self._routes if key[0] == session]:
            self.cancelled(session, Cancel(key[1], recursive=False))
        for guest in self._guests.values():
            guest.watchers = [watcher for watcher in guest.watchers if watcher[0] is not visitor]

    # -- how light actors live and end --------------------------------------------------------------------------

    def make(self, guest: _Guest) -> LightInstance:
        """Returns the instance of a light actor that has nothing yet but its number."""
        return LightInstance(
            guest.id,
            self._node,
            guest.born,
            self._stage,
            lambda ending: self._process.portal.soon(self._over, guest, ending),
        )

    @property
    def node(self) -> str:
        """Name of the node."""
        return self._node

    async def kill(self, id: str, no_restart: bool) -> None:
        """Ends a light actor at once; returns when that is known, its name is free, and what it has made has ended."""
        guest = self._guests.get(id)
        if guest is None:
            return
        guest.instance.cut_off(Ending(1, "it was killed by actors.kill", intended=no_restart))
        await guest.gone.wait()
        if guest.ending:
            await asyncio.wait(guest.ending)
        spec = guest.spec
        if no_restart and spec is not None and spec.name is not None and self._process.home is not None:
            await self._process.ask(self._process.home, "node", "free_name", spec)

    def _over(self, guest: _Guest, ending: Ending) -> None:
        if self._guests.pop(guest.id, None) is None:
            return
        self._ends[guest.id] = (ending, guest.instance.refusal)
        if len(self._ends) > REMEMBERED_ENDS:
            self._ends.popitem(last=False)
        spec = guest.spec
        if spec is not None and spec.name is not None and not spec.restarts and self._process.home is not None:
            self._process.tell(self._process.home, "node", "free_name", spec)
        for visitor, number in guest.watchers:
            visitor.post(Reply(number, Outcome.VALUE, self._death(ending)))
        for actor in guest.made:
            charge = self._process.keeper.charges.get(actor)
            if charge is not None:
                guest.ending.append(self._process.loop.create_task(charge.kill(True)))
        guest.instance.release()
        guest.gone.set()

    def _death(self, ending: Ending) -> Payload:
        return dumps(Death(ending.epitaph, node=self._node, intended=ending.intended))


class _Guest:
    """One light actor here."""

    def __init__(self, lobby: Lobby, id: str) -> None:
        self.id = id
        self.spec: ActorSpec | None = None
        self.made: list[str] = []
        self.watchers: list[tuple[Visitor, int]] = []
        self.gone = asyncio.Event()
        self.ending: list[asyncio.Task[None]] = []
        self._node = lobby.node
        self.instance = lobby.make(self)

    def born(self, construction: Construction) -> Incarnation:
        """See `actors.instance.Instance`."""
        self.spec = construction.spec
        return Incarnation(construction.spec, None, self._node, self.instance.leave, self.made)


class Lights:
    """The service by which light actors are ended from outside."""

    def __init__(self, lobby: Lobby) -> None:
        self._lobby = lobby

    async def kill(self, _: Visitor, id: str, no_restart: bool) -> None:
        """Ends a light actor at once; returns when it has ended."""
        await self._lobby.kill(id, no_restart)


def _number(target: str) -> int | None:
    kind, _, number = target.partition("-")
    return int(number) if kind == "light" and number.isdecimal() else None
