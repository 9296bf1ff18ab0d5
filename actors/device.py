"""This device: its key, the cluster it belongs to, and its node, which other processes of it find here."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import platform
import signal
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from actors.costs import Costs
from actors.exceptions import ActorsError
from actors.home import locked, log_dir, private_folder, state_dir, write_private

if TYPE_CHECKING:
    from pathlib import Path

    from actors.identity import Identity
    from actors.trust import Roll, TrustStore

PORT = 50099
EVERYWHERE = "0.0.0.0"  # noqa: S104 - paired devices reach the door at every address; it asks all for their key
STOP_SECONDS = 15.0
ALREADY = "a node of this device is running already"
"""What a node says that finds another in its place."""


@dataclass(frozen=True, slots=True)
class Running:
    """What the node of this device says of itself while it runs.

    Attributes:
        pid: of its process.
        process: id of its process, new at each start.
        id: node id.
        name: for people.
        folder: of the cluster's sockets on this device.
        address: its door as ``"HOST:PORT"``; empty while the device is not paired.
        since: when it was started (epoch).
    """

    pid: int
    process: str
    id: str
    name: str
    folder: str
    address: str
    since: float


@dataclass(frozen=True, slots=True)
class Door:
    """Where a node listens once the device is paired.

    Attributes:
        host: an address of this device, ``0.0.0.0`` for all.
        port: 0 takes a free one.
        given: whether a person chose the port: another one must not be taken instead.
    """

    host: str = EVERYWHERE
    port: int = PORT
    given: bool = False

    @property
    def is_everywhere(self) -> bool:
        """Whether it is at all addresses of the device."""
        return self.host in {EVERYWHERE, "::"}

    @property
    def interfaces(self) -> Any:
        """The interfaces to announce it on, as `discovery` takes them."""
        from ipaddress import ip_address

        try:
            ip = ip_address(self.host.partition("%")[0])
        except ValueError:  # a host name
            return "loopback" if self.host == "localhost" else None
        if ip.is_unspecified:
            return None
        return "loopback" if ip.is_loopback else [self.host]


def folder() -> Path:
    """The folder of this device's key and trust, for its user alone."""
    return private_folder(state_dir() / "device")


def identity() -> Identity:
    """This device's key and certificate, made on first use."""
    from actors.identity import Identity

    return Identity.load_or_create(folder())


def store() -> TrustStore:
    """Who belongs to this device's cluster."""
    from actors.trust import TrustStore

    return TrustStore(folder())


def roll() -> Roll | None:
    """Who belongs to this device's cluster; None where it is in none, or has been removed from it."""
    found = store().read()
    return found if found is not None and identity().node_id in found.members else None


def costs() -> Costs:
    """What collectives cost here: what `keep_costs` has kept, the defaults where there is nothing that can be read."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        return Costs(**json.loads(_costs_file().read_bytes()))
    return Costs()


def keep_costs(measured: Costs) -> Path:
    """Keeps what collectives cost, for the groups that this device makes from now on; returns the file."""
    path = _costs_file()
    with locked(path.with_suffix(".lock")):
        write_private(path, json.dumps(asdict(measured), indent=1).encode())
    return path


def _costs_file() -> Path:
    return state_dir() / "costs.json"


def is_paired() -> bool:
    """Whether this device belongs to a cluster. Cheap where it never did: nothing is made, and little is loaded."""
    try:
        place = state_dir() / "device" / "trust.json"
        return place.exists() and roll() is not None
    except OSError:
        return False


def hosts(door: Door) -> tuple[str, ...]:
    """The addresses of this device at which a door is reached, best first."""
    if door.interfaces is not None or not door.is_everywhere:
        return (door.host,)
    return own_hosts()


def own_hosts() -> tuple[str, ...]:
    """The addresses at which other devices reach this one, best first; loopback only where there is nothing else."""
    from discovery.interfaces import announced

    found = announced(None)
    # Another device does not know our interfaces, without which a link-local address means nothing.
    usable = [host for host in found if not host.lower().startswith("fe80:")]
    return tuple(sorted(usable, key=lambda host: (":" in host, host.startswith("169.254.")))) or found


def at(host: str, port: int) -> str:
    """An address as ``"HOST:PORT"``."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def host_name() -> str:
    """What this device calls itself."""
    return platform.node().partition(".")[0] or "localhost"


