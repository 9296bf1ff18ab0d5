"""The names of a node's actors. A short name is unique among the nodes that reach each other. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from actors.spec import ActorSpec

Claim = tuple[str, str, str, bool]
"""Of a node: namespace, name, id of the actor, and whether it has the name or is only about to."""


class Names:
    """Who has which name; a pure state machine.

    A name is reserved first, then the other nodes are asked, then it is confirmed. Of two that reserve one name on
    two nodes at once, the actor with the lower id gets it.

    Where nodes that were cut off from each other meet again, two actors may have one name: the one with the lower id
    keeps it, and the other is set aside. It is found by its node's name before its own from then on.
    """

    def __init__(self) -> None:
        self._held: dict[tuple[str, str], ActorSpec] = {}
        self._reserved: dict[tuple[str, str], ActorSpec] = {}
        self._aside: dict[tuple[str, str], ActorSpec] = {}

    def _tables(self) -> tuple[dict[tuple[str, str], ActorSpec], ...]:
        return self._held, self._reserved, self._aside

    def reserve(self, spec: ActorSpec) -> bool:
        """Sets a name aside; False where another actor has it or has set it aside."""
        key = _key(spec)
        if any(key in table and table[key].id != spec.id for table in self._tables()):
            return False
        self._reserved[key] = spec
        return True

    def confirm(self, spec: ActorSpec) -> bool:
        """Gives a name to the actor it was reserved for; False where a better claim has come since."""
        key = _key(spec)
        if self._reserved.get(key) is not spec:
            return False
        self._held[key] = self._reserved.pop(key)
        return True

    def holds(self, name: str, namespace: str, claimant: str) -> bool:
        """Whether the name is taken here, as seen by an actor elsewhere that claims it."""
        key = (namespace, name)
        held = self._held.get(key)
        if held is not None:
            return held.id != claimant  # its own, from an earlier life on this node
        reserved = self._reserved.get(key)
        if reserved is None or reserved.id == claimant:
            return False
        if reserved.id < claimant:
            return True
        del self._reserved[key]
        return False

    def release(self, spec: ActorSpec) -> None:
        """Frees what the actor held or had reserved."""
        for table in self._tables():
            if (held := table.get(_key(spec))) is not None and held.id == spec.id:
                del table[_key(spec)]

    def release_all(self, owner: str) -> None:
        """Frees what the actors of this owner held or had reserved."""
        for spec in [spec for table in self._tables() for spec in table.values()]:
            if spec.owner == owner:
                self.release(spec)

    def find(self, name: str, namespace: str) -> ActorSpec | None:
        """Returns the actor that has the name."""
        return self._held.get((namespace, name))

    def find_here(self, name: str, namespace: str) -> ActorSpec | None:
        """Returns the actor of this node that has the name, or had it until it was set aside."""
        key = (namespace, name)
        return self._held.get(key) or self._aside.get(key)

    def claims(self) -> list[Claim]:
        """Returns what this node says to one that it meets."""
        tables = ((self._held, True), (self._reserved, False))
        return [(*key, spec.id, held) for table, held in tables for key, spec in table.items()]

    def settle(self, theirs: Iterable[Claim]) -> list[ActorSpec]:
        """Takes in what another node claims; returns the actors here that have lost their names.

        A name that an actor has goes before one that is about to be given; of two alike the lower id wins. So every
        node comes to the same end, whichever it meets first.
        """
        lost = []
        for namespace, name, claimant, held in theirs:
            key = (namespace, name)
            mine = self._held.get(key)
            if mine is not None and held and claimant < mine.id:
                lost.append(mine)
                self.set_aside(mine)
            reserved = self._reserved.get(key)
            if reserved is not None and reserved.id != claimant and (held or claimant < reserved.id):
                del self._reserved[key]
        return lost

    def has_given_since(self, told: Iterable[Claim], theirs: Iterable[Claim]) -> bool:
        """Whether a name was given here, since another node was told of it otherwise, that it claims as well."""
        known = {(namespace, name, id) for namespace, name, id, held in told if held}
        for namespace, name, claimant, _ in theirs:
            mine = self._held.get((namespace, name))
            if mine is not None and mine.id != claimant and (namespace, name, mine.id) not in known:
                return True
        return False

    def set_aside(self, spec: ActorSpec) -> None:
        """Another actor elsewhere has the name: this one goes on without."""
        self.release(spec)
        self._aside[_key(spec)] = spec

    def is_aside(self, spec: ActorSpec) -> bool:
        """Whether an actor has lost its name."""
        found = self._aside.get(_key(spec))
        return found is not None and found.id == spec.id

    def all_aside(self, namespace: str | None) -> list[tuple[str, str]]:
        """Returns the names that actors here have lost, as `all` does."""
        return [key for key in self._aside if namespace is None or key[0] == namespace]

    def all(self, namespace: str | None) -> list[tuple[str, str]]:
        """Returns the names in use as (namespace, name); all namespaces where None is given."""
        return [key for key in self._held if namespace is None or key[0] == namespace]


def _key(spec: ActorSpec) -> tuple[str, str]:
    return spec.namespace, spec.name or ""
