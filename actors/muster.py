"""Where the ranks of a job are: at addresses that somebody writes down, or where zeroconf finds them.

Each rank announces its rank under the job's name until all have met. What is found is a hint: between devices the
connections are mutual TLS, so that a rank of a stranger is refused when it is called.
"""

from __future__ import annotations

import hashlib
import ipaddress
import secrets
import socket
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from actors import device

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import discovery


SETTLE_SECONDS = 0.3
"""How long a rank looks at least whether another process is this rank too: both announce it at once when they begin."""


@contextmanager
def mustered(  # noqa: PLR0917 - the communicator's own
    job: str, rank: int, size: int, host: str | None, timeout: float, leave: Callable[[], None]
) -> Iterator[list[str]]:
    """Gives the addresses of all ranks of a job, and announces this one's for as long as the block lasts.

    Ranks of a device that is paired find those of other devices; of one that is not, those of this machine alone.

    Args:
        job: its name.
        rank: this rank.
        size: the number of ranks.
        host: the address at which the others reach this rank; None looks for it.
        timeout: seconds to wait for the others.
        leave: called on a thread of its own where another process turns out to be this rank while the block lasts; it
            must fail what the block waits for.

    Raises:
        TimeoutError: some were not found; it names them.
        ValueError: another process is this rank; each of the two is told.
        discovery.DiscoveryError: the network cannot be used.
    """
    import discovery

    interfaces: discovery.Interfaces = None if device.is_paired() else "loopback"
    if host is None:
        host = "127.0.0.1" if interfaces else device.own_hosts()[0]
    tag = f"job-{hashlib.sha256(f'{size} {job}'.encode()).hexdigest()[:16]}"
    ids = [f"{tag}-{other}" for other in range(size)]
    mine = discovery.NodeRecord(
        ids[rank], f"rank {rank} of {size}", _free_port(host), (host,), secrets.token_hex(8), cluster=tag
    )
    twins: list[discovery.NodeRecord] = []
    inside = threading.Event()

    def notice(event: discovery.Event) -> None:
        # Of two that announce one name each is seen, one after the other.
        record = None if isinstance(event, discovery.Lost) else event.record
        if record is not None and record.id == mine.id and record.boot != mine.boot:
            twins.append(record)
            if inside.is_set():
                threading.Thread(target=leave, name="twin-leave", daemon=True).start()

    with (
        discovery.browse(interfaces=interfaces, cluster=tag, on_event=notice) as browser,
        discovery.advertise(mine, interfaces=interfaces),
    ):
        settled = time.monotonic() + min(SETTLE_SECONDS, timeout)
        try:
            found = browser.wait_for(
                lambda seen: bool(twins) or all(name in seen and seen[name].addresses for name in ids), timeout
            )
        except TimeoutError:
            missing = [str(other) for other, name in enumerate(ids) if name not in browser.records()]
            where = "on this machine, which is paired with none" if interfaces else "in the network"
            raise TimeoutError(
                f"job {job!r}: rank {', '.join(missing)} of {size} was not found {where} within {timeout:g} s"
            ) from None
        while not twins and (left := settled - time.monotonic()) > 0:
            with suppress(TimeoutError):
                browser.wait_for(lambda _: bool(twins), left)
        inside.set()
        try:
            if not twins:
                yield [device.at(found[name].addresses[0], found[name].port) for name in ids]
                return
        except Exception:
            if not twins:
                raise
        twin = twins[0]
        raise ValueError(
            f"job {job!r}: two processes are rank {rank} of {size}: this one, at {bracket(host)}:{mine.port}, and one "
            f"at {', '.join(map(bracket, twin.addresses))}:{twin.port}; give each a rank of its own"
        )


def _free_port(host: str) -> int:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


def check_address(address: str) -> str:
    """Returns the address with its host as a number, where it is one.

    Raises:
        ValueError: not ``"host:port"``, or all addresses at once.
    """
    host, _, port = address.rpartition(":")
    if not (host and port.isascii() and port.isdecimal() and 0 < int(port) < 65536):
        raise ValueError(f"{address!r} is not an address: give 'host:port' with a port from 1 to 65535")
    try:
        ip = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host.strip("[]"))
    except ValueError:
        return f"{host}:{int(port)}"
    if ip.is_unspecified:
        raise ValueError(f"{str(ip)!r} is not a loopback address: for mutual TLS give the one that the others reach")
    number = str(ip)
    return f"{bracket(number)}:{int(port)}"


def is_loopback(address: str) -> bool:
    """Whether an address is of this machine alone."""
    try:
        return ipaddress.ip_address(address.rpartition(":")[0].strip("[]")).is_loopback
    except ValueError:
        return False


def bracket(host: str) -> str:
    """Returns a host as it stands in an address."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host
