"""The command ``actors``."""

from __future__ import annotations

from actors.cli.main import main as main
