"""What `actors doctor` makes of what it sees, and the units that start a node: all without a network."""

from __future__ import annotations

import errno
import os
import plistlib
import shutil
import subprocess
import sys

import pytest

from actors.cli.install import launchd_plist, systemd_unit
from actors.doctor import machine
from actors.doctor.firewall import blocking_chain
from actors.doctor.member import Case, diagnose
from actors.doctor.versions import compare
from actors.reach import Knock, Way, meaning
from discovery import DiscoveryError
from discovery.trial import Heard

DOOR = "192.168.1.20:50099"


def told(way, *, shown=None, others=None, doors=(DOOR,)):
    knocks = [Knock(door, way, 0.1) for door in doors]
    return diagnose(Case("a" * 52, "anna", knocks, shown or {}, announced=True, others=others or {}))


@pytest.mark.parametrize(
    ("error", "seconds", "platform", "way"),
    [
        (OSError(65, "No route to host"), 0.001, "darwin", Way.PERMISSION),
        (OSError(65, "No route to host"), 3.0, "darwin", Way.NOBODY),
        (OSError(errno.EHOSTUNREACH, ""), 3.0, "linux", Way.NOBODY),
        (OSError(errno.EHOSTUNREACH, ""), 0.001, "linux", Way.PROHIBITED),
        (ConnectionRefusedError(errno.ECONNREFUSED, ""), 0.001, "linux", Way.REFUSED),
        (PermissionError(errno.EPERM, ""), 0.001, "linux", Way.FORBIDDEN),
        (OSError(errno.ENETUNREACH, ""), 0.001, "linux", Way.NO_ROUTE),
        (TimeoutError(), 4.5, "linux", Way.SILENT),
    ],
)
def test_errors_of_connecting(error, seconds, platform, way):
    assert meaning(error, seconds, platform) is way


@pytest.mark.parametrize(
    ("finding", "words"),
    [
        (told(Way.OPEN, shown={DOOR: "b" * 52}), "another device answers"),
        (told(Way.OPEN, shown={DOOR: None}), "something that is no node"),
        (told(Way.OPEN, shown={DOOR: "a" * 52}), "does not let this one in"),
        (told(Way.REFUSED), "nothing listens"),
        (told(Way.SILENT), "a firewall drops"),
        (told(Way.SILENT, others={"bob": True}), "though it does to bob"),
        (told(Way.NOBODY, others={"bob": True}), "client isolation"),
        (told(Way.NOBODY, others={"bob": False}), "its cable is out"),
        (told(Way.NO_ROUTE), "different networks"),
        (told(Way.PERMISSION), "macOS has not let"),
        (told(Way.REFUSED, doors=()), "has not been seen"),
    ],
)
def test_a_silent_member(finding, words):
    assert not finding.ok
    assert words in finding.what
    assert finding.do


def test_macos_keeps_multicast_back():
    finding = machine._heard(Heard("en0", "192.168.1.2", error=OSError(65, "No route to host")), "darwin")
    assert not finding.ok
    assert "errno 65" in finding.what
    assert "Local Network" in finding.do


@pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0 or shutil.which("unshare") is None,
    reason="only root makes a place without a network",
)
def test_without_any_network_no_program_is_blamed_for_it(tmp_path):
    code = """
import actors
from actors.doctor import machine
print(machine.port_5353())
try:
    actors.init(local_nodes=2)
except actors.exceptions.ActorsError as error:
    print(error)
"""
    done = subprocess.run(
        ["unshare", "-n", sys.executable, "-c", code], env={**os.environ, "ACTORS_HOME": str(tmp_path / "home")},
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    finding, refused = done.stdout.splitlines()
    assert "multicast DNS cannot be used: no network interface is up" in finding
    assert "end the program" not in finding
    assert "its loopback is switched off: `ip link set lo up`" in refused


def test_a_program_that_keeps_the_port_is_to_be_ended(monkeypatch):
    def taken():
        raise DiscoveryError("taken") from OSError(errno.EADDRINUSE, "Address already in use")

    monkeypatch.setattr(machine.discovery, "browse", taken)
    assert machine.port_5353().do == "end the program that holds UDP port 5353"


def test_versions():
    here = {"python": "3.11.7", "mlx-actors": "0.1.0", "mlx-lm": "0.29"}
    assert "3.13.0" in (other := compare(here, "anna", {**here, "python": "3.13.0"})).what
    assert "3.11.7" in other.what
    assert not other.ok
    assert not compare(here, "anna", {**here, "mlx-actors": "0.2.0"}).ok
    without = compare(here, "anna", {"python": "3.11.2", "mlx-actors": "0.1.0"})
    assert without.ok
    assert "anna lacks the extra models" in without.what


def test_the_chain_that_drops_is_named():
    ruleset = "table inet wall {\n\tchain gate {\n\t\ttype filter hook input priority 0; policy accept;\n"
    assert blocking_chain(ruleset + "\t\tudp dport 5353 drop\n\t}\n}\n") == "inet wall gate"
    assert blocking_chain(ruleset + "\t}\n}\n") == ""


def test_systemd_takes_the_unit(tmp_path):
    text = systemd_unit([sys.executable, "-c", 'print("100% of $HOME"); 1'], "/home/anna b/state")
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    unit = tmp_path / "mlx-actors.service"
    unit.write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, timeout=30, check=False
    )
    assert str(unit) not in done.stderr
    assert "mlx-actors.service" not in done.stderr


def test_launchd_takes_the_plist():
    agent = plistlib.loads(launchd_plist(["/usr/bin/python3", "-m", "x"], "/Users/anna/state"))
    assert agent["ProgramArguments"] == ["/usr/bin/python3", "-m", "x"]
    assert agent["EnvironmentVariables"] == {"ACTORS_HOME": "/Users/anna/state"}
