"""A command's visit to a node of this device: questions and answers, and no more of the runtime than these take."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from actors import device
from actors.address import Address, host_key
from actors.answer import ask
from actors.exceptions import ClusterTimeoutError, NoClusterError, NodeDiedError
from actors.ids import new_id
from actors.serialize import dumps_arguments
from actors.transport.peer import Peer
from actors.transport.portal import Portal
from actors.transport.ways_out import WaysOut, all_by_grpc

if TYPE_CHECKING:
    from actors.device import Running

ASK_SECONDS = 10.0


class Visit:
    """A command's conversation with a node of this device; a context manager.

    It listens nowhere, so that only what travels by value can be asked for.

    Args:
        node: where it is.
    """

    def __init__(self, node: Address) -> None:
        self.node = node
        self._portal = Portal()
        self._dialer = WaysOut()
        self._peer: Peer | None = None

    def ask(self, target: str, method: str, *args: Any, timeout: float = ASK_SECONDS) -> Any:
        """Asks a service of the node.

        Raises:
            ClusterTimeoutError: no answer in time.
            NoClusterError: the node is gone.
            Exception: whatever the service raised.
        """
        try:
            return self._portal.run(self._ask(target, method, args, timeout))
        except TimeoutError as error:
            raise ClusterTimeoutError(f"node {self.node.node_name} does not answer; see {device.log_file()}") from error
        except NodeDiedError as error:
            raise NoClusterError(f"node {self.node.node_name} has just ended: {error}") from error

    async def _ask(self, target: str, method: str, args: tuple[Any, ...], timeout: float) -> Any:
        if self._peer is None:
            self._peer = Peer(self.node, new_id("command"), self._dialer, self._portal.loop)
        return await ask(self._peer, self.node, target, method, dumps_arguments(args, {}), timeout)

    def close(self) -> None:
        """Ends it."""
        self._portal.run(self._close())
        self._portal.close()

    async def _close(self) -> None:
        if self._peer is not None:
            await self._peer.close("the command has ended")
        await self._dialer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def prepare() -> None:
    """Loads what a visit takes, before it has to be quick."""
    if all_by_grpc():
        import actors.transport.grpc_link  # noqa: F401


def address_of(running: Running) -> Address:
    """Where this device's node is, for its own processes."""
    socket = str(Path(running.folder) / f"{running.process}.sock")
    return Address(running.process, host_key(), socket, running.id, node_name=running.name)


def ask_node(running: Running, target: str, method: str, *args: Any, timeout: float = ASK_SECONDS) -> Any:
    """Asks a service of this device's node once; see `Visit.ask`."""
    with Visit(address_of(running)) as visit:
        return visit.ask(target, method, *args, timeout=timeout)
