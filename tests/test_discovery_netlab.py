"""Discovery between hosts: processes on several network namespaces that report what they see, with one clock."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from netlab import Lab, netlab, unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = [pytest.mark.netlab, pytest.mark.skipif(unavailable() is not None, reason=unavailable() or "")]

FOUND_S = 1.0
NOTICED_S = 15.0
"""The bound on every wait below; what is promised to be quicker is compared with its own figure."""

PRELUDE = """
import contextlib, dataclasses, json, sys, time
import discovery
options = json.loads(sys.argv[1])
interfaces = options.get("interfaces")
def say(what, **more):
    # In one piece: several threads may say something at once.
    print(json.dumps({"what": what, "at": time.monotonic(), **more}) + "\\n", end="", flush=True)
"""
BROWSE = """
from discovery import mdns
mdns.SEARCH_S = options.get("search_s", mdns.SEARCH_S)
def hear(event):
    record = getattr(event, "record", None)
    say(type(event).__name__, id=record.id if record else event.id, record=record and dataclasses.asdict(record))
with discovery.browse(interfaces=interfaces, on_event=hear):
    say("ready")
    sys.stdin.read()
"""
ADVERTISE = """
say("start")
record = discovery.NodeRecord(options["id"], options["id"], 50099, boot=options.get("boot", ""))
with discovery.advertise(record, interfaces=interfaces):
    say("ready")
    sys.stdin.read()
say("closed")
"""
FAIL = """
import socket
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as selfish:
    selfish.bind(("", 5353))
    try:
        with discovery.browse():
            pass
    except discovery.DiscoveryError as error:
        say("refused", text=str(error))
"""
# Joins the group on eth0, as any other program on the host might, and reports what passes there on UDP port 5353.
SNIFF = """
import socket, struct
group = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
group.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP,
                 socket.inet_aton("224.0.0.251") + socket.inet_aton(options["address"]))
wire = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
wire.bind(("eth0", 3))
say("ready")
while True:
    packet, (_, protocol, direction, *_) = wire.recvfrom(65535)
    if protocol == 0x0800 and packet[9] == 17:
        header = (packet[0] & 15) * 4
        if 5353 in struct.unpack("!HH", packet[header:header + 4]):
            say("out" if direction == socket.PACKET_OUTGOING else "in")
"""


class Agent:
    """A process on a host that reports in lines of JSON."""

    def __init__(self, lab: Lab, host: int, code: str, **options: Any) -> None:
        self.process: subprocess.Popen[str] = lab.exec(
            host, [sys.executable, "-c", PRELUDE + code, json.dumps(options)]
        )
        self.heard: list[dict[str, Any]] = []
        self._lines: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def hear(self, what: str, matching: Callable[[dict[str, Any]], bool] = lambda line: True) -> dict[str, Any]:
        """Wait for a report of this kind, passing over others, which stay in ``heard``."""
        deadline = time.monotonic() + NOTICED_S
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                pytest.fail(f"no report {what!r} within {NOTICED_S} s, but {self.heard}")
            self.heard.append(line)
            if line["what"] == what and matching(line):
                return line

    def drain(self) -> list[dict[str, Any]]:
        """All that was reported until now."""
        with contextlib.suppress(queue.Empty):
            while True:
                self.heard.append(self._lines.get_nowait())
        return self.heard

    def stop(self) -> None:
        """Let the process leave its ``with`` block, and wait for its end."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self.process.wait(NOTICED_S) == 0
        self._reader.join(NOTICED_S)

    def kill(self) -> None:
        """As ``kill -9``: no goodbye."""
        self.process.kill()
        self.process.wait(NOTICED_S)
        self._reader.join(NOTICED_S)

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(json.loads(line))


@pytest.fixture
def lab() -> Iterator[Lab]:
    with netlab(2) as lab:
        yield lab


def browse(lab: Lab, host: int, **options: Any) -> Agent:
    agent = Agent(lab, host, BROWSE, **options)
    agent.hear("ready")
    return agent


def advertise(lab: Lab, host: int, node: str, **options: Any) -> Agent:
    return Agent(lab, host, ADVERTISE, id=node, **options)


def test_found_in_both_directions_and_goodbye(lab: Lab) -> None:
    browsers = {host: browse(lab, host) for host in (1, 2)}
    for host, other in ((1, 2), (2, 1)):
        node = advertise(lab, host, f"node{host}")
        started = node.hear("start")["at"]
        found = browsers[other].hear("Found", lambda line, host=host: line["id"] == f"node{host}")
        assert found["at"] - started < FOUND_S
        addresses = found["record"]["addresses"]
        assert addresses[0] == lab.address(host)
        assert [address for address in addresses[1:] if address.startswith("fe80::") and address.endswith("%eth0")]
        assert not [address for address in addresses if address.startswith("127.") or address == "::1"]
        node.stop()
        assert browsers[other].hear("Lost")["at"] < node.hear("closed")["at"] + FOUND_S


def test_a_late_browser_finds_what_is_there(lab: Lab) -> None:
    advertise(lab, 1, "early").hear("ready")
    browser = browse(lab, 2)
    ready = browser.heard[-1]["at"]
    assert browser.hear("Found")["at"] - ready < FOUND_S


def test_killed_and_restarted_is_a_change(lab: Lab) -> None:
    browser = browse(lab, 2)
    first = advertise(lab, 1, "phoenix", boot="first")
    browser.hear("Found")
    first.kill()
    second = advertise(lab, 1, "phoenix", boot="second")
    started = second.hear("start")["at"]
    changed = browser.hear("Changed")
    assert changed["record"]["boot"] == "second"
    assert changed["at"] - started < FOUND_S
    assert [line["what"] for line in browser.drain()] == ["ready", "Found", "Changed"]


