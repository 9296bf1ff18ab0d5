"""What nodes tell each other of third ones: who is there, who is silent, who has ended. A pure state machine.

After SWIM (Das, Gupta, Motivala: SWIM: Scalable Weakly-consistent Infection-style Process Group Membership Protocol,
2002): a node alone counts its lives up, so that of two things said of it the one of the later life holds; and it
objects where it hears that it is silent or gone, by living once more.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from actors.frozen import travelling

if TYPE_CHECKING:
    from collections.abc import Iterable

    from actors.address import Address
    from actors.nodeinfo import NodeInfo

HERE, SILENT, ENDED = range(3)


class Word(NamedTuple):
    """What is said of a node.

    Attributes:
        node: its id.
        life: counted up by the node itself: when it is started, when something about it changes, and to object.
        state: ``HERE``, ``SILENT`` or ``ENDED``; of one life the later of these holds.
    """

    node: str
    life: int
    state: int


@travelling
@dataclass(frozen=True, slots=True)
class Record:
    """A node as it describes itself.

    Attributes:
        life: in which it did.
        info: what it is.
        where: how to reach it.
    """

    life: int
    info: NodeInfo
    where: Address


class Rumours:
    """What one node has heard.

    Args:
        me: its id.
        life: its first one; the time, so that it is mostly later than that of an earlier start. Where a clock was set
            back, it hears of the earlier one and objects.
    """

    def __init__(self, me: str, life: int) -> None:
        self.me = me
        self._life = life
        self._words: dict[str, Word] = {me: Word(me, life, HERE)}
        self._records: dict[str, Record] = {}
        self._lacking: dict[str, None] = {}  # see `lacking`; ordered, so that a simulation is the same each time
        self.digest = _hashed(self._words[me])  # of all words, in whichever order they came

    def _set(self, word: Word) -> None:
        known = self._words.get(word.node)
        if known is not None:
            self.digest ^= _hashed(known)
        self._words[word.node] = word
        self.digest ^= _hashed(word)
        self._look_at(word.node)

    def _look_at(self, node: str) -> None:
        """Notes whether a node is lacking: of a thousand nodes, a look at all for each piece of news takes long."""
        word = self._words.get(node)
        if word is None or word.state == ENDED or node == self.me or self.knows(node):
            self._lacking.pop(node, None)
        else:
            self._lacking[node] = None

    def publish(self, info: NodeInfo, where: Address) -> Word | None:
        """This node describes itself; returns what is to be told where that is news."""
        known = self._records.get(self.me)
        if known is not None:
            if (known.info, known.where) == (info, where):
                return None
            self._life += 1
        self._records[self.me] = Record(self._life, info, where)
        self._set(Word(self.me, self._life, HERE))
        return self._words[self.me]

    def is_news(self, word: Word) -> bool:
        """Whether a word says what is not known; of this node itself, whether there is something to object to."""
        known = self._words.get(word.node)
        return known is None or (word.life, word.state) > (known.life, known.state)

    def hear(self, word: Word) -> Word | None:
        """Takes in what another node says; returns what is to be told to others, an objection perhaps."""
        if not self.is_news(word):
            return None
        if word.node == self.me:
            self._life = word.life + 1
            mine = self._records.get(self.me)
            if mine is not None:
                self._records[self.me] = Record(self._life, mine.info, mine.where)
            word = Word(self.me, self._life, HERE)
        self._set(word)
        return word

    def say(self, node: str, state: int) -> Word | None:
        """This node has seen itself what has become of another; returns what is to be told where that is news."""
        known = self._words.get(node)
        return self.hear(Word(node, known.life if known is not None else 0, state))

    def take(self, record: Record) -> bool:
        """Takes in how a node describes itself; False where that is old, or is of this node."""
        known = self._records.get(record.info.id)
        if record.info.id == self.me or (known is not None and record.life <= known.life):
            return False
        self._records[record.info.id] = record
        self._look_at(record.info.id)
        return True

    def state(self, node: str) -> int | None:
        """Returns what is said of a node; None where nothing is."""
        word = self._words.get(node)
        return word.state if word is not None else None

    def record(self, node: str) -> Record | None:
        """Returns how a node describes itself, as far as that is known."""
        return self._records.get(node)

    def knows(self, node: str) -> bool:
        """Whether there is a record of the life that is spoken of."""
        word, record = self._words.get(node), self._records.get(node)
        return word is not None and record is not None and record.life >= word.life

    def lacking(self) -> list[str]:
        """Returns the nodes that are said to be there, and of whose present life there is no record."""
        return list(self._lacking)

    def words(self) -> list[Word]:
        """Returns all that is said."""
        return list(self._words.values())

    def newer(self, theirs: Iterable[Word]) -> list[Word]:
        """Returns what another node, which says this, has not heard."""
        said = {word.node: word for word in theirs}
        return [
            word for word in self._words.values()
            if (known := said.get(word.node)) is None or (known.life, known.state) < (word.life, word.state)
        ]  # fmt: skip

    def standing(self) -> list[str]:
        """Returns the nodes that are not said to have ended, this one included."""
        return [word.node for word in self._words.values() if word.state != ENDED]

    def forget(self, node: str) -> None:
        """A node belongs no more."""
        self._records.pop(node, None)
        if (word := self._words.pop(node, None)) is not None:
            self.digest ^= _hashed(word)
        self._look_at(node)

    def clear(self) -> None:
        """Forgets what was said of all others."""
        for node in [node for node in self._words if node != self.me]:
            self.forget(node)


def _hashed(word: Word) -> int:
    return int.from_bytes(hashlib.sha256(repr(tuple(word)).encode()).digest()[:8])
