"""Which firewall this machine runs, as far as its own tools tell."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys

COMMAND_SECONDS = 5.0


def active() -> str:
    """Names the firewall that may be in the way; empty where none can be told (some tell only root)."""
    if sys.platform == "darwin":
        tool = "/usr/libexec/ApplicationFirewall/socketfilterfw"
        return "the macOS application firewall" if "enabled" in _said(tool, "--getglobalstate") else ""
    if "Status: active" in _said("ufw", "status"):
        return "ufw"
    if _said("firewall-cmd", "--state").strip() == "running":
        return "firewalld"
    chain = blocking_chain(_said("nft", "list", "ruleset"))
    if chain:
        return f"nftables, chain {chain}"
    rules = _said("iptables", "-S", "INPUT")
    return "iptables, chain INPUT" if re.search(r"-P INPUT DROP|-j (DROP|REJECT)", rules) else ""


def blocking_chain(ruleset: str) -> str:
    """The first chain of an nftables ruleset that drops or rejects what comes in, as ``"inet filter input"``."""
    table = chain = ""
    hooked = False
    for line in map(str.strip, ruleset.splitlines()):
        if line.startswith("table "):
            table = line.removeprefix("table ").removesuffix("{").strip()
        elif line.startswith("chain "):
            chain, hooked = line.removeprefix("chain ").removesuffix("{").strip(), False
        elif "hook input" in line or "hook output" in line or "hook prerouting" in line or "hook ingress" in line:
            hooked = True
            if "policy drop" in line:
                return f"{table} {chain}"
        elif hooked and re.search(r"\b(drop|reject)\b", line):
            return f"{table} {chain}"
    return ""


def _said(*command: str) -> str:
    if shutil.which(command[0]) is None:
        return ""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout
