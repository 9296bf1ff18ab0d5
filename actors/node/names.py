"""The names of a node's actors. A short name is unique among the nodes that reach each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from actors.spec import ActorSpec


class Names:
    """Who has which name; a pure state machine.

    A name is reserved first, then the other nodes are asked, then it is confirmed. Of two that reserve one name on
    two nodes at once, the actor with the lower id gets it.
    """

    def __init__(self) -> None:
        self._held: dict[tuple[str, str], ActorSpec] = {}
        self._reserved: dict[tuple[str, str], ActorSpec] = {}

    def reserve(self, spec: ActorSpec) -> bool:
        """Sets a name aside; False where another actor has it or has set it aside."""
        key = _key(spec)
        if any(key in table and table[key].id != spec.id for table in (self._held, self._reserved)):
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
        for table in (self._held, self._reserved):
            if (held := table.get(_key(spec))) is not None and held.id == spec.id:
                del table[_key(spec)]

    def release_all(self, owner: str) -> None:
        """Frees what the actors of this owner held or had reserved."""
        for spec in [*self._held.values(), *self._reserved.values()]:
            if spec.owner == owner:
                self.release(spec)

    def find(self, name: str, namespace: str) -> ActorSpec | None:
        """Returns the actor that has the name."""
        return self._held.get((namespace, name))

    def all(self, namespace: str | None) -> list[tuple[str, str]]:
        """Returns the names in use as (namespace, name); all namespaces where None is given."""
        return [key for key in self._held if namespace is None or key[0] == namespace]


def _key(spec: ActorSpec) -> tuple[str, str]:
    return spec.namespace, spec.name or ""
