"""Units by which the system starts this device's node at log-in: systemd on Linux, launchd on macOS."""

from __future__ import annotations

import os
import plistlib
import shutil
import subprocess
import sys
from pathlib import Path

from actors.exceptions import ActorsError

LABEL = "org.mlx-actors.node"
UNIT = "mlx-actors.service"
COMMAND_SECONDS = 30.0


def install() -> Path:
    """Writes this user's unit and starts it.

    Returns:
        The unit's file.

    Raises:
        ActorsError: the system has neither systemd nor launchd, or refuses the unit.
    """
    command = [sys.executable, "-P", "-c", "from actors.cli import main; main()", "start", "--foreground"]
    home = os.environ.get("ACTORS_HOME")
    if sys.platform == "darwin":
        return _launchd(command, home)
    if shutil.which("systemctl") is None:
        raise ActorsError("there is no systemd here: let this system's own means run `actors start --foreground`")
    return _systemd(command, home)


def _systemd(command: list[str], home: str | None) -> Path:
    base = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    path = base / "systemd" / "user" / UNIT
    _write(path, systemd_unit(command, home).encode())
    _run("systemctl", "--user", "daemon-reload")
    _run("systemctl", "--user", "enable", "--now", UNIT)
    return path


def _launchd(command: list[str], home: str | None) -> Path:
    path = Path.home() / "Library" / "LaunchAgents" / f"{LABEL}.plist"
    _write(path, launchd_plist(command, home))
    _run("launchctl", "bootstrap", f"gui/{os.getuid()}", str(path))
    return path


def systemd_unit(command: list[str], home: str | None) -> str:
    """The text of a systemd user unit.

    Args:
        command: what is run.
        home: ``ACTORS_HOME``, None for the platform's own place.
    """
    environment = f"Environment={_quoted(f'ACTORS_HOME={home}')}\n" if home else ""
    return (
        "[Unit]\n"
        "Description=mlx-actors node of this user\n"
        "After=network.target\n"
        "\n"
        "[Service]\n"
        f"ExecStart={' '.join(map(_quoted, command))}\n"
        f"{environment}"
        "Restart=on-failure\n"
        "RestartSec=2\n"
        "TimeoutStopSec=20\n"
        "\n"
        "[Install]\n"
        "WantedBy=default.target\n"
    )


def _quoted(word: str) -> str:
    """A word as systemd reads it: specifiers and variables are doubled, the rest escaped."""
    plain = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{plain}"'


def launchd_plist(command: list[str], home: str | None) -> bytes:
    """The property list of a launch agent; see `systemd_unit`."""
    return plistlib.dumps(
        {
            "Label": LABEL,
            "ProgramArguments": command,
            "EnvironmentVariables": {"ACTORS_HOME": home} if home else {},
            "RunAtLoad": True,
            "KeepAlive": {"SuccessfulExit": False},
            "ThrottleInterval": 2,
            "ExitTimeOut": 20,
            "ProcessType": "Interactive",  # else macOS runs it at low priority
        }
    )


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _run(*command: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ActorsError(f"{' '.join(command)}: {error}") from error
    if done.returncode:
        raise ActorsError(
            f"{' '.join(command)} failed: {done.stderr.strip()}. The unit is written; where you came by ssh or "
            "as a service, `loginctl enable-linger` may be needed first"
        )
