"""Who belongs to a cluster, as a pure function of a set of statements; merging two sets is their union.

A device belongs if a chain of additions leads from the founder to it and nobody who ever belonged has removed it.
Where one on the way was removed, its addition counts only if every removal keeps it: what a removed device signs
afterwards, in whatever name, lets nobody in. The order in which statements arrive never matters.
"""

from __future__ import annotations

import hashlib
import secrets
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from actors.exceptions import AuthenticationError
from actors.trust.statement import Statement, signed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from actors.identity import Identity

MOST_STATEMENTS = 5_000
"""In one set: a member that floods the others with statements is stopped here."""


@dataclass(frozen=True, slots=True)
class Member:
    """A device that belongs to the cluster.

    Attributes:
        id: node id.
        name: unique in the cluster.
        certificate: PEM.
    """

    id: str
    name: str
    certificate: bytes


class Roll:
    """An immutable set of statements of one cluster, and what follows from it.

    Attributes:
        statements: by id; only those whose author ever belonged and has signed them.
        cluster: the cluster's id.
        members: who belongs at present, by node id.
        removed: node ids that are out for good.
        digest: the hash of the set: two nodes with the same one know the same.
    """

    __slots__ = ("cluster", "digest", "members", "removed", "statements")

    def __init__(self, statements: Iterable[Statement]) -> None:
        """Works out who belongs.

        Raises:
            AuthenticationError: there is not exactly one founding, or there are too many statements.
        """
        given = list({(s.id, s.signature): s for s in statements}.values())
        if len(given) > MOST_STATEMENTS:
            raise AuthenticationError(f"{len(given)} statements about trust are more than {MOST_STATEMENTS}")
        founding = [s for s in given if s.kind == "found" and s.is_signed_by(s.certificate)]
        if len({s.id for s in founding}) != 1:
            raise AuthenticationError("these statements about trust are not of one cluster")
        root = min(founding, key=lambda s: s.signature)
        self.cluster = root.cluster
        certificates = {root.subject: root.certificate}
        kept: dict[str, Statement] = {root.id: root}
        _collect([s for s in given if s.kind != "found" and s.cluster == root.cluster], certificates, kept)
        self.statements = dict(sorted(kept.items()))
        self.digest = hashlib.sha256("".join(self.statements).encode()).hexdigest()
        self.removed = frozenset(s.subject for s in kept.values() if s.kind == "rm")
        self.members = self._members(root, certificates)

    def _members(self, root: Statement, certificates: dict[str, bytes]) -> dict[str, Member]:
        kept_by: dict[str, list[frozenset[str]]] = defaultdict(list)
        additions: dict[str, list[Statement]] = defaultdict(list)
        for said in self.statements.values():
            if said.kind == "rm":
                kept_by[said.subject].append(frozenset(said.keep))
            elif said.kind == "add":
                additions[said.author].append(said)
        names: dict[str, str] = {root.subject: root.name}
        todo = [root.subject]
        while todo:
            author = todo.pop()
            for said in additions[author]:
                if all(said.id in keep for keep in kept_by[author]):
                    if said.subject not in names:
                        todo.append(said.subject)
                    # Of several that added it, one name, the same for everybody.
                    names[said.subject] = min(said.name, names.get(said.subject, said.name))
        present = {id: name for id, name in names.items() if id not in self.removed}
        unique = _unique(present)
        return {id: Member(id, unique[id], certificates[id]) for id in sorted(present)}

    def to_plain(self) -> list[dict[str, Any]]:
        """The statements as JSON knows them."""
        return [said.to_plain() for said in self.statements.values()]

    def merged(self, statements: Iterable[Statement]) -> Roll:
        """The union with other statements; those of other clusters are left out."""
        ours = [s for s in statements if s.cluster == self.cluster]
        return Roll([*self.statements.values(), *ours])

    def added(self, identity: Identity, certificate: bytes, name: str) -> Roll:
        """With another device, vouched for by this one.

        Raises:
            AuthenticationError: it was removed once; its key is out for good. Or the certificate is off the profile.
        """
        from actors.certificate import check_profile

        subject = check_profile(certificate)
        if subject in self.removed:
            raise AuthenticationError(
                "that device was removed from this cluster; `actors leave` there gives it a new key"
            )
        if subject in self.members:
            return self
        return self.merged([signed(identity, "add", self.cluster, subject, certificate=certificate, name=name)])

    def without(self, identity: Identity, subject: str) -> Roll:
        """Without a device; whom it has let in so far stays."""
        keep = sorted(s.id for s in self.statements.values() if s.kind == "add" and s.author == subject)
        return self.merged([signed(identity, "rm", self.cluster, subject, keep=tuple(keep))])

    def let_in_by(self, author: str) -> list[Member]:
        """The members whom a device has let in."""
        subjects = {s.subject for s in self.statements.values() if s.kind == "add" and s.author == author}
        return [member for member in self.members.values() if member.id in subjects]


def found(identity: Identity, name: str) -> Roll:
    """A new cluster of this device alone."""
    cluster = secrets.token_hex(32)
    return Roll([signed(identity, "found", cluster, identity.node_id, certificate=identity.certificate, name=name)])


def _collect(given: list[Statement], certificates: dict[str, bytes], kept: dict[str, Statement]) -> None:
    """Moves over what was said by somebody who ever belonged; who was removed once belonged as well."""
    waiting = defaultdict(list)
    for said in given:
        waiting[said.author].append(said)
    todo = list(certificates)
    while todo:
        author = todo.pop()
        for said in waiting.pop(author, ()):
            if not said.is_signed_by(certificates[author]):
                continue
            known = kept.get(said.id)
            if known is None or said.signature < known.signature:
                kept[said.id] = said
            if said.kind != "add":
                continue
            if said.subject not in certificates:
                todo.append(said.subject)
            # One key may show several certificates: the same one counts for everybody.
            certificates[said.subject] = min(said.certificate, certificates.get(said.subject, said.certificate))


def _unique(names: dict[str, str]) -> dict[str, str]:
    """Gives each its name; where it is taken, by order of ids, with -2, -3 and so on."""
    unique: dict[str, str] = {}
    taken: set[str] = set(names.values())
    given: set[str] = set()
    for id, name in sorted(names.items()):
        candidate, number = name, 2
        while candidate in given or (candidate != name and candidate in taken):
            candidate, number = f"{name}-{number}", number + 1
        given.add(candidate)
        unique[id] = candidate
    return unique