def log_file() -> Path:
    """What the node of this device says goes here."""
    return log_dir() / "node.log"


# -- its node ----------------------------------------------------------------------------------------------------


def running() -> Running | None:
    """What the node of this device says of itself; None where none runs."""
    place = folder() / "node.json"
    if not _is_held(folder() / "node.lock"):
        return None
    try:
        return Running(**json.loads(place.read_bytes()))
    except (FileNotFoundError, ValueError, TypeError):  # it is just starting, or just ending
        return None


def await_running(timeout: float) -> Running | None:
    """Waits for a node that somebody else is starting."""
    deadline = time.monotonic() + timeout
    while (found := running()) is None and time.monotonic() < deadline:
        time.sleep(0.02)
    return found


def _is_held(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def hold() -> int | None:
    """Takes the place of this device's one node; None where another has it.

    Returns:
        A descriptor; closing it, or the process's end, gives the place back.
    """
    descriptor = os.open(folder() / "node.lock", os.O_RDWR | os.O_CREAT, 0o600)
    # Somebody may just be looking whether it is held.
    for _ in range(50):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.005)
        else:
            return descriptor
    os.close(descriptor)
    return None


def announce(what: Running) -> None:
    """The node, which has its place, says where it is to be found."""
    write_private(folder() / "node.json", json.dumps(asdict(what)).encode())


def unannounce() -> None:
    """The node ends."""
    (folder() / "node.json").unlink(missing_ok=True)


def stop(what: Running, timeout: float = STOP_SECONDS) -> None:
    """Ends the node of this device, and with it its actors; returns when it has ended.

    Raises:
        ActorsError: it did not.
    """
    for sign, seconds in ((signal.SIGTERM, timeout), (signal.SIGKILL, 5.0)):
        deadline = time.monotonic() + seconds
        with contextlib.suppress(ProcessLookupError):
            os.kill(what.pid, sign)
        while time.monotonic() < deadline:
            if not _is_held(folder() / "node.lock"):
                return
            time.sleep(0.02)
    raise ActorsError(f"the node (process {what.pid}) does not end; see {log_file()}")


# -- what it remembers -------------------------------------------------------------------------------------------


def door() -> Door:
    """Where this device's node listens, as `actors start` was last told."""
    try:
        return Door(**json.loads((folder() / "door.json").read_bytes()))
    except (FileNotFoundError, ValueError, TypeError):
        return Door()


def remember_door(door: Door) -> None:
    """Keeps where this device's node is to listen."""
    with locked(folder() / "door.lock"):
        write_private(folder() / "door.json", json.dumps(asdict(door)).encode())


def doors() -> dict[str, list[str]]:
    """Where the nodes of members were last reached, by node id; hints."""
    try:
        found = json.loads((folder() / "doors.json").read_bytes())
        return {str(id): [str(door) for door in given] for id, given in found.items()}
    except (FileNotFoundError, ValueError, TypeError, AttributeError):
        return {}


def remember_doors(more: dict[str, list[str]]) -> None:
    """Keeps where members' nodes are; what is said of one replaces what was known of it."""
    with locked(folder() / "doors.lock"):
        known = doors()
        both = {**known, **{id: given[:32] for id, given in more.items() if given}}
        if both != known:
            write_private(folder() / "doors.json", json.dumps(both).encode())


def forget() -> None:
    """Belongs to no cluster any more, and gets a new key: the old one is out for good."""
    store().forget()
    for name in ("identity.pem", "doors.json"):
        (folder() / name).unlink(missing_ok=True)
