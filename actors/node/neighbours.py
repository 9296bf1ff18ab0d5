"""Many nodes: each looks after a few, its neighbours on a ring, and hears of the others what their neighbours say.

Up to `MESH_LIMIT` nodes none of this is at work: each is connected with all others. Beyond, a node keeps connections to
its neighbours and to those that it speaks to. What it sees of a neighbour it tells its others, unless one that looks
after the same node still has a connection with it; what is new to who hears it is told on. Who hears that it is gone
itself objects. So a death is everywhere in a few steps from neighbour to neighbour, within a second of its being seen.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from typing import TYPE_CHECKING

from actors.exceptions import ActorDiedError, AuthenticationError
from actors.node.ring import Ring
from actors.node.rumours import ENDED, HERE, SILENT, Record, Rumours, Word

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable
    from typing import Any

    from actors.address import Address
    from actors.node.members import Member, Members
    from actors.process import Process
    from actors.transport.acceptor import Visitor

log = logging.getLogger(__name__)

MESH_LIMIT = 128
"""Up to so many nodes each is connected with all others; see docs/scale.md."""

FEWER = 0.75
"""Of the limit: with so few nodes they are connected with all others again."""

TICK_SECONDS = 1.0
SETTLE_SECONDS = 0.1
"""After somebody has come or gone, before neighbours are chosen anew: many may come at once."""

TELL_SECONDS = 0.02
"""In which news are gathered."""

COMPARE_TICKS = 30
REST_TICKS = 60
AGAIN_TICKS = 5
SEES_SECONDS = 1.0
ASK_SECONDS = 5.0
DOUBT_SECONDS = (2.0, 30.0)
"""Between two questions to others whether they are still connected with a node that this one is not, growing."""

ASKED = 3
MOST_MET = 16
"""Nodes at a time that are announced; see `Members.found_at`."""

RECORDS = 100
"""In one answer."""


class Neighbours:
    """The service ``"neighbours"`` of a node. On the I/O loop.

    Args:
        process: the node's.
        members: the nodes that are known.
        limit: see `MESH_LIMIT`.
    """

    def __init__(self, process: Process, members: Members, limit: int = MESH_LIMIT) -> None:
        self.limit = limit
        self._process = process
        self._members = members
        self._me = members.me.info.id
        self._rumours = Rumours(self._me, int(time.time() * 1000))
        self._ring = Ring([self._me])
        self._wanted: list[str] = []  # a list, so that a simulation is the same each time
        self._news: dict[str, Word] = {}  # by node, to be told
        self._telling: asyncio.TimerHandle | None = None
        self._settling: asyncio.TimerHandle | None = None
        self._running: asyncio.Task[None] | None = None
        self._judging: dict[str, asyncio.Task[None]] = {}
        self._fetching: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._objected = float("-inf")  # when, on the loop's clock
        self._unanswered: Word | None = None  # what it is still to object to
        self._closed = False
        members.wanted = self._wants
        members.on_verdict = self._judge
        members.on_joined.append(self._joined)
        members.watchers.append(self._changed)

    def close(self) -> None:
        """Looks after nobody any more."""
        self._closed = True
        for timer in (self._telling, self._settling):
            if timer is not None:
                timer.cancel()
        for task in [*self._tasks, *self._judging.values()]:
            task.cancel()
        if self._running is not None:
            self._running.cancel()

    def _in_background(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._process.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # -- how many there are -------------------------------------------------------------------------------------

    def _count(self) -> int:
        standing = sum(not member.ended for member in self._members.all())
        return max(standing, len(self._rumours.standing()), self._members.belonging())

    def _changed(self) -> None:
        """A node has come or gone."""
        if self._closed:
            return
        if not self._members.sparse and self._count() > self.limit:
            self._begin()
        if self._members.sparse and self._settling is None:
            self._settling = self._process.loop.call_later(SETTLE_SECONDS, self._settle)

    def _begin(self) -> None:
        log.info("there are more than %d nodes: this one looks after its neighbours from now on", self.limit)
        self._members.sparse = True
        self._publish()
        self._running = self._process.loop.create_task(self._run())

    def _end(self) -> None:
        log.info("there are few nodes: this one is connected with all of them from now on")
        self._members.sparse = False
        self._rumours.clear()
        self._wanted.clear()
        if self._running is not None:
            self._running.cancel()
            self._running = None
        for member in self._members.standing():
            if member is not self._members.me and member.peer is None:
                self._members.watch(member)

    async def _run(self) -> None:
        tick = 0
        while True:
            await asyncio.sleep(TICK_SECONDS)
            tick += 1
            try:
                await self._tick(tick)
            except Exception:  # ours, but what is new shall be told all the same
                log.exception("looking after neighbours has failed; it is tried again")

    async def _tick(self, tick: int) -> None:
        self._publish()
        self._process.bury_nodes()
        if (said := self._unanswered) is not None:
            self._unanswered = None
            self._take([said], "")
        if self._rumours.lacking() and (found := self._watched()):
            self._in_background(self._fetch(random.choice(found).where))  # noqa: S311 - nothing secret
        if tick % AGAIN_TICKS == 0:
            self._settle()
            self._look_again()
        if tick % COMPARE_TICKS == 0 and (found := self._watched()):
            self._in_background(self._compare(random.choice(found)))  # noqa: S311 - as above
        if tick % REST_TICKS == 0:
            await self._process.rest(self._wanted.__contains__)

    # -- neighbours ---------------------------------------------------------------------------------------------

    def _watched(self) -> list[Member]:
        return [member for member in self._members.alive() if member.linked]

    def _wants(self, node: str, proved: bool) -> bool:
        """Whether a node is to be met that is said to be somewhere."""
        if not self._members.sparse and self._members.belonging() > self.limit:
            self._begin()
        if not self._members.sparse:
            return True
        if self._members.joining() >= MOST_MET and not proved:
            return False  # where a thousand are announced at once, the first to answer tell of the others
        if proved and self._rumours.state(node) in {None, ENDED}:
            return True
        return node in self._wanted or node in self._ring.joined_by(node).neighbours(self._me)

    def _standing(self) -> set[str]:
        """All that are there, though this node may not reach them."""
        known = {member.info.id for member in self._members.standing() if self._rumours.state(member.info.id) != ENDED}
        return known | {node for node in self._rumours.standing() if self._members.find(node) is not None}

    def _settle(self) -> None:
        """Looks after those that are neighbours now."""
        if self._settling is not None:
            self._settling.cancel()
            self._settling = None
        if self._closed or not self._members.sparse:
            return
        if self._count() <= self.limit * FEWER:
            self._end()
            return
        self._forget_removed()
        self._ring, before = Ring(self._standing()), self._wanted
        self._wanted = self._ring.neighbours(self._me)
        for node in self._wanted:
            if node not in before and (member := self._members.find(node)) is not None and member.linked:
                self._in_background(self._compare(member))
        for member in self._members.all():
            node = member.info.id
            if member is self._members.me:
                continue
            if node in self._wanted:
                if member.peer is None and not member.ended:
                    self._members.watch(member)
                continue
            if member.peer is not None and self._rumours.knows(node):
                self._members.unwatch(member)  # others know it as well
            if not member.info.alive and member.peer is None:
                self._apply(node)  # what was seen here counts no more

    def _forget_removed(self) -> None:
        for word in self._rumours.words():
            if word.node != self._me and not self._may_come(word.node):
                self._rumours.forget(word.node)

    def _may_come(self, node: str) -> bool:
        return self._members.trusted is None or self._members.trusted(node)

    def _look_again(self) -> None:
        """Tries neighbours which this node has given up, and others have not."""
        for node in self._wanted:
            member = self._members.find(node)
            if member is not None and member.ended:
                self._members.found_at(member.where)

    def _joined(self, member: Member) -> None:
        if self._members.sparse:
            self._in_background(self._compare(member))

    # -- what is told -------------------------------------------------------------------------------------------

    def _publish(self) -> None:
        me = self._members.me
        self._spread(self._rumours.publish(me.info, me.where))

    def _spread(self, word: Word | None) -> None:
        if word is None:
            return
        self._news[word.node] = word
        if self._telling is None and not self._closed:
            self._telling = self._process.loop.call_later(TELL_SECONDS, self._tell)

    def _tell(self) -> None:
        self._telling = None
        news, self._news = list(self._news.values()), {}
        for node in self._wanted or Ring(self._standing()).neighbours(self._me):
            member = self._members.find(node)
            if member is not None and member.peer is not None:
                self._process.tell(member.where, "neighbours", "hear", self._members.me.where, news)

    def _take(self, words: Iterable[Word], why: str) -> None:
        """Takes in what was heard, and tells it on where it is new."""
        for word in words:
            if word.node != self._me and not self._may_come(word.node):
                continue
            if word.node == self._me and self._is_soon(word):
                continue
            news = self._rumours.hear(word)
            if news is None:
                continue
            if word.node == self._me or word.state != HERE or self._rumours.knows(word.node):
                self._spread(news)
            if word.node != self._me:
                self._apply(word.node, why)
        self._changed()

    def _is_soon(self, word: Word) -> bool:
        """Whether an objection must wait: a copy of this device, which says the same of itself, goes on for ever."""
        if self._rumours.is_news(word):
            now = self._process.loop.time()
            if now < self._objected + TICK_SECONDS:
                self._unanswered = word
                return True
            self._objected = now
        return False

    def _apply(self, node: str, why: str = "") -> None:
        """Has members know what is said of a node."""
        if not self._members.sparse:
            return
        state, record, member = self._rumours.state(node), self._rumours.record(node), self._members.find(node)
        if state == ENDED:
            if member is not None:
                self._members.said_ended(member, f"its neighbours have lost it{why}")
            return
        if record is not None and self._rumours.knows(node):
            anew = member is None or member.where.process != record.where.process
            if state == HERE or anew:
                self._members.said_here(record.info, record.where)
        if state == SILENT and (member := self._members.find(node)) is not None:
            self._members.said_silent(member)

    async def _fetch(self, where: Address) -> None:
        """Asks for what nodes are that are said to be there."""
        lacking = [node for node in self._rumours.lacking() if node not in self._fetching]
        self._fetching.update(lacking)
        try:
            for begin in range(0, len(lacking), RECORDS):
                wanted = lacking[begin : begin + RECORDS]
                found = await self._process.ask(where, "neighbours", "records", wanted, timeout=ASK_SECONDS)
                self._keep(found)
        except (TimeoutError, ActorDiedError, AuthenticationError) as error:
            log.info("what other nodes are was not told by node %s: %s", where.node_name, error)
        finally:
            self._fetching.difference_update(lacking)

    def _keep(self, records: list[Record]) -> None:
        """Takes in what nodes are, and tells on that they are there."""
        for record in records:
            node = record.info.id
            if self._rumours.take(record):
                self._rumours.hear(Word(node, record.life, HERE))
                if self._rumours.state(node) == HERE:
                    self._spread(Word(node, record.life, HERE))
                self._apply(node)
        if not self._members.sparse:  # it begins to be, or it meets them itself
            self._changed()
            for record in records:
                if self._members.sparse:
                    self._apply(record.info.id)
                else:
                    self._members.found_at(record.where)

    async def _compare(self, member: Member) -> None:
        """Hears all that another node has heard, and tells it what it has not."""
        try:
            theirs = await self._process.ask(
                member.where, "neighbours", "compare", self._rumours.digest, timeout=ASK_SECONDS
            )
            if theirs is None:
                return
            newer = self._rumours.newer(theirs)
            self._take(theirs, "")
            if newer:
                self._process.tell(member.where, "neighbours", "hear", self._members.me.where, newer)
            await self._fetch(member.where)
        except ActorDiedError:
            self._introduce(member)
        except (TimeoutError, AuthenticationError) as error:
            log.info("what is known of other nodes was not compared with node %s: %s", member.info.name, error)

    def _introduce(self, member: Member) -> None:
        """A node that does not speak of others, since it is of an earlier version, is told of in its stead."""
        life = int(time.time() * 1000)
        if member.linked and self._rumours.state(member.info.id) in {None, ENDED}:
            self._keep([Record(life, member.info, member.where)])

    # -- what is seen -------------------------------------------------------------------------------------------

    def _judge(self, member: Member) -> None:
        """A node that is watched here is silent, or has ended."""
        if not self._members.sparse or self._closed:
            return
        before = self._judging.pop(member.info.id, None)
        if before is not None:
            before.cancel()
        task = self._in_background(self._tell_lost(member))
        self._judging[member.info.id] = task

    async def _tell_lost(self, member: Member) -> None:
        """Tells that a node is lost, once no other that looks after it is connected with it."""
        id, pause = member.info.id, DOUBT_SECONDS[0]
        while self._members.find(id) is member and not member.info.alive and not member.linked:
            state = ENDED if member.ended else SILENT
            if (self._rumours.state(id) or HERE) >= state:
                return
            if not await self._is_seen(member):
                if self._members.find(id) is member and not member.info.alive:
                    self._spread(self._rumours.say(id, state))
                return
            await asyncio.sleep(pause)
            pause = min(pause * 2, DOUBT_SECONDS[1])

    async def _is_seen(self, member: Member) -> bool:
        """Whether another node that looks after this one is connected with it."""
        near = [other for node in self._ring.near(member.info.id) if (other := self._members.find(node)) is not None]
        asked = [other for other in near if other is not self._members.me and other.info.alive][:ASKED]
        answers = await asyncio.gather(*(self._ask_whether(other, member) for other in asked))
        return any(answers)

    async def _ask_whether(self, other: Member, member: Member) -> bool:
        try:
            seen: bool = await self._process.ask(
                other.where, "neighbours", "sees", member.info.id, member.where.process, timeout=SEES_SECONDS
            )
        except (TimeoutError, ActorDiedError, AuthenticationError):
            return False
        return seen

    # -- service ------------------------------------------------------------------------------------------------

    def _check(self, visitor: Visitor) -> None:
        if visitor.node is not None and not self._may_come(visitor.node):
            raise AuthenticationError("this device is no member of the cluster")

    async def hear(self, visitor: Visitor, where: Address, words: list[Word]) -> None:
        """A neighbour tells its news."""
        self._check(visitor)
        if not self._members.sparse and self._count() > self.limit * FEWER:
            self._begin()  # others are connected with few already
        self._take(words, f", says node {where.node_name}")
        if self._rumours.lacking():
            await self._fetch(where)

    async def records(self, visitor: Visitor, nodes: list[str]) -> list[Record]:
        """Returns how these nodes describe themselves, as far as that is known."""
        self._check(visitor)
        if self._rumours.record(self._me) is None:
            self._publish()
        found = (self._rumours.record(node) for node in nodes[:RECORDS])
        return [record for record in found if record is not None]

    async def compare(self, visitor: Visitor, digest: int) -> list[Word] | None:
        """Returns all that this node has heard; None where the other has heard the same."""
        self._check(visitor)
        if self._rumours.record(self._me) is None:
            self._publish()
        return None if digest == self._rumours.digest else self._rumours.words()

    async def sees(self, visitor: Visitor, node: str, process: str) -> bool:
        """Whether this node is connected with a process of another one."""
        self._check(visitor)
        member = self._members.find(node)
        return member is not None and member.where.process == process and member.linked