def test_loopback_stays_on_the_machine(lab: Lab) -> None:
    wire = Agent(lab, 1, SNIFF, address=lab.address(1))
    wire.hear("ready")
    private = advertise(lab, 1, "private", interfaces="loopback")
    private.hear("ready")
    inside = browse(lab, 1, interfaces="loopback")
    inside.hear("Found", lambda line: line["id"] == "private")
    advertise(lab, 2, "outside").hear("ready")
    outside = browse(lab, 2)  # asks: whoever on host 1 heard it would answer
    outside.hear("Found", lambda line: line["id"] == "outside")
    wire.hear("in")
    private.stop()
    inside.hear("Lost")
    advertise(lab, 1, "public").hear("ready")  # the proof that the wire is watched and the other host listens
    outside.hear("Found", lambda line: line["id"] == "public")
    published = wire.hear("out")
    assert "out" not in [line["what"] for line in wire.heard[:-1]]
    assert published["at"] > private.hear("closed")["at"]
    assert {line.get("id") for line in outside.drain()} == {None, "outside", "public"}
    assert "outside" not in {line.get("id") for line in inside.drain()}


def test_addresses_that_come_and_go(lab: Lab) -> None:
    browser = browse(lab, 2)
    advertise(lab, 1, "mobile").hear("ready")
    browser.hear("Found")
    lab.run(1, "ip", "addr", "add", "169.254.7.7/16", "dev", "eth0")
    browser.hear("Changed", lambda line: "169.254.7.7" in line["record"]["addresses"])
    lab.run(1, "ip", "addr", "del", "169.254.7.7/16", "dev", "eth0")
    browser.hear("Changed", lambda line: "169.254.7.7" not in line["record"]["addresses"])
    assert "Lost" not in [line["what"] for line in browser.drain()]


def test_a_network_that_comes_later(lab: Lab) -> None:
    for host in (1, 2):
        lab.run(host, "ip", "link", "set", "eth0", "down")
        lab.run(host, "ip", "addr", "flush", "dev", "eth0")
    browser = browse(lab, 2)
    advertise(lab, 1, "early").hear("ready")
    for host in (1, 2):
        lab.run(host, "ip", "link", "set", "eth0", "up")
        lab.run(host, "ip", "addr", "add", f"{lab.address(host)}/24", "dev", "eth0")
    browser.hear("Found", lambda line: lab.address(1) in line["record"]["addresses"])


def test_what_came_while_the_cable_was_out(lab: Lab) -> None:
    browser = browse(lab, 2, search_s=1.0)
    lab.cut(1)
    advertise(lab, 1, "unheard").hear("ready")
    time.sleep(0.6)  # its three announcements, which no one can wait for: they are lost
    assert [line["what"] for line in browser.drain()] == ["ready"]
    lab.heal(1)
    browser.hear("Found")


def test_port_held_by_another_program(lab: Lab) -> None:
    refused = Agent(lab, 1, FAIL).hear("refused")["text"]
    assert "Another program holds UDP port 5353" in refused


AVAHI = """
import subprocess, sys, time, zeroconf
from zeroconf import IPVersion, InterfaceChoice
name = options["name"] + ".local."
with open(options["folder"] + "/avahi.conf", "w") as conf:
    conf.write("[server]\\nhost-name=" + options["name"] + "\\nenable-dbus=no\\nallow-interfaces=eth0\\n[rlimits]\\n")
daemon = subprocess.Popen(["avahi-daemon", "--no-drop-root", "--no-chroot", "-f", options["folder"] + "/avahi.conf"],
                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
say("ready")
sys.stdin.read()
daemon.terminate()
daemon.wait(10)
"""
RESOLVE = """
import zeroconf
with contextlib.closing(zeroconf.Zeroconf(interfaces=[options["address"]])) as z:
    found = zeroconf.AddressResolverIPv4(options["name"] + ".local.")
    for _ in range(10):
        if found.request(z, 1000):
            break
    say("resolved", addresses=found.parsed_addresses())
"""


def test_beside_a_real_avahi_daemon(lab: Lab, tmp_path: Path) -> None:
    program = shutil.which("avahi-daemon", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        pytest.skip("avahi-daemon is not installed")
    if subprocess.run([program, "--check"], check=False, capture_output=True).returncode == 0:
        pytest.skip("an avahi-daemon runs on this machine already, and one is all it allows")
    (tmp_path / "run").mkdir()
    browser = browse(lab, 2)
    # Both share UDP port 5353 on host 1, in either order.
    node = advertise(lab, 1, "before")
    node.hear("ready")
    avahi = Agent(lab, 1, AVAHI, name="oldtimer", folder=str(tmp_path))
    avahi.hear("ready")
    advertise(lab, 1, "after").hear("ready")
    for name in ("before", "after"):
        browser.hear("Found", lambda line, name=name: line["id"] == name)
    for host in (2, 1):
        late = browse(lab, host)
        # What is found at once may have been told before it said that it is ready.
        while not {"before", "after"} <= {line.get("id") for line in late.heard if line["what"] == "Found"}:
            late.hear("Found")
    resolved = Agent(lab, 2, RESOLVE, name="oldtimer", address=lab.address(2)).hear("resolved")
    assert lab.address(1) in resolved["addresses"]  # and avahi goes on answering
    node.stop()
    browser.hear("Lost", lambda line: line["id"] == "before")
    avahi.stop()
