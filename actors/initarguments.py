"""What `init` is asked for, and what it is asked for wrongly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from actors import engine as engines
from actors import launched
from actors.demand import check_amount
from actors.exceptions import AuthenticationError, NoClusterError


@dataclass(frozen=True, slots=True)
class InitArguments:
    """What `init` was asked for; an equal one gives the same cluster."""

    address: str | None
    namespace: str
    local_nodes: int
    log_to_driver: bool
    resources: dict[str, float]
    labels: dict[str, str]
    runtime_env: dict[str, Any] | None = None
    expect_nodes: int | None = None

    @property
    def seeds(self) -> list[str]:
        """The addresses where nodes are, if any are given."""
        return [part.strip() for part in (self.address or "").split(",") if part.strip()]


def meant(address: str | None, local_nodes: int) -> str | None:
    """Returns ``"local"`` where this machine alone is meant, else the address given."""
    from actors import device

    if address in {None, "auto"} and local_nodes == 1 and launched.here() is not None:
        return None
    if address == "auto":  # Ray's word for a cluster that is there already
        if not device.is_paired():
            raise NoClusterError(
                "there is no cluster to join: this device is paired with none. Leave address='auto' out to use this "
                "machine alone, or pair the device: `actors invite` on another one, `actors join CODE` here"
            )
        return None
    if address is None:
        return None if local_nodes == 1 and device.is_paired() else "local"
    if address != "local" and not device.is_paired():
        raise AuthenticationError(
            f"this device is not paired with the one at {address}: run `actors invite` there and `actors join CODE` "
            "here"
        )
    return address


def engine_of(address: str | None, engine: str | None) -> str:
    """Returns the name of the engine that is meant.

    Raises:
        ValueError: there is none of this name, or the address belongs to another one.
    """
    by_address = "ray" if isinstance(address, str) and address.startswith("ray://") else None
    if engine is not None and engine not in engines.HOMES:
        raise ValueError(f"engine must be one of {', '.join(map(repr, engines.HOMES))}, not {engine!r}")
    if by_address is not None and engine not in {None, by_address}:
        raise ValueError(f"address={address!r} belongs to engine={by_address!r}, not {engine!r}")
    return engine or by_address or engines.OWN


def check(
    address: str | None,
    namespace: str,
    local_nodes: int,
    timeout: float,
    expect_nodes: int | None = None,
    **switches: bool,
) -> None:
    """Refuses arguments that are out of range.

    Raises:
        TypeError: one of ``switches`` is neither True nor False.
        ValueError: one is; the message says which.
    """
    if address is not None and (not isinstance(address, str) or not address):
        raise ValueError(f"address must be 'local', or 'HOST:PORT' of a node, not {address!r}")
    if address not in {None, "local", "auto"}:
        from discovery.addresses import host_and_port

        for part in address.split(",") if address is not None else ():
            host_and_port(part.strip())
        if local_nodes != 1:
            raise ValueError(f"local_nodes={local_nodes} is for this machine alone: leave the address out")
    if expect_nodes is not None and (
        not isinstance(expect_nodes, int) or isinstance(expect_nodes, bool) or expect_nodes < 1
    ):
        raise ValueError(f"expect_nodes is the number of nodes to wait for, at least 1, not {expect_nodes!r}")
    if not isinstance(local_nodes, int) or isinstance(local_nodes, bool) or not 1 <= local_nodes <= 64:
        raise ValueError(f"local_nodes is the number of nodes to start here, 1 to 64, not {local_nodes!r}")
    if not isinstance(namespace, str) or not namespace:
        raise ValueError(f"namespace must be a non-empty string, not {namespace!r}")
    for name, value in switches.items():
        if not isinstance(value, bool):
            raise TypeError(f"{name} must be True or False, not {value!r}")
    if not isinstance(timeout, int | float) or not timeout > 0:
        raise ValueError(f"timeout must be more than 0 seconds, not {timeout!r}")


def offered(num_cpus: float | None, num_gpus: float | None, resources: dict[str, float] | None) -> dict[str, float]:
    """Returns what a node is to have, by name of the resource."""
    if resources is not None and not isinstance(resources, dict):
        raise TypeError(f"resources must be a dict of numbers, not {resources!r}")
    for name in resources or {}:
        if name in {"CPU", "GPU"}:
            raise ValueError(f"resources={{{name!r}: …}}: use num_cpus= or num_gpus= for it")
        if not isinstance(name, str) or not name or name.startswith("node:"):
            raise ValueError(f"a resource's name is a non-empty string that does not begin with 'node:', not {name!r}")
    given = {"num_cpus": num_cpus, "num_gpus": num_gpus}
    for name, value in given.items():
        if value is not None:
            check_amount(name, value)
    for name, value in (resources or {}).items():
        check_amount(f"resources[{name!r}]", value)
    offered = {"CPU": num_cpus, "GPU": num_gpus, **(resources or {})}
    return {name: float(value) for name, value in offered.items() if value is not None}
