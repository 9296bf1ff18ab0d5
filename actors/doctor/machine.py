"""Checks of this machine alone: its network, its way out, its multicast, its clock."""

from __future__ import annotations

import errno
import shutil
import subprocess
import sys
import time
from pathlib import Path

import discovery
from actors.doctor.finding import Finding
from actors.doctor.firewall import active as firewall
from discovery import trial

COMMAND_SECONDS = 5.0
_TUNNELS = ("tun", "tap", "wg", "utun", "ppp", "ipsec", "tailscale", "zt", "nordlynx", "proton", "gpd")
_NET = Path("/sys/class/net")
_WRITTEN = 1_780_000_000
"""A time before this release (2026): a clock that shows less is wrong."""


def network() -> Finding:
    """Whether there is a network at all."""
    from discovery import interfaces

    addresses = [each for each in interfaces.announced(None) if not each.startswith("127.")]
    dead = [path.name for path in sorted(_NET.glob("*")) if _is_unplugged(path)] if _NET.is_dir() else []
    told = f"; no link at {', '.join(dead)}" if dead else ""
    if not addresses:
        return Finding("network", ok=False, what=f"this machine has no address but its own loopback{told}",
                       do="plug the cable in, or join the Wi-Fi")  # fmt: skip
    return Finding("network", ok=True, what=f"this machine is at {', '.join(addresses)}{told}")


def _is_unplugged(interface: Path) -> bool:
    try:
        return (interface / "device").exists() and (interface / "carrier").read_text().strip() == "0"
    except OSError:  # it is switched off
        return False


def multicast() -> list[Finding]:
    """Whether multicast goes out and comes in, on each interface."""
    return [_heard(heard) for heard in trial.own_multicast()]


def _heard(heard: trial.Heard, platform: str = sys.platform) -> Finding:
    where = f"on {heard.interface} ({heard.address})"
    if heard.error is None and heard.seconds is not None:
        return Finding("multicast", ok=True, what=f"multicast goes out and comes in {where}")
    if heard.error is None:
        named = f"{found}, most likely" if (found := firewall()) else "no firewall of a known kind was found"
        return Finding(
            "multicast", ok=False,
            what=f"multicast is blocked {where}: what this machine sends to UDP port 5353 does not come in again "
            f"({named})",
            do="allow UDP port 5353 inbound and outbound in this machine's firewall, or give addresses: "
            "actors.init('HOST:PORT')",
        )  # fmt: skip
    if platform == "darwin" and heard.error.errno == 65:
        return Finding(
            "multicast", ok=False,
            what=f"macOS has not let this program use the local network {where} (errno 65)",
            do="System Settings > Privacy & Security > Local Network: switch on the program from which actors was "
            "started (Terminal needs none); if it is on already, switch it off and on again",
        )  # fmt: skip
    if isinstance(heard.error, PermissionError):
        return Finding(
            "multicast", ok=False, what=f"this machine's firewall does not let multicast out {where}",
            do="allow UDP port 5353 outbound",
        )  # fmt: skip
    return Finding("multicast", ok=False, what=f"multicast does not work {where}: {heard.error}",
                   do="give addresses: actors.init('HOST:PORT')")  # fmt: skip


def port_5353() -> Finding:
    """Whether discovery can share the port of multicast DNS."""
    try:
        with discovery.browse():
            pass
    except discovery.DiscoveryError as error:
        taken = isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.EADDRINUSE
        do = "end the program that holds UDP port 5353" if taken else "give addresses: actors.init('HOST:PORT')"
        return Finding("port 5353", ok=False, what=str(error), do=do)
    return Finding("port 5353", ok=True, what="UDP port 5353 is shared with whoever else uses it")


def route() -> Finding:
    """Whether a VPN takes what is meant for the local network."""
    via = default_interface()
    if via is None:
        return Finding("route", ok=True, what="there is no default route, which a LAN does not need")
    if via.startswith(_TUNNELS):
        return Finding(
            "route", ok=False, what=f"the default route goes through {via}, a VPN: it may swallow what is meant for "
            "the local network",
            do="switch the VPN off, or allow local network access in its settings (split tunnel)",
        )  # fmt: skip
    return Finding("route", ok=True, what=f"the default route goes through {via}")


def default_interface() -> str | None:
    """The interface of the default route; None without one."""
    if sys.platform == "darwin":
        return next(
            (line.split(":", 1)[1].strip() for line in _said("route", "-n", "get", "default") if "interface:" in line),
            None,
        )
    try:
        rows = [line.split() for line in Path("/proc/net/route").read_text().splitlines()[1:]]
    except OSError:
        return None
    # A VPN's two halves, 0.0.0.0/1 and 128.0.0.0/1, go before a default route that stays.
    halves = [row for row in rows if row[1] in {"00000000", "00000080"} and row[7] == "00000080"]
    wholes = sorted((row for row in rows if row[1] == row[7] == "00000000"), key=lambda row: int(row[6]))
    return next((row[0] for row in (*halves, *wholes)), None)


def _said(*command: str) -> list[str]:
    if shutil.which(command[0]) is None:
        return []
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return done.stdout.splitlines()


def clock() -> Finding:
    """Whether the clock can be right at all."""
    now = time.strftime("%Y-%m-%d %H:%M", time.localtime())
    if time.time() < _WRITTEN:
        return Finding("clock", ok=False, what=f"the clock shows {now}, before this release was written",
                       do="set it: invitations and logs go by it")  # fmt: skip
    return Finding("clock", ok=True, what=f"the clock shows {now}")
