"""Versions that a peer is told."""

from __future__ import annotations

__version__ = "0.1.0"
PROTOCOL = 1
"""Version of the session stream; peers with another one are refused by name."""
