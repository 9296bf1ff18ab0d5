"""One signed statement about who belongs to a cluster. Pure."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

from actors.certificate import check_profile
from actors.exceptions import AuthenticationError

if TYPE_CHECKING:
    from actors.identity import Identity

Kind = Literal["found", "add", "rm"]

NAME_BYTES = 128
MOST_KEPT = 10_000
_CONTEXT = b"mlx-actors trust 1\0"
_NODE_ID = re.compile(r"[a-z2-7]{52}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Statement:
    """What one device says about who belongs to the cluster, signed by it.

    Attributes:
        kind: ``"found"`` (of a cluster), ``"add"`` (a device to it) or ``"rm"`` (a device from it, for good).
        cluster: its id, which the founder draws at random.
        author: node id of who says it.
        subject: node id of whom it is about; of a found, the author.
        certificate: of the subject (PEM); empty for a removal.
        name: what the subject is called; empty for a removal.
        keep: of a removal, the ids of those additions by the subject that stay; sorted.
        signature: the author's, ECDSA on P-256 with SHA-256 over all the rest.
    """

    kind: Kind
    cluster: str
    author: str
    subject: str
    certificate: bytes = b""
    name: str = ""
    keep: tuple[str, ...] = ()
    signature: bytes = b""

    @property
    def id(self) -> str:
        """The hash of what it says, whoever else signs the same: signatures of one text differ."""
        return _digest(self)

    def to_plain(self) -> dict[str, Any]:
        """The statement as JSON knows it."""
        return {**self._said(), "signature": base64.b64encode(self.signature).decode()}

    @classmethod
    def from_plain(cls, plain: object) -> Statement:
        """Read what `to_plain` gave, from anybody.

        Raises:
            AuthenticationError: it is not of that form, its certificate is off the profile, or belongs to another key.
        """
        if not isinstance(plain, dict) or plain.keys() != _FIELDS:
            raise AuthenticationError("a statement about trust has other fields than it should")
        kind, cluster, name, keep = plain["kind"], plain["cluster"], plain["name"], plain["keep"]
        texts = (kind, cluster, name, plain["author"], plain["subject"], plain["certificate"], plain["signature"])
        if not all(isinstance(text, str) for text in texts) or kind not in {"found", "add", "rm"}:
            raise AuthenticationError("a statement about trust has a field of the wrong kind")
        if not all(_NODE_ID.fullmatch(plain[field]) for field in ("author", "subject")) or not _is_digest(cluster):
            raise AuthenticationError("a statement about trust names no device or no cluster")
        if not isinstance(keep, list) or len(keep) > MOST_KEPT or not all(map(_is_digest, keep)):
            raise AuthenticationError("a statement about trust keeps something that is no addition")
        if len(name.encode(errors="replace")) > NAME_BYTES or not name.isprintable():
            raise AuthenticationError("a statement about trust gives a name that cannot be shown")
        try:
            signature = base64.b64decode(plain["signature"], validate=True)
        except ValueError as error:  # also where there are other letters than ASCII's
            raise AuthenticationError("a statement about trust has no signature that can be read") from error
        said = cls(
            kind, cluster, plain["author"], plain["subject"],
            plain["certificate"].encode(errors="replace"), name, tuple(keep), signature,
        )  # fmt: skip
        said._check_shape()
        return said

    def _check_shape(self) -> None:
        if self.kind == "rm":
            if self.certificate or self.name or list(self.keep) != sorted(set(self.keep)):
                raise AuthenticationError("a removal holds more than it should")
            return
        if self.keep or check_profile(self.certificate) != self.subject:
            raise AuthenticationError("an addition shows the certificate of another device")
        if self.kind == "found" and self.author != self.subject:
            raise AuthenticationError("a cluster was founded in another's name")

    def is_signed_by(self, certificate: bytes) -> bool:
        """Whether the owner of this certificate (PEM) has signed it."""
        return _verified(self, certificate)

    def _said(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "cluster": self.cluster,
            "author": self.author,
            "subject": self.subject,
            "certificate": self.certificate.decode(),
            "name": self.name,
            "keep": list(self.keep),
        }

    def text(self) -> bytes:
        """What is signed."""
        return _CONTEXT + json.dumps(self._said(), sort_keys=True, separators=(",", ":")).encode()


_FIELDS = {"kind", "cluster", "author", "subject", "certificate", "name", "keep", "signature"}


@lru_cache(maxsize=4096)
def _digest(statement: Statement) -> str:
    return hashlib.sha256(statement.text()).hexdigest()


@lru_cache(maxsize=4096)  # a node reads its set again whenever it changes
def _verified(statement: Statement, certificate: bytes) -> bool:
    from actors.identity import is_signed

    return is_signed(certificate, statement.text(), statement.signature)


def _is_digest(text: object) -> bool:
    return isinstance(text, str) and _DIGEST.fullmatch(text) is not None


def signed(identity: Identity, kind: Kind, cluster: str, subject: str, **rest: Any) -> Statement:
    """A statement of this device's own.

    Args:
        identity: this device's.
        kind: see `Statement`.
        cluster: its id.
        subject: whom it is about.
        rest: further fields of `Statement`.
    """
    bare = Statement(kind, cluster, identity.node_id, subject, **rest)
    return Statement(kind, cluster, identity.node_id, subject, **rest, signature=identity.sign(bare.text()))
