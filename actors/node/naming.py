"""How nodes agree on names: before an actor gets one, and when nodes meet that were cut off from each other."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from actors.exceptions import ActorAlreadyExistsError, ActorDiedError
from actors.node.directory import Directory
from actors.node.names import Names

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors.node.members import Member, Members
    from actors.node.names import Claim
    from actors.process import Process
    from actors.spec import ActorSpec
    from actors.transport.acceptor import Visitor

log = logging.getLogger(__name__)

ASK_SECONDS = 5.0
TRIES = 3


class Naming:
    """The service ``"names"`` of a node.

    Args:
        process: the node's.
        members: whom to ask.
        lost: told of each actor here that has lost its name, with its name from now on and the node of the other one.
    """

    def __init__(self, process: Process, members: Members, lost: Callable[[ActorSpec, str, str], None]) -> None:
        self.names = Names()
        self._process = process
        self._members = members
        self._lost = lost
        self._tasks: set[asyncio.Task[None]] = set()
        self.directory = Directory(process, members, self.names, self._met)
        members.on_joined.append(self._met)

    async def claim(self, spec: ActorSpec) -> None:
        """Gives an actor its name, if it has one.

        Raises:
            ActorAlreadyExistsError: another actor has it.
        """
        if spec.name is None or self.names.is_aside(spec):
            return
        try:
            holder = await self._holder(spec) if self.names.reserve(spec) else self._members.me.info.name
        except BaseException:
            self.names.release(spec)
            raise
        if holder is None and self.names.confirm(spec):
            return
        self.names.release(spec)
        if spec.life:  # it was here before; another has taken its name while nobody could reach it
            self._set_aside(spec, holder or "another node")
            return
        raise ActorAlreadyExistsError(
            f"an actor named {spec.name!r} exists in namespace {spec.namespace!r}: take it with "
            f"actors.get_actor({spec.name!r}), or pass get_if_exists=True"
        )

    async def _holder(self, spec: ActorSpec) -> str | None:
        """Returns the name of the node where the name is taken, if there is one. All are asked at once."""
        others = await self.directory.claimants((spec.namespace, spec.name or "")) if self._members.sparse else []
        if self.directory.asks_all:
            others = self._members.others()
        held = await asyncio.gather(*(self._holds(member, spec) for member in others))
        return next((member.info.name for member, holds in zip(others, held, strict=True) if holds), None)

    async def _holds(self, member: Member, spec: ActorSpec) -> bool:
        try:
            holds: bool = await self._process.ask(
                member.where, "names", "holds", spec.name, spec.namespace, spec.id, timeout=ASK_SECONDS
            )
        except (TimeoutError, ActorDiedError) as error:  # one that does not answer is asked when it is back
            log.info("node %s was not asked for a name: %s", member.info.name, error)
            return False
        return holds

    async def where_else(self, name: str, namespace: str) -> list[Member]:
        """Returns the other nodes that may have an actor of this name."""
        return self._members.others() if self.directory.asks_all else await self.directory.holders((namespace, name))

    async def holds(self, _: Visitor, name: str, namespace: str, claimant: str) -> bool:
        """Whether an actor of this node has the name, or claims it with the better right."""
        return self.names.holds(name, namespace, claimant)

    # -- after a cut --------------------------------------------------------------------------------------------

    def _met(self, member: Member) -> None:
        task = self._process.loop.create_task(self._settle(member))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _settle(self, member: Member) -> None:
        for _ in range(TRIES):
            told = self.names.claims()
            try:
                theirs = await self._process.ask(
                    member.where, "names", "settle", self._members.me.info.name, told, timeout=ASK_SECONDS
                )
            except TimeoutError:
                continue
            except ActorDiedError:
                return
            self._take_in(member.info.name, theirs)
            if not self.names.has_given_since(told, theirs):
                return
        log.warning("names were not compared with node %s, which does not answer", member.info.name)

    async def settle(self, _: Visitor, node: str, claims: list[Claim]) -> list[Claim]:
        """Another node, which was not here before, says which names its actors have; returns those of this one's."""
        mine = self.names.claims()
        self._take_in(node, claims)
        return mine

    def _take_in(self, node: str, claims: list[Any]) -> None:
        for spec in self.names.settle(claims):
            self._tell(spec, node)

    def _set_aside(self, spec: ActorSpec, node: str) -> None:
        self.names.set_aside(spec)
        self._tell(spec, node)

    def _tell(self, spec: ActorSpec, node: str) -> None:
        now = f"{self._members.me.info.name}/{spec.name}"
        log.warning("%s has lost its name to an actor on node %s; it is called %s now", spec.label, node, now)
        self._lost(spec, now, node)

    def close(self) -> None:
        """Compares no more."""
        self.directory.close()
        for task in self._tasks:
            task.cancel()
