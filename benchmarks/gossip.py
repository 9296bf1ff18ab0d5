"""Who lives, told by gossip: one node's part in it, as a pure state machine; events in, actions out.

After SWIM (Das, Gupta, Motivala: SWIM: Scalable Weakly-consistent Infection-style Process Group Membership Protocol,
2002). Every period a node pings one other, each once before any twice. One that does not answer is pinged by way of a
few others; one that answers nobody is suspected, and dead when it has not said otherwise in time. What is new rides on
pings and their answers, each piece so often as it takes to reach everybody.

This is how a cluster of thousands would know itself. The runtime does not use it: see docs/scale.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

PERIOD_SECONDS = 1.0
ANSWER_SECONDS = 0.3
HELPERS = 3
"""By way of so many others a silent node is pinged."""

MOST_NEWS = 12
"""Pieces of news in one message."""

TELLINGS = 3.0
"""Each piece is told this many times the logarithm (of base 2) of the number of nodes."""

SUSPICION_PERIODS = 3.0
"""A suspected node has this many times the logarithm (of base 10) of the number of nodes, in periods, to object."""

ALIVE, SUSPECT, DEAD = range(3)
PING, ANSWER, ASK = range(3)


class News(NamedTuple):
    """What is said of a node.

    Attributes:
        node: of which.
        life: counted up by the node itself, when it objects to a suspicion.
        state: ``ALIVE``, ``SUSPECT`` or ``DEAD``; of one life the later of these holds.
    """

    node: int
    life: int
    state: int


class Message(NamedTuple):
    """Something that one node sends another.

    Attributes:
        kind: ``PING``, ``ANSWER``, or ``ASK`` to ping another.
        sender: which node.
        about: the node that is to be pinged, or has been; the receiver itself for a plain ping.
        news: what rides on it.
    """

    kind: int
    sender: int
    about: int
    news: tuple[News, ...]


@dataclass(slots=True)
class Gossip:
    """One node's view of all, and what it does about it.

    Args:
        me: which node.
        known: how many nodes there are; all others are taken for alive until something else is heard.
        chance: decides the order in which others are pinged.
        send: sends a message to a node.
        changed: told of each news that this node believes, where that changes what it thinks.
    """

    me: int
    known: int
    chance: random.Random
    send: Callable[[int, Message], None]
    changed: Callable[[News], None]
    life: int = 0
    _others: dict[int, tuple[int, int]] = field(default_factory=dict)  # life and state, where not (0, ALIVE)
    _news: dict[News, int] = field(default_factory=dict)  # how often each was told
    _suspected: dict[int, float] = field(default_factory=dict)  # until when
    _left: int = 0  # of this node's round of pings
    _at: int = 0
    _step: int = 1
    _pinged: int | None = None
    _asked_for: dict[int, list[int]] = field(default_factory=dict)  # who wants to hear of whom

    def state(self, node: int) -> int:
        """Returns what this node thinks of another."""
        return self._others.get(node, (0, ALIVE))[1]

    def tick(self, now: float) -> None:
        """A period begins."""
        if self._pinged is not None:  # it has answered nobody in the last one
            life, state = self._others.get(self._pinged, (0, ALIVE))
            if state == ALIVE:
                self._hear(News(self._pinged, life, SUSPECT), now)
        for node, until in list(self._suspected.items()):
            if until <= now:
                self._hear(News(node, self._others[node][0], DEAD), now)
        self._pinged = self._next()
        if self._pinged is not None:
            self._say(self._pinged, PING, self._pinged)

    def answer_is_late(self) -> None:
        """The answer to this period's ping is not there: others are asked to try."""
        if self._pinged is None:
            return
        for _ in range(HELPERS):
            helper = self._any()
            if helper is not None and helper != self._pinged:
                self._say(helper, ASK, self._pinged)

    def received(self, message: Message, now: float) -> None:
        """A message has come."""
        for news in message.news:
            self._hear(news, now)
        if message.kind == PING:
            self._say(message.sender, ANSWER, self.me)
        elif message.kind == ASK:
            self._asked_for.setdefault(message.about, []).append(message.sender)
            self._say(message.about, PING, message.about)
        else:
            if message.about == self._pinged:
                self._pinged = None
            for asker in self._asked_for.pop(message.about, ()):
                self._say(asker, ANSWER, message.about)

    def joins(self, node: int, now: float) -> None:
        """This node has let another in, which nobody else knows."""
        self._hear(News(node, 1, ALIVE), now)

    def _hear(self, news: News, now: float) -> None:
        if news.node == self.me:
            if news.state != ALIVE and news.life >= self.life:  # it lives, and says so
                self.life = news.life + 1
                self._tell(News(self.me, self.life, ALIVE))
            return
        known = self._others.get(news.node, (0, ALIVE))
        if (news.life, news.state) <= known:
            return
        self._others[news.node] = news.life, news.state
        if news.node >= self.known:
            self.known, self._left = news.node + 1, 0
        if news.state == SUSPECT:
            patience = SUSPICION_PERIODS * max(1.0, math.log10(self.known)) * PERIOD_SECONDS
            self._suspected[news.node] = now + patience
        else:
            self._suspected.pop(news.node, None)
        self._tell(news)
        self.changed(news)

    def _tell(self, news: News) -> None:
        for older in [older for older in self._news if older.node == news.node]:
            del self._news[older]
        self._news[news] = 0

    def _say(self, node: int, kind: int, about: int) -> None:
        self.send(node, Message(kind, self.me, about, self._freshest()))

    def _freshest(self) -> tuple[News, ...]:
        if not self._news:
            return ()
        chosen = sorted(self._news, key=self._news.__getitem__)[:MOST_NEWS]
        enough = TELLINGS * math.log2(max(2, self.known))
        for news in chosen:
            self._news[news] += 1
            if self._news[news] >= enough:
                del self._news[news]
        return tuple(chosen)

    def _next(self) -> int | None:
        """Returns whom to ping: each once before any twice, in an order of this node's own."""
        for _ in range(self.known):
            if not self._left:  # a permutation that takes no memory: a step that shares no factor with the number
                self._left = self.known
                self._at = self.chance.randrange(self.known)
                self._step = 1 + self.chance.randrange(self.known)
                while math.gcd(self._step, self.known) > 1:
                    self._step += 1
            self._left -= 1
            self._at = (self._at + self._step) % self.known
            if self._at != self.me and self.state(self._at) != DEAD:
                return self._at
        return None

    def _any(self) -> int | None:
        for _ in range(10):
            node = self.chance.randrange(self.known)
            if node != self.me and self.state(node) == ALIVE:
                return node
        return None
