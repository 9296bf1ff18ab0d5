"""`actors doctor` between hosts: each fault is made, and told for what it is."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from typing import TYPE_CHECKING, Any

import pytest
from house import SETTLED_S, House
from netlab import netlab, unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.netlab, pytest.mark.skipif(unavailable() is not None, reason=unavailable() or "")]
HOSTS = 3


class Practice(House):
    """A house whose devices are examined."""

    def doctor(self, host: int, *argv: str, prefix: tuple[str, ...] = ()) -> list[dict[str, Any]]:
        status, out = self.run(host, "doctor", "--json", *argv, prefix=prefix)
        findings: list[dict[str, Any]] = json.loads(out)
        assert status == (0 if all(finding["ok"] for finding in findings) else 1)
        return findings

    def told(self, host: int, check: str, *words: str) -> dict[str, Any]:
        """Examines until the check is not well and says these words."""
        deadline = time.monotonic() + SETTLED_S
        while True:
            findings = self.doctor(host)
            for finding in findings:
                if finding["check"] == check and not finding["ok"] and all(word in finding["what"] for word in words):
                    assert finding["do"]
                    return finding
            if time.monotonic() > deadline:
                pytest.fail(f"{check} {words} was not told: {findings}")

    def well(self, host: int) -> None:
        deadline = time.monotonic() + SETTLED_S
        while bad := [finding for finding in self.doctor(host) if not finding["ok"]]:
            if time.monotonic() > deadline:
                pytest.fail(f"still not well: {bad}")


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Practice]:
    with netlab(HOSTS) as lab:
        house = Practice(lab, tmp_path_factory.mktemp("house"))
        try:
            house.pair(HOSTS)
            yield house
        finally:
            house.stop(HOSTS)


@contextlib.contextmanager
def firewall(house: Practice, host: int, hook: str, rule: str) -> Iterator[None]:
    if shutil.which("nft") is None:
        pytest.skip("nftables is not installed")
    script = f"add table inet wall; add chain inet wall gate {{ type filter hook {hook} priority 0; }}; "
    house.lab.run(host, "nft", script + f"add rule inet wall gate {rule}")
    try:
        yield
    finally:
        house.lab.run(host, "nft", "delete table inet wall")


def test_all_is_well_and_the_way_is_measured(house: Practice) -> None:
    house.well(1)
    speed = next(finding for finding in house.doctor(1, "host2") if finding["check"] == "speed")
    assert "ms there and back" in speed["what"]
    assert "MB/s" in speed["what"]
    status, _ = house.run(1, "doctor", "nobody")
    assert status == 1


def test_multicast_blocked(house: Practice) -> None:
    with firewall(house, 2, "input", "udp dport 5353 drop"):
        assert "nftables" in house.told(2, "multicast", "blocked", "eth0")["what"]
    house.well(2)


@pytest.mark.slow
def test_port_closed(house: Practice) -> None:
    assert house.run(3, "stop")[0] == 0
    house.told(1, "member", "host3", "nothing listens")
    assert house.run(3, "start")[0] == 0
    house.well(1)


@pytest.mark.slow  # the neighbour table forgets in its own time
def test_client_isolation_and_the_cable(house: Practice) -> None:
    for port in ("port1", "port3"):
        house.switch("bridge", "link", "set", "dev", port, "isolated", "on")
    house.told(1, "member", "host3", "to this device, though it does to host2", "client isolation")
    for port in ("port1", "port3"):
        house.switch("bridge", "link", "set", "dev", port, "isolated", "off")
    house.well(1)
    house.lab.cut(3)
    house.told(1, "member", "host3", "its cable is out")
    house.lab.heal(3)
    house.well(1)


def test_a_vpn_as_the_default_route(house: Practice) -> None:
    house.lab.run(1, "ip", "link", "add", "wg0", "type", "bridge")
    house.lab.run(1, "ip", "link", "set", "wg0", "up")
    house.lab.run(1, "ip", "route", "add", "default", "dev", "wg0")
    assert "wg0" in house.told(1, "route", "VPN")["what"]
    house.lab.run(1, "ip", "link", "del", "wg0")
    house.well(1)


def test_a_clock_far_off(house: Practice) -> None:
    if shutil.which("faketime") is None:
        pytest.skip("libfaketime is not installed")
    assert house.run(2, "stop")[0] == 0
    assert house.run(2, "start", prefix=("faketime", "-f", "+3h"))[0] == 0
    assert "host2 is 10800 s ahead" in house.told(1, "clock", "far apart")["what"]
    assert house.run(2, "stop")[0] == 0
    assert house.run(2, "start")[0] == 0
    house.well(1)


def test_a_name_that_leads_elsewhere(house: Practice) -> None:
    (finding,) = [f for f in house.doctor(1, "10.77.0.2:22") if not f["ok"]]
    assert "nothing listens" in finding["what"]
    (finding,) = [f for f in house.doctor(1, "no-such-name.invalid:50099") if not f["ok"]]
    assert "no name server knows" in finding["what"]


@pytest.mark.slow
def test_not_paired_and_revoked(house: Practice) -> None:
    assert house.run(1, "revoke", "host3")[0] == 0
    house.told(3, "revoked", "removed")
    assert house.run(3, "leave")[0] == 0
    house.told(3, "paired", "not paired")
    (finding,) = [f for f in house.doctor(1, "10.77.0.3:50099") if not f["ok"]]
    assert finding["check"] in {"member", "paired"}
