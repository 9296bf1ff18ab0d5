"""Who may have a name, where nodes are too many for each to be asked: three of them know, found by the name's hash.

A node tells these three before it gives an actor a name, and hears which other nodes have told them of that name; those
it asks, as it would ask all where they are few. So of two that claim a name one at least hears of the other. Who may be
wrong is only asked in vain: a node alone says what its actors are called.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from actors.exceptions import ActorDiedError, AuthenticationError
from actors.node.ring import in_order

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from actors.address import Address
    from actors.node.members import Member, Members
    from actors.node.names import Names
    from actors.process import Process
    from actors.transport.acceptor import Visitor

log = logging.getLogger(__name__)

KEEPERS = 3
ASK_SECONDS = 5.0
BOTH_SECONDS = 10.0
"""After nodes have become many, in which all are asked as well: others may not have told of their names yet."""

SETTLE_SECONDS = 0.3
"""After nodes have come or gone, before names are told to those that know them now."""

LOOK_SECONDS = 5.0
"""Between two looks at which names have come and gone."""

ALL_LOOKS = 12
"""Every so many looks all names are told again: who was taken for gone was forgotten."""

Key = tuple[str, str]
"""Namespace and name."""


class Directory:
    """The service ``"directory"`` of a node. On the I/O loop.

    Args:
        process: the node's.
        members: the nodes that are known.
        names: those of this node's actors.
        meets: compares names with a node that may have one of these too.
    """

    def __init__(self, process: Process, members: Members, names: Names, meets: Callable[[Member], None]) -> None:
        self._process = process
        self._members = members
        self._names = names
        self._meets = meets
        self._since: float | None = None  # when nodes became many, on the loop's clock
        self._kept: dict[Key, set[str]] = {}  # which nodes have told of a name
        self._told: dict[Key, set[str]] = {}  # which processes know it of this node
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        members.watchers.append(self._look)

    def close(self) -> None:
        """Tells nobody any more."""
        if self._task is not None:
            self._task.cancel()

    def _look(self) -> None:
        """A node has come or gone."""
        if not self._members.sparse:
            if self._task is not None:
                self._task.cancel()
                self._task = self._since = None
                self._told.clear()
            return
        self._changed.set()
        if self._task is None:
            self.begin(self._process.loop.time())

    def begin(self, since: float) -> None:
        """Nodes are many since a moment, on the loop's clock."""
        self._since = since
        self._task = self._process.loop.create_task(self._run())

    @property
    def asks_all(self) -> bool:
        """Whether all nodes are to be asked for a name."""
        return self._since is None or self._process.loop.time() < self._since + BOTH_SECONDS

    # -- asking -------------------------------------------------------------------------------------------------

    def _keepers(self, key: Key) -> list[Member]:
        return in_order("/".join(key), self._members.standing())[:KEEPERS]

    async def claimants(self, key: Key) -> list[Member]:
        """Tells of a name that this node is about to give; returns the others that may have it."""
        self._told.setdefault(key, set())
        found = await asyncio.gather(*(self._index(member, [key]) for member in self._keepers(key)))
        return self._known(node for nodes in found for node in nodes)

    async def holders(self, key: Key) -> list[Member]:
        """Returns the other nodes that may have an actor of a name."""
        asks = (self._ask(member, "having", key) for member in self._keepers(key) if member is not self._members.me)
        found = [self._kept.get(key, set()), *(await asyncio.gather(*asks))]
        return self._known(node for nodes in found if nodes is not None for node in nodes)

    def _known(self, nodes: Iterable[str]) -> list[Member]:
        found = (self._members.find(node) for node in sorted(set(nodes)))
        return [
            member for member in found if member is not None and member.info.alive and member is not self._members.me
        ]

    async def _index(self, member: Member, keys: list[Key]) -> set[str]:
        """Has a node know these names of this one; returns which others may have one of them."""
        me = self._members.me
        if member is me:
            found: list[str] | None = self._keep(me.info.id, keys)
        else:
            found = await self._ask(member, "keep", me.where, keys)
        if found is None:
            return set()
        for key in keys:
            self._told.setdefault(key, set()).add(member.where.process)
        return set(found)

    async def _ask(self, member: Member, method: str, *args: object) -> list[str] | None:
        try:
            found: list[str] = await self._process.ask(member.where, "directory", method, *args, timeout=ASK_SECONDS)
        except (TimeoutError, ActorDiedError, AuthenticationError) as error:
            log.info("node %s was not asked who has a name: %s", member.info.name, error)
            return None
        return found

    # -- keeping up ---------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        looks = 0
        while True:
            try:
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._changed.wait()
                await asyncio.sleep(SETTLE_SECONDS)
            except TimeoutError:
                looks += 1
                if looks % ALL_LOOKS == 0:
                    self._told = {key: set() for key in self._told}
            self._changed.clear()
            self._forget_ended()
            await self._tell()

    async def _tell(self) -> None:
        """Has those know of this node's names that are to keep them now."""
        claimed = {(namespace, name) for namespace, name, _, _ in self._names.claims()}
        lots: dict[str, tuple[Member, list[Key]]] = {}
        for key in sorted(claimed):
            for member in self._keepers(key):
                if member.where.process not in self._told.get(key, ()):
                    lots.setdefault(member.info.id, (member, []))[1].append(key)
        found = await asyncio.gather(*(self._index(member, keys) for member, keys in lots.values()))
        for member in self._known(node for nodes in found for node in nodes):
            self._meets(member)
        over = [key for key in self._told if key not in claimed]
        known = {member.where.process: member for member in self._members.alive()}
        for key in over:
            for process in sorted(self._told.pop(key)):
                if process == self._members.me.where.process:
                    self._drop(self._members.me.info.id, key)
                elif process in known:
                    self._process.tell(known[process].where, "directory", "drop", self._members.me.where, key)

    def _forget_ended(self) -> None:
        ended = {member.info.id for member in self._members.all() if member.ended}
        for key in [key for key, nodes in self._kept.items() if nodes & ended]:
            for node in self._kept[key] & ended:
                self._drop(node, key)

    # -- service ------------------------------------------------------------------------------------------------

    def _keep(self, node: str, keys: Iterable[Key]) -> list[str]:
        found: set[str] = set()
        for key in keys:
            nodes = self._kept.setdefault(key, set())
            found |= nodes - {node}
            nodes.add(node)
        return sorted(found)

    def _drop(self, node: str, key: Key) -> None:
        nodes = self._kept.get(key, set())
        nodes.discard(node)
        if not nodes:
            self._kept.pop(key, None)

    async def keep(self, _: Visitor, where: Address, keys: list[Key]) -> list[str]:
        """A node has these names, or is about to; returns the ids of others that may have one of them."""
        return self._keep(where.node, [(namespace, name) for namespace, name in keys])

    async def drop(self, _: Visitor, where: Address, key: Key) -> None:
        """A node does not have a name any more."""
        self._drop(where.node, (key[0], key[1]))

    async def having(self, _: Visitor, key: Key) -> list[str]:
        """Returns the ids of nodes that may have a name."""
        return sorted(self._kept.get((key[0], key[1]), ()))
