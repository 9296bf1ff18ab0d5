"""The actor that runs a job's ranks on its node."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actors import device, runtime
from actors.launched import VARIABLE, Launched

from .ranks import Ranks, free_ports

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from actors.address import Address

    from .ranks import Event

VARIABLE_OF_SECRET = "ACTORS_JOB_SECRET"  # noqa: S105 - a name


class Host:
    """Runs some ranks of a job.

    Args:
        script: the file to run.
        arguments: for it.
        folder: where the ranks run; None for this actor's own folder.
        of_device: whether the cluster is that of this device, not of this machine alone.
    """

    def __init__(self, script: str, arguments: Sequence[str], folder: str | None, of_device: bool) -> None:
        self._script = script
        self._of_device = of_device
        self._ranks = Ranks(script, arguments, folder)

    def ports(self, host: str, count: int) -> list[int]:
        """Returns free ports at an address of this node."""
        return free_ports(host, count)

    def run(  # noqa: PLR0917 - one place calls it
        self, first: int, count: int, addresses: tuple[str, ...], master: str, secret: str, launcher: Address
    ) -> Iterator[list[Event]]:
        """Runs ranks ``first`` to ``first + count - 1`` and says what happens to them until all have ended."""
        process = runtime.joined()
        assert process is not None
        assert process.home is not None
        identity = str(device.folder()) if self._of_device and device.is_paired() else None
        master_host, _, master_port = master.rpartition(":")
        environments = {}
        for rank in range(first, first + count):
            place = Launched(
                rank, len(addresses), self._script, launcher, process.home, str(process.folder), identity, addresses
            )
            environments[rank] = {
                "RANK": str(rank), "LOCAL_RANK": str(rank - first), "WORLD_SIZE": str(len(addresses)),
                "LOCAL_WORLD_SIZE": str(count), "MASTER_ADDR": master_host.strip("[]"), "MASTER_PORT": master_port,
                VARIABLE_OF_SECRET: secret, VARIABLE: place.to_json(),
            }  # fmt: skip
        yield from self._ranks.run(environments)

    def signal(self, number: int) -> None:
        """Sends the ranks a signal."""
        self._ranks.signal(number)
