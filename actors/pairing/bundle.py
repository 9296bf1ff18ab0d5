"""A trust bundle: a member's place in a cluster as a file, made before there is a device for it.

It holds a key that the cluster trusts already, who else belongs, and where they were last. Whoever has the file is that
member, so it is worth as much as the key of a device, and is for one device.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from actors.exceptions import ActorsError, AuthenticationError
from actors.identity import Identity
from actors.trust.store import parse, to_bytes

if TYPE_CHECKING:
    from pathlib import Path

    from actors.trust import Roll

VERSION = 1
LARGEST_BYTES = 32 << 20


@dataclass(frozen=True, slots=True)
class Bundle:
    """What such a file holds.

    Attributes:
        identity: of the device that it is for.
        roll: who belongs.
        doors: where members' nodes were, by node id; hints.
    """

    identity: Identity
    roll: Roll
    doors: dict[str, list[str]]

    def to_bytes(self) -> bytes:
        """The content of the file."""
        return json.dumps(
            {
                "mlx-actors trust bundle": VERSION,
                "identity": (self.identity.certificate + self.identity.private_key).decode(),
                "statements": json.loads(to_bytes(self.roll)),
                "doors": self.doors,
            }
        ).encode()

    @classmethod
    def read(cls, path: Path) -> Bundle:
        """Reads such a file.

        Raises:
            ActorsError: it cannot be read.
            AuthenticationError: it is no such file, or is damaged.
        """
        try:
            with path.open("rb") as file:
                content = file.read(LARGEST_BYTES)
        except OSError as error:
            raise ActorsError(f"cannot read {path}: {error.strerror}") from error
        try:
            plain = json.loads(content)
            if plain["mlx-actors trust bundle"] != VERSION:
                raise AuthenticationError("another version of this package has made it")
            identity = Identity.parse(plain["identity"].encode())
            roll = parse(json.dumps(plain["statements"]).encode())
            doors = {str(id): [str(door) for door in given] for id, given in plain["doors"].items()}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise AuthenticationError(f"{path} is no trust bundle: `actors invite --bundle FILE` makes one") from error
        except AuthenticationError as error:
            raise AuthenticationError(f"{path} cannot be used: {error}") from error
        if identity.node_id not in roll.members:
            raise AuthenticationError(f"{path} cannot be used: its device has been removed from the cluster")
        return cls(identity, roll, doors)
