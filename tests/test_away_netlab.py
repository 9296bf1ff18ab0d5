"""Away from home: between two hosts passes nothing but a tunnel, SSH's or WireGuard's, or nothing but IPv6."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from house import House, eventually
from netlab import Lab, netlab, unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator


pytestmark = [
    pytest.mark.netlab,
    pytest.mark.slow,
    pytest.mark.skipif(unavailable() is not None, reason=unavailable() or ""),
]
SSHD = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin")
WALL = [
    "add chain inet wall gate { type filter hook input priority 0; }",
    *(f"add rule inet wall gate {rule} accept" for rule in ("tcp dport 22", "tcp sport 22", "udp dport 51820")),
    "add rule inet wall gate iifname eth0 drop",
]
INSIDE = ("10.99.0.1", "10.99.0.2")

PROGRAM = """
import json, sys
import actors
actors.init(sys.argv[1], expect_nodes=2, timeout=30)
@actors.remote
class Echo:
    def where(self, data): return actors.get_runtime_context().node_name, len(data)
print(json.dumps(actors.get(Echo.options(node="host1").remote().where.remote(bytes(3_000_000)))))
"""


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """Two paired devices that do not reach each other any more but by the ports of tunnels."""
    if shutil.which("nft") is None:
        pytest.skip("nftables is not installed")
    with netlab(2) as lab:
        house = House(lab, tmp_path)
        try:
            house.pair(2)
            house.stop(2)
            for host in (1, 2):
                lab.run(host, "nft", "add table inet wall; " + "; ".join(WALL))
                house.does(host, "start")
            yield house
        finally:
            house.stop(2)


def calls_through(house: House, address: str) -> None:
    """A program on host 2 that is told this address calls an actor on host 1; before, host 1 was silent."""
    assert house.answer(2) == {"host2"}
    process = house.start(2, "-c", PROGRAM, address)
    out, _ = process.communicate(timeout=60)
    assert json.loads(out.splitlines()[-1]) == ["host1", 3_000_000]


def listens(lab: Lab, host: int, port: int) -> bool:
    return bool(lab.run(host, "ss", "-Hltn", f"sport = :{port}").strip())


def test_through_an_ssh_tunnel(house: House, tmp_path: Path) -> None:
    if SSHD is None or shutil.which("ssh") is None:
        pytest.skip("OpenSSH's server or client is not installed")
    key, hostkey = tmp_path / "key", tmp_path / "hostkey"
    for path in (key, hostkey):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True, timeout=20)
    with contextlib.suppress(FileExistsError):
        Path("/run/sshd").mkdir(mode=0o755)
    house.lab.exec(
        1,
        [SSHD, "-D", "-e", "-f", "/dev/null", "-h", str(hostkey), "-o", f"AuthorizedKeysFile={key}.pub",
         "-o", "StrictModes=no", "-o", "UsePAM=no", "-o", "PidFile=none"],
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    eventually(lambda: listens(house.lab, 1, 22))
    house.lab.exec(
        2,
        ["ssh", "-N", "-L", "40099:127.0.0.1:50099", "-i", str(key), "-o", "StrictHostKeyChecking=no",
         "-o", "UserKnownHostsFile=/dev/null", "root@10.77.0.1"],
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    eventually(lambda: listens(house.lab, 2, 40099))
    calls_through(house, "127.0.0.1:40099")


def test_through_wireguard(house: House, tmp_path: Path) -> None:
    if shutil.which("wireguard-go") is None or shutil.which("wg") is None:
        pytest.skip("wireguard-go or wireguard-tools is not installed")
    try:
        os.close(os.open("/dev/net/tun", os.O_RDWR))
    except OSError as error:
        pytest.skip(f"no tunnel can be made here: {error}")
    keys = [subprocess.run(["wg", "genkey"], check=True, capture_output=True, timeout=20).stdout for _ in range(2)]
    public = [
        subprocess.run(["wg", "pubkey"], input=key, check=True, capture_output=True, text=False, timeout=20)
        .stdout.decode().strip() for key in keys
    ]  # fmt: skip
    for me, other in ((0, 1), (1, 0)):
        host, device, file = me + 1, f"wg{house.lab.name[-6:]}{me}", tmp_path / f"wg{me}"
        file.write_bytes(keys[me])
        file.chmod(0o600)
        house.lab.exec(host, ["wireguard-go", "-f", device], stderr=subprocess.DEVNULL)
        eventually(lambda host=host, device=device: device in house.lab.run(host, "ip", "-br", "link"))
        eventually(lambda host=host, device=device, file=file, other=other: _configured(  # its socket comes later
            house.lab, host, device, str(file), public[other], f"10.77.0.{other + 1}", INSIDE[other]
        ))  # fmt: skip
        house.lab.run(host, "ip", "address", "add", f"{INSIDE[me]}/24", "dev", device)
        house.lab.run(host, "ip", "link", "set", device, "up")
    calls_through(house, f"{INSIDE[0]}:50099")


def test_where_there_is_no_ipv4_by_link_local_addresses(house: House) -> None:
    for host in (1, 2):
        house.lab.run(
            host, "nft", "flush chain inet wall gate; add rule inet wall gate iifname eth0 meta nfproto ipv4 drop"
        )
        house.does(host, "stop")
        house.does(host, "start")
    eventually(lambda: house.answer(2) == {"host1", "host2"})
    lines = house.lab.run(2, "ip", "-6", "-br", "address", "show", "dev", "eth0").split()
    assert any(word.startswith("fe80::") for word in lines), lines
    process = house.start(2, "-c", PROGRAM.replace("sys.argv[1], ", ""))
    out, _ = process.communicate(timeout=60)
    assert json.loads(out.splitlines()[-1]) == ["host1", 3_000_000]


def _configured(lab: Lab, host: int, device: str, key: str, peer: str, outside: str, inside: str) -> bool:
    try:
        lab.run(
            host, "wg", "set", device, "private-key", key, "listen-port", "51820",
            "peer", peer, "allowed-ips", f"{inside}/32", "endpoint", f"{outside}:51820",
        )  # fmt: skip
    except subprocess.CalledProcessError:
        return False
    return True
