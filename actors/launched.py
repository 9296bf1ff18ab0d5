"""What `actors launch` has told this process: which rank of which job it is, and where the job's cluster is."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from actors.address import Address

VARIABLE = "ACTORS_LAUNCH"


@dataclass(frozen=True, slots=True)
class Launched:
    """One rank's place in a job.

    Attributes:
        rank: from 0.
        size: how many ranks there are.
        script: what they run, for people.
        launcher: the process that started the job, where the ranks meet.
        home: the node of this process.
        folder: where the Unix sockets of its cluster are.
        identity: folder of the device's key; None where the cluster is this machine alone.
        addresses: where the rank's communicators listen, as ``"HOST:PORT"``.
    """

    rank: int
    size: int
    script: str
    launcher: Address
    home: Address
    folder: str
    identity: str | None
    addresses: tuple[str, ...]

    def to_json(self) -> str:
        """Returns it as text, for the environment."""
        return json.dumps(asdict(self))

    @classmethod
    def of_json(cls, text: str) -> Launched:
        """Makes what `to_json` was returned by."""
        found = json.loads(text)
        found["launcher"], found["home"] = (_address(found[key]) for key in ("launcher", "home"))
        found["addresses"] = tuple(found["addresses"])
        return cls(**found)


def _address(plain: dict[str, str]) -> Address:
    return Address(**{**plain, "doors": tuple(plain["doors"])})  # type: ignore[arg-type]  # JSON has no tuples


_here: Launched | None = None


def take_in() -> None:
    """Makes this process the rank that its environment says it is. What it starts itself is no rank any more."""
    global _here  # noqa: PLW0603 - a process is one rank
    text = os.environ.pop(VARIABLE, None)
    _here = Launched.of_json(text) if text is not None else None


def here() -> Launched | None:
    """Returns which rank this process is; None where it was not started by `actors launch`."""
    return _here


class LaunchedNode:
    """The node of a rank, as a driver uses it: somebody else's, who ends it."""

    def __init__(self, launch: Launched) -> None:
        self.address = launch.home
        self.name = launch.home.node_name
        self.folder = Path(launch.folder)
        self.identity = Path(launch.identity) if launch.identity is not None else None
        self.others_stay = True

    @property
    def addresses(self) -> list[Address]:
        """Where the nodes are that this program talks to at once."""
        return [self.address]

    def abandon(self) -> None:
        """Nothing here holds the node."""

    def close(self) -> None:
        """The node ends with its job."""
