"""Versions that a peer is told."""

from __future__ import annotations

import sys

__version__ = "0.1.0"
PROTOCOL = 1
"""Version of the session stream; peers with another one are refused by name."""

PYTHON = "{}.{}".format(*sys.version_info)
"""Minor version of Python: code that travels by value runs in the same one only."""
