"""DNS-SD on the network. The only module that knows zeroconf; all of it runs on the event loop of a `Lane`."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import secrets
import socket
import sys
from typing import TYPE_CHECKING

from zeroconf import (  # type: ignore[attr-defined]  # the first four are exported, but not in its __all__
    DNSIncoming,
    DNSOutgoing,
    DNSPointer,
    DNSQuestion,
    DNSQuestionType,
    Error,
    InterfaceChoice,
    IPVersion,
    ServiceStateChange,
    Zeroconf,
)
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from . import interfaces
from .addresses import candidates
from .errors import DiscoveryError
from .question import ask
from .txt import from_txt, to_txt

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable
    from typing import Self

    from .record import NodeRecord
    from .roster import Roster

SERVICE_TYPE = "_mlx-actors._tcp.local."

POLL_S = 2.0
"""Between two looks at the machine's interfaces."""

SETTLING_POLLS = 5
"""For so many polls after a change of the interfaces they are taken over again."""

SEARCH_S = 60.0
"""Between two searches, which find what came while a cable was out or a packet was lost."""

ANSWER_S = 1.0
"""How long the direct answers to one search are waited for."""

SETTLE_S = 1.2
"""After which addresses that a node has no more are gone from the cache (one second, RFC 6762, section 10.2)."""

RESOLVE_MS = 3000

_QUERY, _PTR, _IN = 0, 12, 1  # RFC 1035, section 4.1.1, and RFC 6762, section 5.1
_IP_MULTICAST_ALL = 49  # Linux, <linux/in.h>
_IP_BOUND_IF = 25  # macOS, <netinet/in.h>

_log = logging.getLogger("discovery")


@contextlib.asynccontextmanager
async def announcing(record: NodeRecord, addresses: tuple[str, ...] | None) -> AsyncIterator[None]:
    """Announce a node, and say goodbye at the end.

    Args:
        record: The node; without addresses, the announced ones are those of the interfaces.
        addresses: Own addresses of the interfaces to use, or None for all interfaces at all times.

    Raises:
        DiscoveryError: The network cannot be used.
    """
    async with _opened(addresses) as zeroconf, _announced(zeroconf, record, addresses):
        yield


@contextlib.asynccontextmanager
async def watching(roster: Roster, addresses: tuple[str, ...] | None) -> AsyncIterator[None]:
    """Keep a roster of the nodes that are announced, and close it at the end.

    Args:
        roster: Told of every node seen and lost.
        addresses: Own addresses of the interfaces to use, or None for all interfaces at all times.

    Raises:
        DiscoveryError: The network cannot be used.
    """
    try:
        async with _opened(addresses) as zeroconf, _watched(zeroconf, roster, addresses):
            yield
    finally:
        roster.close()


@contextlib.asynccontextmanager
async def residing(record: NodeRecord, roster: Roster, addresses: tuple[str, ...] | None) -> AsyncIterator[None]:
    """Do both at once, with one pair of ears: each packet of the network is read once. See `announcing`, `watching`."""
    try:
        async with (
            _opened(addresses) as zeroconf,
            _announced(zeroconf, record, addresses),
            _watched(zeroconf, roster, addresses),
        ):
            yield
    finally:
        roster.close()


@contextlib.asynccontextmanager
async def _announced(
    zeroconf: AsyncZeroconf, record: NodeRecord, addresses: tuple[str, ...] | None
) -> AsyncIterator[None]:
    async with _Tasks() as tasks:
        announced = record.addresses or interfaces.announced(addresses)
        tasks.keep(await zeroconf.async_register_service(_info(record, announced), cooperating_responders=True))
        if addresses is None:
            tasks.keep(_keep_announced(zeroconf, record, announced, tasks))
        yield
    await _say_goodbye(zeroconf.zeroconf)


@contextlib.asynccontextmanager
async def _watched(zeroconf: AsyncZeroconf, roster: Roster, addresses: tuple[str, ...] | None) -> AsyncIterator[None]:
    async with _Tasks() as tasks:
        tasks.keep(_Watch(zeroconf, roster, addresses, tasks).run())
        yield


class _Tasks:
    """Tasks that end with the block: the later announcements, for one, must not follow upon the goodbye."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Future[object]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def keep(self, work: Awaitable[object]) -> asyncio.Future[object]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Future[object]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("a part of discovery failed and is not tried again", exc_info=error)


class _Watch:
    """Keeps a roster up to date from one zeroconf instance."""

    def __init__(
        self, zeroconf: AsyncZeroconf, roster: Roster, addresses: tuple[str, ...] | None, tasks: _Tasks
    ) -> None:
        self._zeroconf = zeroconf
        self._roster = roster
        self._addresses = addresses
        self._tasks = tasks
        self._loop = asyncio.get_running_loop()
        self._resolving: dict[str, asyncio.Future[object]] = {}
        self._left: set[str] = set()
        self._follower = _Follower(zeroconf)

    async def run(self) -> None:
        """Search at once, after every change of the interfaces, and every `SEARCH_S`."""
        while True:
            searched, known = self._loop.time(), interfaces.own()
            addresses = self._addresses or sorted({address for _, address in known})
            self._tasks.keep(ask(_question(), addresses, self._hear, ANSWER_S))
            # A new browser asks at once, where an old one waits up to an hour; what it finds known makes no event.
            async with AsyncServiceBrowser(
                self._zeroconf.zeroconf,
                SERVICE_TYPE,
                handlers=[self._on_change],
                question_type=DNSQuestionType.QM,  # answers to our port 5353 alone may reach another program's socket
            ):
                while self._loop.time() < searched + SEARCH_S and known == interfaces.own():
                    await asyncio.sleep(POLL_S)
                    if self._addresses is None:
                        await self._follower.follow()

    def _hear(self, data: bytes) -> None:
        message = DNSIncoming(data)
        if not (message.valid and message.is_response()):
            return
        # It comes through another socket than a goodbye does, so it may be read after the goodbye that followed it.
        if not any(isinstance(answer, DNSPointer) and answer.alias in self._left for answer in message.answers()):
            self._zeroconf.zeroconf.record_manager.async_updates_from_response(message)

    def _on_change(
        self,
        zeroconf: Zeroconf,
        service_type: str,  # noqa: ARG002 - zeroconf passes it by name
        name: str,
        state_change: ServiceStateChange,
    ) -> None:
        if state_change is ServiceStateChange.Removed:
            if (pending := self._resolving.pop(name, None)) is not None:
                pending.cancel()
            self._left.add(name)
            self._loop.call_later(ANSWER_S, self._left.discard, name)
            self._roster.lose(_instance(name))
            return
        self._read(zeroconf, name)
        self._loop.call_later(SETTLE_S, self._read_again, zeroconf, name)

    def _read(self, zeroconf: Zeroconf, name: str) -> None:
        info = AsyncServiceInfo(SERVICE_TYPE, name)
        if info.load_from_cache(zeroconf):
            self._see(info)
        elif name not in self._resolving:
            self._resolving[name] = self._tasks.keep(self._resolve(zeroconf, name))

    def _read_again(self, zeroconf: Zeroconf, name: str) -> None:
        info = AsyncServiceInfo(SERVICE_TYPE, name)
        if _instance(name) in self._roster.records() and info.load_from_cache(zeroconf):
            self._see(info)

    async def _resolve(self, zeroconf: Zeroconf, name: str) -> None:
        info = AsyncServiceInfo(SERVICE_TYPE, name)
        if await info.async_request(zeroconf, RESOLVE_MS, DNSQuestionType.QM):
            self._see(info)
        self._resolving.pop(name, None)

    def _see(self, info: AsyncServiceInfo) -> None:
        try:
            addresses = candidates(info.parsed_addresses(), interfaces.link_local(), interfaces.networks())
            self._roster.see(from_txt(_instance(info.name), info.text, info.port or 0, addresses))
        except ValueError as error:  # anybody may announce anything
            _log.debug("ignoring the announcement %r: %s", info.name, error)


async def _keep_announced(
    zeroconf: AsyncZeroconf, record: NodeRecord, announced: tuple[str, ...], tasks: _Tasks
) -> None:
    """Announce on interfaces that appear, and the addresses that they bring."""
    revision, follower = 0, _Follower(zeroconf)
    while True:
        await asyncio.sleep(POLL_S)
        fresh = record.addresses or interfaces.announced(None)
        if fresh != announced:
            announced, revision = fresh, revision + 1
            tasks.keep(await zeroconf.async_update_service(_info(record, announced, revision)))
        await follower.follow()


async def _say_goodbye(zeroconf: Zeroconf) -> None:
    # Answers to recent questions still wait for their turn, and would bring the node back.
    for queue in (zeroconf.out_queue, zeroconf.out_delay_queue):
        queue.queue.clear()
    await zeroconf.async_unregister_all_services()


class _Follower:
    """Opens sockets on new interfaces and closes those of gone ones.

    For a while after each change, as an interface that is listed may take a second until its address can be used.
    """

    def __init__(self, zeroconf: AsyncZeroconf) -> None:
        self._zeroconf = zeroconf
        self._known: object = None
        self._polls_left = SETTLING_POLLS

    async def follow(self) -> None:
        known = interfaces.own()
        if known != self._known:
            self._known, self._polls_left = known, SETTLING_POLLS
        if not self._polls_left:
            return
        self._polls_left -= 1
        try:
            await self._zeroconf.async_update_interfaces()
        except OSError as error:
            self._polls_left = SETTLING_POLLS
            _log.warning("discovery could not follow a change of the network interfaces, and tries again: %s", error)


@contextlib.asynccontextmanager
async def _opened(addresses: tuple[str, ...] | None) -> AsyncIterator[AsyncZeroconf]:
    if addresses is not None:
        interfaces.announced(addresses)  # names the address that is not ours
    zeroconf = _open(addresses)
    try:
        await _started(zeroconf.zeroconf)
        if not zeroconf.zeroconf.engine.senders:
            raise DiscoveryError(
                f"multicast works on none of {', '.join(addresses) if addresses else 'the network interfaces'}; "
                "use interfaces='loopback' for this machine alone, or give addresses with discovery.fixed"
            )
        if addresses is not None:
            _confine(zeroconf.zeroconf, addresses)
        yield zeroconf
    finally:
        await zeroconf.async_close()


def _open(addresses: tuple[str, ...] | None) -> AsyncZeroconf:
    try:
        if addresses is not None:
            return AsyncZeroconf(interfaces=list(addresses))
        try:
            return AsyncZeroconf(interfaces=InterfaceChoice.All, ip_version=IPVersion.All)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise
            return AsyncZeroconf(interfaces=InterfaceChoice.All, ip_version=IPVersion.V4Only)  # no IPv6 here
    except RuntimeError as error:  # zeroconf's, where there is nothing to listen on
        raise DiscoveryError("multicast DNS cannot be used: no network interface is up") from error
    except (OSError, Error) as error:
        raise DiscoveryError(f"multicast DNS cannot be used: {error}. {_advice(error)}") from error


async def _started(zeroconf: Zeroconf) -> None:
    try:
        await zeroconf.async_wait_for_start()
    except (OSError, Error) as error:
        raise DiscoveryError(f"multicast DNS did not start: {error!r}. {_advice(error)}") from error


def _advice(error: Exception) -> str:
    if not isinstance(error, OSError):
        return "Is any network interface up?"
    if error.errno == errno.EADDRINUSE:
        return "Another program holds UDP port 5353 for itself alone: end it, or let it share (SO_REUSEPORT)."
    if error.errno in {errno.EPERM, errno.EACCES}:
        return "This user, container or firewall may not open UDP port 5353: allow it, or use discovery.fixed."
    return "Use interfaces='loopback' for this machine alone, or give addresses with discovery.fixed."


def _confine(zeroconf: Zeroconf, addresses: tuple[str, ...]) -> None:
    """Let the listening socket hear, and so answer, only on the chosen interfaces.

    It is bound to no address, and Linux delivers to it whatever any program of the machine has joined.
    """
    loopback = addresses == interfaces.LOOPBACK
    for reader in zeroconf.engine.readers:
        sock: socket.socket = reader.transport.get_extra_info("socket")
        if sys.platform == "linux":
            sock.setsockopt(socket.IPPROTO_IP, _IP_MULTICAST_ALL, 0)
            if loopback:
                with contextlib.suppress(PermissionError):  # before Linux 5.7 only root may; the line above does most
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interfaces.named(addresses[0]).encode())
        elif loopback:
            index = socket.if_nametoindex(interfaces.named(addresses[0]))
            sock.setsockopt(socket.IPPROTO_IP, _IP_BOUND_IF, index)


def _info(record: NodeRecord, addresses: tuple[str, ...], revision: int = 0) -> AsyncServiceInfo:
    return AsyncServiceInfo(
        SERVICE_TYPE,
        f"{record.id}.{SERVICE_TYPE}",
        port=record.port,
        properties=to_txt(record, revision),
        server=f"{record.id}.local.",
        parsed_addresses=[address.partition("%")[0] for address in addresses],
    )


def _instance(name: str) -> str:
    return name.lower().removesuffix(f".{SERVICE_TYPE}")  # DNS compares names without regard to case


def _question() -> bytes:
    out = DNSOutgoing(_QUERY, multicast=False, id_=secrets.randbits(16))
    out.add_question(DNSQuestion(SERVICE_TYPE, _PTR, _IN))
    return out.packets()[0]
